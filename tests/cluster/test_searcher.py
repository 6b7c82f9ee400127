"""The searcher without Ray: real studies on SQLite, proposals made on the spot."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.tune.search import Searcher

from cluster.budget import PENDING_PER_USER, Rules
from cluster.experiment import seed_of
from cluster.searcher import ATTEMPTS, StudySearcher
from cluster.studies import Asked, SearchPlan, Studies
from cluster.trial import REFUSED
from search.samplers import Proposal, SamplerSettings
from search.space import BASE_CONFIG, MemoryConfig, SearchSpace
from search.storage import open_storage
from search.study import Study

SPACE = SearchSpace(4, (4, 8), (1e-3, 1e-2))
SEEDS = {"aaaa": 1, "bbbb": 2}


class Sensitive:
    """A sampler whose answer depends on all that it is given."""

    def suggest(self, *grounds: Any) -> list[Proposal]:
        space, _, completed, pending, count = grounds[:5]
        generator = np.random.default_rng(seed_of(*map(repr, grounds)))
        taken = {*pending, *(observation.config for observation in completed)}
        found: dict[MemoryConfig, None] = {}
        while len(found) < min(count, space.size() - len(taken - {BASE_CONFIG})):
            if (config := space.sample(generator)) not in taken:
                found[config] = None
        return [Proposal(config, "sensitive") for config in found]


class InlineStudies(Studies):
    """Studies whose asker answers at the next look, in this process."""

    def __init__(self, plan: SearchPlan, seeds: Mapping[str, int], sampler: Sensitive) -> None:
        super().__init__(plan, seeds)
        self._sampler = sampler
        self._wanted: list[tuple[str, int]] = []

    def request(self, digest: str, count: int) -> None:
        self._wanted.append((digest, count))

    def collect(self) -> list[tuple[str, list[Asked]]]:
        wanted, self._wanted = self._wanted, []
        return [self.stored(digest, self._proposed(digest, count)) for digest, count in wanted]

    def _proposed(self, digest: str, count: int) -> Sequence[Any]:
        return self._sampler.suggest(*self.grounds(digest, count))


class Bench:
    """A searcher, its studies, and what it told."""

    def __init__(
        self,
        folder: Path,
        trials: int = 3,
        ahead: int = 100,
        batch: int = 1,
        rules: Rules | None = None,
        sampler: Sensitive | None = None,
        space: SearchSpace = SPACE,
    ) -> None:
        rules = rules or Rules(trials, batch=batch)
        storage = f"sqlite:///{folder / 'studies.db'}"
        plan = SearchPlan(storage, space, (10,) * 4, SamplerSettings("random", 2), rules)
        self.storage = storage
        self.studies = InlineStudies(plan, SEEDS, sampler or Sensitive())
        self.events: list[dict[str, Any]] = []
        self.running: dict[str, Mapping[str, Any]] = {}
        self.searcher = StudySearcher(
            tuple(SEEDS),
            self.studies,
            rules=rules,
            ahead=ahead,
            to_config=lambda asked: {"asked": asked},
            notify=self.events.append,
        )

    def suggest(self) -> Asked | str | None:
        trial_id = f"t{len(self.events)}-{len(self.running)}"
        found = self.searcher.suggest(trial_id)
        if found is None or isinstance(found, str):
            return found
        asked: Asked = found["asked"]
        self.running[trial_id] = found
        return asked

    def suggest_all(self) -> list[Asked]:
        """Everything it gives without hearing of an end."""
        found = []
        for _ in range(3 * PENDING_PER_USER):
            asked = self.suggest()
            if isinstance(asked, Asked):
                found.append(asked)
        return found

    def completed(self, digest: str) -> int:
        return len(Study(open_storage(self.storage), digest).completed())

    def id_of(self, asked: Asked) -> str:
        return next(i for i, config in self.running.items() if config["asked"] == asked)

    def finish(self, asked: Asked, **result: Any) -> None:
        trial_id = self.id_of(asked)
        self.searcher.on_trial_complete(trial_id, result or outcome(asked))
        del self.running[trial_id]


def outcome(asked: Asked) -> dict[str, float]:
    """What a trial gives, by its configuration."""
    loss = 3.0 - 0.1 * len(asked.configuration.layers) + 0.01 * asked.configuration.rank
    return {"loss_nats": loss, "rouge_l": 0.1 * (4 - loss), "item_count": 8, "rouge_l_error": 0.0}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_the_anchor_comes_first_for_each_user(bench: Bench) -> None:
    first, second = bench.suggest(), bench.suggest()
    assert isinstance(first, Asked)
    assert isinstance(second, Asked)
    assert [first.number, second.number] == [0, 0]
    assert {first.digest, second.digest} == set(SEEDS)
    assert first.configuration.layers == ()


def test_a_user_has_at_most_four_pending(tmp_path: Path) -> None:
    bench = Bench(tmp_path, trials=20)
    asked = bench.suggest_all()
    pending = [sum(a.digest == digest for a in asked) for digest in SEEDS]
    assert pending == [PENDING_PER_USER, PENDING_PER_USER]
    bench.finish(asked[0])
    assert len(bench.suggest_all()) == 1


def test_a_batch_is_asked_at_once_when_the_last_one_is_told(tmp_path: Path) -> None:
    """As the paper's rounds of four: the same grounds for all, nothing told in between."""
    bench = Bench(tmp_path, trials=10, batch=4)
    waiting = bench.suggest_all()
    assert [asked.number for asked in waiting] == [0, 0]  # the anchors
    for expected in (4, 4, 2):
        for asked in waiting[:-1]:
            bench.finish(asked)
        others = bench.suggest_all()
        assert {asked.digest for asked in others} <= {waiting[0].digest}
        bench.finish(waiting[-1])
        waiting = sorted([*others, *bench.suggest_all()], key=lambda asked: asked.digest)
        assert [asked.digest for asked in waiting] == ["aaaa"] * expected + ["bbbb"] * expected
        assert len({asked.configuration for asked in waiting[:expected]}) == expected


def test_a_user_whose_space_runs_out_ends(tmp_path: Path) -> None:
    bench = Bench(tmp_path, trials=SPACE.size() + 10, batch=4)
    asked: Asked | str | None = None
    while not isinstance(asked, str):
        asked = bench.suggest()
        if asked is None and bench.running:
            bench.finish(next(iter(bench.running.values()))["asked"])
    assert [bench.completed(digest) for digest in SEEDS] == [SPACE.size() + 1] * 2


def test_no_more_are_asked_than_are_needed_ahead(tmp_path: Path) -> None:
    bench = Bench(tmp_path, trials=20, ahead=3)
    assert len(bench.suggest_all()) == 3


def test_what_was_asked_and_not_told_comes_first_in_the_order_of_asking(tmp_path: Path) -> None:
    first = Bench(tmp_path, trials=6)
    asked = first.suggest_all()
    told = asked[0], asked[3]
    for one in told:
        first.finish(one)
    second = Bench(tmp_path, trials=6)
    again = second.suggest_all()
    waiting = [one for one in asked if one not in told]
    assert again[: len(waiting)] == sorted(waiting, key=lambda a: a.number)
    assert len(again) > len(waiting)


def test_it_ends_when_all_is_told_and_not_before(bench: Bench) -> None:
    for _ in range(100):
        asked = bench.suggest()
        if isinstance(asked, str):
            break
        if asked is None:
            bench.finish(next(iter(bench.running.values()))["asked"])
    assert asked == Searcher.FINISHED
    assert not bench.running
    trials = [bench.completed(digest) for digest in SEEDS]
    assert trials == [4, 4]  # three and the anchor


def test_it_says_once_when_nothing_is_left_to_ask(bench: Bench) -> None:
    draining = {"event": "draining"}
    for asked in bench.suggest_all()[:-1]:
        bench.finish(asked)
        bench.suggest()
    assert bench.events.count(draining) == 1


def test_an_end_that_comes_twice_is_told_once(bench: Bench) -> None:
    asked = bench.suggest()
    assert isinstance(asked, Asked)
    trial_id = bench.id_of(asked)
    for _ in range(2):
        bench.searcher.on_trial_complete(trial_id, outcome(asked))
    assert len(bench.events) == 1


def test_an_end_that_could_not_be_told_is_told_when_tune_calls_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = bench.suggest()
    assert isinstance(asked, Asked)
    tell = bench.studies.tell
    monkeypatch.setattr(bench.studies, "tell", _raises)
    with pytest.raises(OSError, match="disk"):
        bench.searcher.on_trial_complete(bench.id_of(asked), outcome(asked))
    monkeypatch.setattr(bench.studies, "tell", tell)
    bench.searcher.on_trial_complete(bench.id_of(asked), outcome(asked))
    assert bench.completed(asked.digest) == 1


def _raises(*_: object) -> None:
    raise OSError("disk is full")


@pytest.mark.parametrize(
    "end",
    [
        lambda searcher, trial: searcher.on_trial_complete(trial, {"lost": True}),
        lambda searcher, trial: searcher.on_trial_complete(trial, error=True),
        lambda searcher, trial: searcher.on_trial_complete(trial),
    ],
    ids=["packer died", "trial's process died", "never ran"],
)
def test_a_trial_whose_process_died_is_next_again_three_times_then_failed(
    bench: Bench, end: Callable[[Any, str], None]
) -> None:
    first = bench.suggest()
    assert isinstance(first, Asked)
    for attempt in range(1, ATTEMPTS + 1):
        asked = first if attempt == 1 else bench.suggest()
        assert isinstance(asked, Asked)
        assert (asked.digest, asked.number, asked.attempt) == (first.digest, 0, attempt)
        end(bench.searcher, bench.id_of(asked))
    assert bench.events[-1]["error"] == "its process died 3 times"
    assert [a.number for a in bench.studies.pending(first.digest)] != [0]


def test_a_trial_that_was_refused_is_next_again_however_often(bench: Bench) -> None:
    first = bench.suggest()
    assert isinstance(first, Asked)
    asked = first
    for _ in range(2 * ATTEMPTS):
        bench.finish(asked, **REFUSED)
        again = bench.suggest()
        assert again == first
        asked = again
    assert not [event for event in bench.events if event["event"] == "told"]


def test_a_failure_is_stored_with_its_reason_and_not_asked_again(bench: Bench) -> None:
    asked = bench.suggest_all()
    bench.finish(asked[3], error="training diverged", done=True)
    assert bench.events[-1]["error"] == "training diverged"
    rest = bench.suggest_all()
    assert asked[3].configuration not in [
        one.configuration for one in rest if one.digest == asked[3].digest
    ]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_objectives_that_are_no_numbers_are_a_failure_to_everybody(
    bench: Bench, loss: float
) -> None:
    asked = bench.suggest_all()[2]
    bench.finish(asked, loss_nats=loss, rouge_l=0.1)
    assert bench.events[-1]["error"] == f"loss is {loss}, rouge_l is 0.1"
    assert "loss_nats" not in bench.events[-1]
    trial = bench.studies.trials(asked.digest)[asked.number]
    assert (trial.state, trial.values) == ("failed", None)


def test_a_user_with_one_configuration_has_one_trial(tmp_path: Path) -> None:
    bench = Bench(tmp_path, trials=5, space=SearchSpace(1, (4,), (1e-3,)))
    finish_all(bench)
    assert [bench.completed(digest) for digest in SEEDS] == [2, 2]
    configs = {trial.config for trial in bench.studies.trials("aaaa")}
    assert configs == {BASE_CONFIG, MemoryConfig((0,), 4, 1e-3)}


def test_a_trial_that_was_not_worth_finishing_is_stored_as_stopped(bench: Bench) -> None:
    asked = bench.suggest_all()[2]
    reached = {"loss_nats": 1.0, "steps": 8, "curve": [["tuning", 1, 8, 1.0]], "done": True}
    bench.searcher.stop(bench.id_of(asked), "dominated at tuning 1", reached)
    bench.finish(asked, **reached)
    assert bench.events[-1]["stopped"] == "dominated at tuning 1"
    assert "loss_nats" not in bench.events[-1]
    trial = bench.studies.trials(asked.digest)[asked.number]
    assert (trial.state, trial.values, trial.reason) == ("stopped", None, "dominated at tuning 1")
    assert trial.measured == {"steps": 8, "curve": [["tuning", 1, 8, 1.0]]}
    rest = bench.suggest_all()
    assert asked.configuration not in [a.configuration for a in rest if a.digest == asked.digest]


def test_a_stop_that_could_not_be_told_is_told_when_tune_calls_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = bench.suggest_all()[2]
    trial_id = bench.id_of(asked)
    bench.searcher.stop(trial_id, "dominated", {})
    stop = bench.studies.stop
    monkeypatch.setattr(bench.studies, "stop", _raises)
    with pytest.raises(OSError, match="disk"):
        bench.searcher.on_trial_complete(trial_id, {})
    monkeypatch.setattr(bench.studies, "stop", stop)
    bench.searcher.on_trial_complete(trial_id, error=True)
    assert bench.studies.trials(asked.digest)[asked.number].state == "stopped"


def test_a_trial_that_a_scheduler_stops_is_no_full_result(bench: Bench) -> None:
    asked = bench.suggest_all()[2]
    bench.finish(asked, loss_nats=1.0, stage="tuning", done=True)
    assert bench.events[-1]["error"] == "stopped before its end"


def test_going_on_proposes_what_would_have_been_proposed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    first = Bench(tmp_path / "a", trials=12, ahead=4)
    asked = first.suggest_all()
    for _ in range(3):
        for one in asked:
            first.finish(one)
        asked = first.suggest_all()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    second = Bench(tmp_path / "b", trials=12, ahead=4)
    assert second.suggest_all() == asked
    for bench in (first, second):
        for one in asked:
            bench.finish(one)
    assert first.suggest_all() == second.suggest_all() != []


class Promising(Sensitive):
    """Promises much to one user and little to the other; its design promises nothing."""

    def suggest(self, *grounds: Any) -> list[Proposal]:
        seed = grounds[5]
        known = len(grounds[2]) + len(grounds[3]) > 3
        gain = {1: 0.5, 2: 0.01}[seed] if known else None
        return [replace(proposal, gain=gain) for proposal in super().suggest(*grounds)]


def finish_all(bench: Bench) -> None:
    """Tells trial after trial until the searcher says that it is over."""
    while not isinstance(asked := bench.suggest(), str):
        if asked is None and bench.running:
            bench.finish(next(iter(bench.running.values()))["asked"])


def test_a_total_goes_to_whom_most_is_promised(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ahead=1, rules=Rules(10, floor=3, total=16), sampler=Promising())
    finish_all(bench)
    trials = [bench.completed(digest) - 1 for digest in SEEDS]
    assert trials == [10, 6]


def test_going_on_with_a_total_shares_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """Promises are stored: a search that was killed gives each user what they would have got."""
    rules = Rules(10, floor=3, total=16)
    first = Bench(tmp_path, ahead=1, rules=rules, sampler=Promising())
    for _ in range(18):
        asked = first.suggest()
        if asked is None and first.running:
            first.finish(next(iter(first.running.values()))["asked"])
    second = Bench(tmp_path, ahead=1, rules=rules, sampler=Promising())
    finish_all(second)
    assert [second.completed(digest) - 1 for digest in SEEDS] == [10, 6]
