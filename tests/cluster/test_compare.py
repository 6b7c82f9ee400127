"""A run compared on its test words: a tiny base, with real registry, histories and scores."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from cluster.compare import compare
from cluster.comparison import METRICS, Comparison
from cluster.results import BaseResult, Measured, Recall, Results, UserResult, save
from models.base import Base
from models.catalog import personalizer
from models.history import Histories, Interaction, split
from models.personalizer import UserState, attach
from models.registry import BaseIdentity, Registry
from models.scoring import answer_limit, losses, score
from search.space import BASE_CONFIG, MemoryConfig
from tests.tiny import save_tiny_base, tiny_interactions

LOSS = METRICS[0]
DEEP, FLAT = MemoryConfig((1, 3), 2, 1e-3), MemoryConfig((0,), 4, 1e-3)
WINNERS = {"ann": DEEP, "ben": DEEP, "cleo/..": FLAT, "dan": BASE_CONFIG, "eve": FLAT}
UNSPLIT = "eve"  # one session only
COUNT = 30


@dataclass(frozen=True)
class Run:
    """A finished search, made by hand, and what its parts are."""

    folder: Path
    results: Results
    base: Base
    states: dict[str, UserState]


def a_line(interaction: Interaction, place: int) -> str:
    line: dict[str, object] = {
        "user_id": interaction.user_id,
        "time": interaction.time,
        "query": interaction.query,
        "response": interaction.response,
        "session": "one" if interaction.user_id == UNSPLIT else interaction.session,
    }
    if place % 2 == 0:
        line["fact"] = {"value": "fine", "kind": "asked", "choices": 20}
    return json.dumps(line)


def a_state(base: Base, user_id: str, seed: int) -> UserState:
    generator = torch.Generator().manual_seed(seed)
    configuration, tensors = WINNERS[user_id], {}
    for layer in configuration.layers:
        for name, (features_in, features_out) in base.matrix_shapes(layer).items():
            a_RI = torch.randn(configuration.rank, features_in, generator=generator)
            b_OR = torch.randn(features_out, configuration.rank, generator=generator)
            tensors[f"{name}.lora_A.weight"] = a_RI * 0.3
            tensors[f"{name}.lora_B.weight"] = b_OR * 0.1
    return UserState("milp", user_id, configuration.to_json(), tensors)


def a_user(user_id: str, digest: str) -> UserResult:
    configuration = WINNERS[user_id]
    anything = Measured(1.0, 10, rouge_l=0.1)
    return UserResult(
        user_id=user_id,
        digest=digest,
        by_session=user_id != UNSPLIT,
        pairs=COUNT,
        kind="milp" if configuration.layers else "base",
        reason=None,
        configuration=configuration,
        parameters=0,
        strength=1.0,
        anchor=anything,
        winner=anything,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    original = save_tiny_base(tmp_path_factory.mktemp("original"), seed=0)
    base = Base.load(save_tiny_base(folder / "base", seed=1))
    data = tmp_path_factory.mktemp("data") / "people.jsonl"
    lines = [
        a_line(interaction, place)
        for user_id in WINNERS
        for place, interaction in enumerate(tiny_interactions(user_id, COUNT))
    ]
    data.write_text("\n".join(lines))
    Histories.read(data, folder / "data")
    states = {user_id: a_state(base, user_id, seed) for seed, user_id in enumerate(WINNERS)}
    registry = Registry(folder / "registry")
    for state in states.values():
        registry.publish(state, BaseIdentity.of(base), {"loss": 1.0})
    results = Results(
        experiment={"data": str(data), "user_said": "response"},
        base=BaseResult(str(folder / "base"), base.fingerprint, base.layer_count, str(original)),
        population={"users": 20},
        users=tuple(a_user(user_id, f"{place:016x}") for place, user_id in enumerate(WINNERS)),
        left_out=(),
        gain=None,
        seconds={},
    )
    save(results, folder)
    return Run(folder, results, base, states)


def measure(run: Run, **options: int) -> Comparison:
    quiet = Console(file=io.StringIO())
    return compare(run.folder, device="cpu", console=quiet, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def found(run: Run) -> Comparison:
    return measure(run, seed=3, strangers=2, items=2)


def test_own_and_base_are_what_scoring_says_of_the_test_part(run: Run, found: Comparison) -> None:
    method = personalizer("milp")
    for user in found.users:
        parts = split(Histories.open(run.folder / "data").load(user.user_id))
        state = run.states[user.user_id]
        asked = [None, None if state.is_base else state]
        limit = answer_limit(run.base, parts.train)
        items = [parts.test, parts.test]
        base, own = losses(run.base, attach(method, run.base), asked, items)
        assert user.measured["base"].loss_nats == pytest.approx(base.nats, abs=1e-5)
        assert user.measured["own"].loss_nats == pytest.approx(own.nats, abs=1e-5)
        assert user.items == len(parts.test)
        first = parts.test[len(parts.test) // 4], parts.test[3 * len(parts.test) // 4]
        scores = score(run.base, attach(method, run.base), asked, [first, first], [limit] * 2)
        assert user.measured["own"].rouge_l == pytest.approx(scores[1].rouge_l)
        assert user.measured["own"].recall == {k: Recall(*n) for k, n in scores[1].recall.items()}
        assert user.answered == 2
    assert any(user.measured["own"].recall for user in found.users)


def test_a_memory_changes_something_and_the_base_changes_nothing(found: Comparison) -> None:
    by_name = {user.user_id: user for user in found.users}
    assert by_name["dan"].kind == "base"
    assert by_name["dan"].measured["own"] == by_name["dan"].measured["base"]
    changes = [
        by_name[name].difference(LOSS, "own", "base") for name in ("ann", "ben", "cleo/..", "eve")
    ]
    assert all(change is not None and abs(change) > 1e-3 for change in changes)


def test_the_original_base_is_the_one_before_the_population(run: Run, found: Comparison) -> None:
    original = Base.load(run.results.base.original)
    test = split(Histories.open(run.folder / "data").load("ann")).test
    (expected,) = losses(original, attach(personalizer("none"), original), [None], [test])
    assert found.users[0].measured["original"].loss_nats == pytest.approx(expected.nats, abs=1e-5)
    assert found.contrasts(found.users)[-1].to == "original"


def test_what_a_submitted_job_prints_names_nobody(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run.folder, tmp_path, dirs_exist_ok=True)
    Registry(tmp_path / "registry").withdraw("ben")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    printed = io.StringIO()
    compare(tmp_path, items=1, device="cpu", console=Console(file=printed, width=300))
    for user in run.results.users:
        assert user.user_id not in printed.getvalue()
        assert user.digest in printed.getvalue()
        assert user.user_id in (tmp_path / "compare.md").read_text()


def test_strangers_are_the_mean_over_their_memories(run: Run, found: Comparison) -> None:
    ann = found.users[0]
    names = {user.digest: user.user_id for user in run.results.users}
    test = split(Histories.open(run.folder / "data").load("ann")).test
    memories = [run.states[names[digest]] for digest in ann.strangers]
    assert len(memories) == 2
    attached = attach(personalizer("milp"), run.base)
    each = losses(run.base, attached, memories, [test] * 2)
    mean = sum(loss.nats for loss in each) / 2
    assert ann.measured["strangers"].loss_nats == pytest.approx(mean, abs=1e-5)


def test_of_a_large_run_some_users_are_drawn_and_strangers_from_all(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    load = Histories.load
    monkeypatch.setattr(Histories, "load", lambda self, u: read.append(u) or load(self, u))
    some = compare(run.folder, 0, 4, tmp_path, 2, users=2, console=Console(quiet=True))
    names = [user.user_id for user in some.users]
    assert len(names) == 2
    assert sorted(set(read)) == names  # nobody else's words
    assert all(len(user.strangers) >= 3 for user in some.users)
    assert (some.drawn_from, some.withdrawn) == (5, ())
    assert "2 users drawn from 5," in (tmp_path / "compare.md").read_text()


def test_users_not_split_between_sessions_are_marked_and_out_of_the_headline(
    run: Run, found: Comparison
) -> None:
    assert [user.user_id for user in found.headline] == ["ann", "ben", "cleo/..", "dan"]
    text = (run.folder / "compare.md").read_text()
    assert "eve \\*" in text
    assert "5 users, 4 of them split between sessions" in text


def test_what_is_written_is_private_and_whole(run: Run, found: Comparison) -> None:
    for name in ("compare.json", "compare.md"):
        assert (run.folder / name).stat().st_mode & 0o777 == 0o600
    stored = json.loads((run.folder / "compare.json").read_text())
    assert stored["users"][0]["measured"]["own"]["loss_nats"] == (
        found.users[0].measured["own"].loss_nats
    )
    assert stored["headline"]["contrasts"][0]["of"] == "own"
    assert set(stored["anchors"]) == {"true answer", "another user's", "copying"}


def test_the_same_seed_gives_the_same_comparison_and_out_is_another_folder(
    run: Run, found: Comparison, tmp_path: Path
) -> None:
    quiet = Console(file=io.StringIO())
    again = compare(run.folder, 3, 2, tmp_path / "deep" / "out", 2, "cpu", quiet)
    assert again == found
    assert (tmp_path / "deep" / "out" / "compare.md").read_text() == (
        run.folder / "compare.md"
    ).read_text()


def test_without_a_population_there_is_one_base(run: Run, tmp_path: Path) -> None:
    for part in ("data", "registry"):
        shutil.copytree(run.folder / part, tmp_path / part)
    searched = shutil.copytree(run.folder / "base", tmp_path.parent / "searched")
    plain = replace(run.results.base, original=str(searched), name=str(searched))
    Registry(tmp_path / "registry").withdraw("ben")
    save(replace(run.results, base=plain, population=None), tmp_path)
    found = compare(tmp_path, items=1, console=Console(file=io.StringIO()), device="cpu")
    assert all("original" not in user.measured for user in found.users)
    assert found.withdrawn == ("ben",)
    assert [user.user_id for user in found.users] == ["ann", "cleo/..", "dan", "eve"]
    assert "ben" in (tmp_path / "compare.md").read_text()


def test_another_base_is_refused(run: Run, tmp_path: Path) -> None:
    for part in ("data", "registry"):
        shutil.copytree(run.folder / part, tmp_path / part)
    save_tiny_base(tmp_path / "base", seed=2)
    save(run.results, tmp_path)
    with pytest.raises(ValueError, match="put the base back"):
        compare(tmp_path, items=1, console=Console(file=io.StringIO()), device="cpu")
    assert not (tmp_path / "compare.json").exists()


def test_where_nothing_can_be_written_nothing_is_measured(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError):
        compare(run.folder, out=tmp_path / "file", device="a device that is not asked for")


def test_bad_numbers_and_unfinished_runs_are_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--strangers: expected at least 1"):
        measure(run, strangers=0)
    with pytest.raises(ValueError, match="--items"):
        measure(run, items=0)
    with pytest.raises(FileNotFoundError, match="no results"):
        compare(tmp_path)
