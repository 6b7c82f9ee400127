"""Two methods compared on an embedded Ray: files, table, going on, and what is refused."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from rich.console import Console

from cluster.contest import contest
from cluster.entrant import entrants
from cluster.folder import RunFolder
from cluster.judge import Endpoint
from cluster.judgements import FOLDER
from cluster.standing import Standing
from cluster.tally import standing_of
from cluster.terms import Terms
from cluster.tuning import best_of
from cluster.unit import BASE, ORIGINAL, Unit, Units, told
from cluster.users import Choice
from cluster.verdicts import answers_of
from models.registry import Registry
from tests.cluster import tiny_contest
from tests.cluster.judges import serving
from tests.cluster.tiny_contest import CODE, OTHERS, USERS


@dataclass(frozen=True)
class Done:
    """A comparison that has ended."""

    terms: Terms
    out: Path
    standing: Standing
    printed: str

    @property
    def json(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.out / "compare.json").read_text())
        return content


def run(terms: Terms, out: Path, **others: Any) -> tuple[Standing, str]:
    console = Console(file=io.StringIO(), width=160)
    standing = contest(terms, out, console=console, **others)
    return standing, console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("contest")
    terms = tiny_contest.terms(folder, seeds=2, trials=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        standing, printed = run(terms, folder / "out")
    return Done(terms, folder / "out", standing, printed)


def test_every_method_has_a_row(compared: Done) -> None:
    assert [row.label for row in compared.standing.rows] == ["none", "milp"]
    assert not compared.standing.left_out
    for row in compared.standing.rows:
        assert {len(values) for values in row.values.values()} == {len(USERS)}
    assert {"loss", "ROUGE-L", "ROUGE-1", "Persona-F1", "P-Cover", "recall, all"} <= set(
        compared.standing.rows[1].values
    )


def test_the_control_is_itself(compared: Done) -> None:
    found = compared.json["differences"]["none"]
    assert found
    for difference in found.values():
        assert difference["mean"] == difference["low"] == difference["high"] == 0
        assert (difference["wins"], difference["ties"], difference["losses"]) == (0, 3, 0)


def test_a_user_whose_trials_gained_nothing_has_the_bases_values(compared: Done) -> None:
    units = Units(compared.out)
    base = units.read(Unit("untrained", BASE))["users"]
    none = compared.standing.row("none")
    assert none is not None
    assert none.on_base == len(USERS)
    assert none.values["loss"] == {d: own["measured"]["loss_nats"] for d, own in base.items()}


def test_a_winner_has_the_lowest_validation_loss_of_its_users_trials(compared: Done) -> None:
    units = Units(compared.out)
    bare, trials = units.read(Unit("bare")), told(units, "milp")
    assert len(trials) == compared.terms.trials
    chosen = best_of(bare, trials)
    assert any(chosen.values())
    for digest, best in chosen.items():
        seen = [trial["users"][digest]["loss_nats"] for trial in trials]
        least = min(bare["users"][digest]["loss_nats"], *seen)
        assert least == (bare["users"][digest]["loss_nats"] if best is None else seen[best.number])


def test_what_trials_promised_stands_beside_what_test_words_kept(compared: Done) -> None:
    units = Units(compared.out)
    bare = units.read(Unit("bare"))["users"]
    trials = [trial["users"] for trial in told(units, "milp")]
    best = {
        d: min(own["loss_nats"], *(t[d]["loss_nats"] for t in trials)) for d, own in bare.items()
    }
    none, milp = compared.standing.row("none"), compared.standing.row("milp")
    assert none is not None
    assert milp is not None
    assert (none.promised, none.kept) == (0.0, 0.0)
    promised = fmean(own["loss_nats"] - best[d] for d, own in bare.items())
    assert milp.promised == pytest.approx(promised)
    assert milp.promised > 0
    found = compared.json["differences"]["milp"]["loss"]["mean"]
    assert milp.kept == pytest.approx(-found)


def test_a_method_that_learns_gains_on_a_users_habits(compared: Done) -> None:
    assert compared.json["differences"]["milp"]["loss"]["mean"] < 0
    milp = compared.standing.row("milp")
    assert milp is not None
    assert milp.cost.trained_parameters
    assert milp.cost.extra_tokens == 0


def test_bytes_are_those_on_disk(compared: Done) -> None:
    registry = Registry(compared.out / "registries" / "milp")
    trained = [registry.current(user) for user in USERS if registry.current(user).kind == "milp"]
    sizes = [sum(f.stat().st_size for f in p.folder.iterdir()) for p in trained]
    milp = compared.standing.row("milp")
    assert milp is not None
    assert milp.cost.stored_bytes == sum(sizes) / len(sizes)
    assert min(sizes) > 4 * milp.cost.stored_parameters / 2  # float32 tensors, and a description


def test_nobody_is_named_and_no_test_word_stands_anywhere(compared: Done) -> None:
    texts = tiny_contest.texts_of(compared.out)
    assert any(CODE in text for name, text in texts.items() if name.startswith("data/"))
    for name, text in texts.items():
        if not name.startswith("data/"):
            assert CODE not in text, name
    own = {name: text for name, text in texts.items() if name.startswith(("units/", "compare."))}
    assert len(own) > 2
    for name, text in [*own.items(), ("printed", compared.printed)]:
        assert not any(user in text for user in (*USERS, *OTHERS)), name
        assert "carrots" not in text, name


def test_only_its_owner_reads_it(compared: Done) -> None:
    files = [*(compared.out / "units").iterdir(), *compared.out.glob("compare.*")]
    for file in (compared.out, *files):
        assert file.stat().st_mode & 0o077 == 0, file


def test_what_it_costs_is_said_before_and_the_estimate_after_the_first_trials(
    compared: Done,
) -> None:
    lines = compared.printed.splitlines()
    costs = next(i for i, line in enumerate(lines) if "trainings at most: 9 to tune, 12" in line)
    first = next(i for i, line in enumerate(lines) if "trial 1," in line)
    said = next(i for i, line in enumerate(lines) if "an estimate from each" in line)
    assert costs < first < said


def test_the_table_says_what_was_compared(compared: Done) -> None:
    page = (compared.out / "compare.md").read_text()
    for words in ("3 users", "2 seeds", "commit", "2 trials a user", "read once", "| milp |"):
        assert words in page


def test_the_same_command_again_computes_nothing(compared: Done) -> None:
    files = sorted((compared.out / "units").iterdir())
    before = [(file.name, file.stat().st_mtime_ns) for file in files]
    standing, printed = run(compared.terms, compared.out)
    after = sorted((compared.out / "units").iterdir())
    assert [(file.name, file.stat().st_mtime_ns) for file in after] == before
    assert standing == compared.standing
    assert "trial 1," not in printed


def test_a_judge_is_asked_about_every_answer_and_nobody_else_is(compared: Done) -> None:
    with serving(lambda said: "B" if "much" in said["B"] else "A") as served:
        endpoint = Endpoint(served.url, "rule")
        standing, printed = run(compared.terms, compared.out, judge=endpoint)
    (found,) = standing.win_rates.values()
    assert list(standing.win_rates) == ["milp"]
    duels = found.wins + found.ties + found.losses
    assert duels == sum(len(texts) for texts in answers_of(compared.out, "milp").values())
    assert found.replies == len(served.asked) > 0
    assert any(CODE in said["true answer"] for said in served.asked)
    assert "By a judge against none" in printed
    assert f"milp: {duels} of {duels} pairs of answers are judged" in printed
    for text in (printed, *(file.read_text() for file in (compared.out / FOLDER).iterdir())):
        assert not any(word in text for word in (CODE, "carrots", *USERS))
    with serving(lambda said: "tie") as served:
        again, printed = run(compared.terms, compared.out, judge=Endpoint(served.url, "rule"))
    assert again == standing
    assert served.asked == []
    assert f"{found.replies} replies were there from before" in printed
    assert json.loads((compared.out / "compare.json").read_text())["win_rates"]["milp"]
    assert run(compared.terms, compared.out)[0] == compared.standing


def test_another_reference_is_another_table_of_the_same_outcomes(compared: Done) -> None:
    standing = standing_of(
        compared.terms, compared.out, entrants(compared.terms), "milp", broken={}
    )
    mine, other = compared.json["differences"]["milp"]["loss"], standing.row("none")
    assert other is not None
    loss = standing.difference(other, standing.metrics[0])
    assert loss is not None
    assert loss.mean == pytest.approx(-mine["mean"])
    assert (loss.wins, loss.losses) == (mine["losses"], mine["wins"])


def test_other_terms_in_the_same_folder_are_refused_by_name(compared: Done) -> None:
    with pytest.raises(ValueError, match=r"--trials: the folder has 2, got 5"):
        run(replace(compared.terms, trials=5), compared.out)
    with pytest.raises(ValueError, match=r"--seed: the folder has 0, got 1"):
        run(replace(compared.terms, seed=1), compared.out)


def test_a_method_that_joins_later_changes_nothing_of_the_others(
    compared: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shutil.copytree(compared.out, tmp_path / "out")
    done = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out/units").iterdir()}
    terms = replace(compared.terms, methods=("none", "rag", "milp"))
    standing, _ = run(terms, tmp_path / "out")
    assert [row.label for row in standing.rows] == ["none", "rag", "milp"]
    assert standing.settings["methods"] == ["none", "rag", "milp"]
    assert standing.row("milp") == compared.standing.row("milp")
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out/units").iterdir()}
    assert {name: after[name] for name in done} == done
    joined = [each for each in Units(tmp_path / "out").every() if each["unit"]["entrant"] == "rag"]
    assert len(joined) == len(after) - len(done) == terms.trials + terms.seeds
    alone, _ = run(replace(compared.terms, methods=("none",)), tmp_path / "out")
    assert [row.label for row in alone.rows] == ["none"]


def test_a_folder_that_another_process_works_in_is_refused(compared: Done) -> None:
    with (
        RunFolder(compared.out).lock(),
        pytest.raises(ValueError, match="another command works here"),
    ):
        run(compared.terms, compared.out)


def test_a_folder_of_something_else_is_refused(compared: Done, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds something else"):
        run(compared.terms, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_too_few_users_are_refused_with_their_number(compared: Done, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected 4 users with 30 items .*got 3"):
        run(replace(compared.terms, users=4), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_reference_that_takes_no_part_is_refused(compared: Done, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--reference: expected one of none; milp, got 'rag'"):
        run(compared.terms, tmp_path / "out", reference="rag")


@pytest.mark.long
def test_what_is_missing_is_done_again_and_comes_out_the_same(compared: Done) -> None:
    units = Units(compared.out)
    files = {file.name: file.stat().st_mtime_ns for file in units.folder.iterdir()}
    missing = Unit("final", "milp", 1)
    then = units.read(missing)["users"]
    (units.folder / f"{missing.name}.json").unlink()
    run(compared.terms, compared.out)
    assert units.read(missing)["users"] == then
    now = {file.name: file.stat().st_mtime_ns for file in units.folder.iterdir()}
    assert {name for name in now if now[name] != files[name]} == {f"{missing.name}.json"}


@pytest.mark.long
def test_with_enough_others_all_stand_on_what_they_share(tmp_path: Path) -> None:
    others = [f"other {n}" for n in range(17)]
    tiny_contest.write_data(tmp_path, others=others)
    tiny_contest.write_base(tmp_path)
    terms = tiny_contest.terms(tmp_path, methods=("none",), seeds=1)
    standing, printed = run(terms, tmp_path / "out")
    assert "population: on" in printed
    assert [row.label for row in standing.rows] == [ORIGINAL, "none"]
    original, none = standing.rows
    loss = standing.difference(original, standing.metrics[0])
    assert loss is not None
    assert loss.losses == len(USERS)
    assert original.values["loss"].keys() == none.values["loss"].keys()
    assert "other users share" in (tmp_path / "out" / "compare.md").read_text()
    learned = json.loads((tmp_path / "out" / "population" / "report.json").read_text())
    shown = 17 * 14  # of 20 each: not what shared parts are taught to answer
    assert learned["interactions"] == shown - shown // 10
    again, _ = run(terms, tmp_path / "out")
    assert again == standing


def test_users_are_drawn_and_kept(compared: Done) -> None:
    choice = Choice.load(compared.out)
    assert sorted(user.user_id for user in choice.searched) == sorted(USERS)
    assert all(user.by_session for user in choice.searched)
