"""Trials stopped early by Tune's scheduler: in a study, and in a real search, gone on with.

The same search repeats its winners, who must have run to their end.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cluster.folder import RunFolder
from cluster.results import load
from cluster.stopping import EarlyStopping
from cluster.trial import task_name
from models.registry import Registry
from search.census import study_names
from search.certainty import certainty
from search.samplers import Proposal
from search.space import MemoryConfig, SearchSpace
from search.stopping import Checkpoint, StoppingRule, curve_of
from search.storage import Trial, open_storage, sqlite_url
from search.study import Study
from tests.cluster import tiny_run
from tests.cluster.tiny_run import USERS, Driver
from tests.search.begun import ask_one
from tests.tiny import tiny_model, tiny_tokenizer

RATES = (1e-3, 1e3)  # the second diverges
TRIALS, REPEATS = 5, 1
SPACE = SearchSpace(4, (4, 8), RATES)
RULE = StoppingRule(fewest=3)


def points(*losses: float) -> list[Checkpoint]:
    return [Checkpoint("tuning", i + 1, 4 * (i + 1), loss) for i, loss in enumerate(losses)]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A base at 4.0, and three trials that gained 0.1 or 0.2 after their second epoch."""
    study = Study.open(open_storage(sqlite_url(tmp_path / "studies.db")), "0123456789abcdef", SPACE)
    study.ask_anchor(0)
    configs = [MemoryConfig((layer,), 4, 1e-3) for layer in range(4)]
    for i, config in enumerate(configs):
        ask_one(study, Proposal(config, "random"), seed=i)
    study.tell(1, (3.4, 0.2), {"curve": points(3.8, 3.5, 3.4)})
    study.tell(2, (3.3, 0.3), {"curve": points(3.8, 3.5, 3.3)})
    study.tell(3, (3.5, 0.2), {"curve": points(3.8, 3.6, 3.5)})
    return study


def why(study: Study, rule: StoppingRule, *losses: float) -> str | None:
    """What the scheduler says of a memory with these losses."""
    scheduler = EarlyStopping(lambda digest: study.trials, lambda *_: None, rule)
    return scheduler.why(study.trials, points(*losses))


def test_a_trial_is_judged_by_what_its_study_holds(study: Study) -> None:
    assert why(study, RULE, 3.95, 3.9) is None  # the base is not scored
    study.tell(0, (4.0, 0.1), {"item_count": 10})
    assert why(study, RULE, 3.95, 3.9) is not None
    assert why(study, RULE, 3.7, 3.4) is None


def test_a_stopped_trial_teaches_no_other(study: Study) -> None:
    study.tell(0, (4.0, 0.1), {"item_count": 10})
    study.stop(4, "unpromising", {"curve": points(3.0, 2.9)})
    assert why(study, StoppingRule(fewest=4), 3.95, 3.9) is None


def write_learned_base(folder: Path, data: Path) -> Path:
    """A base that knows how people talk here: a random one has nothing to lose by diverging."""
    base = tiny_run.write_base(folder)
    model, tokenizer = tiny_model(), tiny_tokenizer()
    lines = map(json.loads, data.read_text(encoding="utf-8").splitlines())
    texts = [f"{line['query']}\n{line['response']}<|endoftext|>" for line in lines]
    rows = tokenizer(texts[::4], return_tensors="pt", padding=True)
    labels = rows.input_ids.masked_fill(rows.attention_mask == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        model(**rows, labels=labels).loss.backward()
        optimizer.step()
    model.save_pretrained(base)
    return base


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search, half of whose learning rates diverge: killed on the way, and gone on with."""
    folder = tmp_path_factory.mktemp("stopping")
    data = tiny_run.write_data(folder)
    base = write_learned_base(folder, data)
    others = {"trials": TRIALS, "repeat-winner": REPEATS}
    words = tiny_run.command(data, base, folder / "run", **others)
    words += ["--stop-early", *(part for r in RATES for part in ("--learning-rates", str(r)))]
    driver = Driver(words, folder / "first.log")
    driver.until(lambda: any(t["state"] == "PRUNED" for t in tiny_run.trials_of(folder / "run")))
    driver.kill()
    Driver([*words, "--resume"], folder / "second.log").finish()
    return folder / "run"


@pytest.fixture(scope="module")
def trials(run: Path) -> list[Trial]:
    storage = open_storage(RunFolder(run).storage())
    return [trial for name in study_names(storage) for trial in Study(storage, name).trials]


def test_what_diverges_is_stopped_and_all_else_is_completed(trials: list[Trial]) -> None:
    assert len(trials) == len(USERS) * (TRIALS + 1)
    stopped = [trial for trial in trials if trial.state == "stopped"]
    assert stopped
    for trial in trials:
        diverges = trial.config.learning_rate == RATES[1]
        assert trial.state == ("stopped" if diverges else "completed"), trial


def test_a_stopped_trial_has_a_reason_and_the_curve_so_far_but_no_values(
    trials: list[Trial],
) -> None:
    for trial in (trial for trial in trials if trial.state == "stopped"):
        assert trial.values is None
        assert str(trial.reason).startswith("diverged at injection 1")
        assert [point[:2] for point in curve_of(trial.measured)] == [("injection", 1)]


def test_a_completed_trial_keeps_its_whole_curve(trials: list[Trial]) -> None:
    for trial in trials:
        if trial.values is not None and trial.config.layers:
            curve = curve_of(trial.measured)
            assert {point.stage for point in curve} == {"injection", "tuning"}
            assert min(point.loss_nats for point in curve) == pytest.approx(trial.values[0])
            assert curve[-1].steps == trial.measured["steps"]


def test_a_stopped_trial_leaves_its_pack_at_once_and_comes_never_again(
    run: Path, trials: list[Trial]
) -> None:
    """A pack as tiny as this one may have ended a training before it is told to stop it.

    One that the kill came before began twice, and was stopped the second time.
    """
    names = {tiny_run.name_of(t) for t in tiny_run.trials_of(run) if t["state"] == "PRUNED"}
    left = tiny_run.names_in_log(run, "stopped")
    assert left
    assert set(left) <= names
    assert len(left) == len(set(left))
    last = tiny_run.last_words(run)
    assert all(last[name] == "stopped" for name in left)
    assert not {*left} & {*tiny_run.names_in_log(run, "ended")}


def test_the_winner_is_a_trial_that_ran_to_its_end(run: Path) -> None:
    found = load(run)
    assert {user.user_id for user in found.users} == set(USERS)
    assert all(user.configuration.learning_rate != RATES[1] for user in found.users)
    assert set(Registry(run / "registry").users()) == set(USERS)


def test_winner_and_runner_up_are_trained_again_and_compared(run: Path) -> None:
    storage = open_storage(RunFolder(run).storage())
    ended = tiny_run.names_in_log(run, "ended")
    for name in study_names(storage):
        study = Study(storage, name)
        found = certainty(study)
        assert found is not None
        assert found.winner.trial == study.winner()
        for one in (found.winner, found.runner_up):
            key = one.trial.config.key
            assert len(one.rows) == REPEATS
            assert one.rows[0] != one.trial.values  # another seed
            assert ended.count(task_name(name, f"repeat-1-{key}")) == 1
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count("How sure the winner is") == len(USERS)


def test_the_report_counts_stopped_trials_and_calls_none_failed(
    run: Path, trials: list[Trial]
) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    count = sum(trial.state == "stopped" for trial in trials)
    assert f"trials completed, {count} stopped early, 0 failed" in page
