"""What is refused before a search begins, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from cluster.budget import Rules
from cluster.controllers import Controllers
from cluster.experiment import Experiment
from cluster.process import BrokeOff
from cluster.progress import Progress
from cluster.run import _breaking_off, occupancy, said_of_size, said_of_total
from cluster.schedule import Schedule
from cluster.shard import ShardPlan
from cluster.studies import OBJECTIVES, SearchPlan
from search.patience import DatabaseAway
from search.samplers import SamplerSettings
from search.space import SearchSpace
from search.storage import open_storage, sqlite_url
from search.study import Study

SPACE = SearchSpace(4, (4, 8), (1e-3, 1e-2))


def scheduled(folder: Path, space: SearchSpace) -> Schedule:
    storage = sqlite_url(folder / "studies.db")
    plan = SearchPlan(storage, space, (10,) * 4, SamplerSettings("random", 2), Rules(3))
    return Schedule(
        ShardPlan("all", {"aaaa": 1, "bbbb": 2}, plan, folder, 1, 2),
        Controllers(()),
        Progress(Console(quiet=True), 3),
    )


def test_studies_of_another_space_are_refused_by_what_differs_and_kept(tmp_path: Path) -> None:
    storage = open_storage(sqlite_url(tmp_path / "studies.db"))
    Study.open(storage, "bbbb", SPACE, OBJECTIVES).ask_anchor(1)
    before = Study(storage, "bbbb").trials
    with pytest.raises(ValueError, match=r"bbbb was made otherwise: ranks was \[4, 8\], now \[4\]"):
        scheduled(tmp_path, replace(SPACE, ranks=(4,)))
    assert Study(storage, "bbbb").trials == before
    assert [study.study_name for study in storage.get_all_studies()] == ["bbbb"]
    scheduled(tmp_path, SPACE)


class Noting(Controllers):
    """Starts nothing, and notes what it was to start."""

    def __init__(self) -> None:
        super().__init__(())
        self.plans: list[ShardPlan] = []

    def start(self, shard: ShardPlan) -> object:
        """A stream that nothing comes from."""
        self.plans.append(shard)
        return object()


def test_several_shards_run_beside_each_other_on_many_slots(tmp_path: Path) -> None:
    plan = SearchPlan(
        sqlite_url(tmp_path / "studies.db"),
        SPACE,
        (10,) * 4,
        SamplerSettings("random", 2),
        Rules(3),
    )
    users = {f"{i:04}": i for i in range(3000)}
    crew = Noting()
    whole = ShardPlan("all", users, plan, tmp_path, 1, 256)
    schedule = Schedule(whole, crew, Progress(Console(quiet=True), 3))
    schedule.begin()
    assert [shard.slots for shard in crew.plans] == [128, 128]
    for shard in crew.plans[:2]:
        schedule._shard_event(shard, {"event": "draining"})
    assert len(crew.plans) == 4
    assert len({digest for shard in crew.plans for digest in shard.seeds}) == 3000


def test_a_search_whose_database_stays_away_is_not_begun_again(tmp_path: Path) -> None:
    """A shard that broke otherwise is: three times in all."""
    from cluster.shard import _failure

    schedule = scheduled(tmp_path, SPACE)
    (shard,) = schedule._plans.values()
    event = {"event": "over", **_failure(DatabaseAway("it did not answer")), "done": True}
    with pytest.raises(BrokeOff, match="shard-0: it did not answer"):
        schedule._shard_event(shard, event)
    event = {"event": "over", **_failure(ValueError("a user's words")), "done": True}
    schedule._attempts["shard-0"] = 2
    with pytest.raises(BrokeOff, match=r"broke 3 times, the last time by ValueError; .* --resume"):
        schedule._shard_event(shard, event)
    assert "final" not in _failure(ValueError("a user's words"))
    assert "words" not in str(_failure(ValueError("a user's words")))


def test_what_breaks_off_a_search_is_told_apart_from_what_nobody_foresaw() -> None:
    with pytest.raises(BrokeOff, match="broke off: it did not answer"), _breaking_off():
        raise DatabaseAway("it did not answer")
    with pytest.raises(RuntimeError, match="--resume goes on") as raised, _breaking_off():
        raise ValueError("who knows why")
    assert not isinstance(raised.value, BrokeOff)  # so that its trace is shown


def test_how_full_packs_were_is_a_mean_over_their_steps() -> None:
    assert occupancy([(10, 30), (30, 60)], slots=8) == 90 / (40 * 4)
    assert occupancy([(0, 0)], slots=4) is None


def test_a_space_smaller_than_the_budget_is_said() -> None:
    assert said_of_size(30, 30) is None
    said = said_of_size(1, 30)
    assert said is not None
    assert "holds 1 configurations" in said
    assert "not 30" in said


def test_a_total_beyond_what_users_may_have_is_said() -> None:
    assert said_of_total(Experiment("data", "base", trials=9), 4) is None
    assert said_of_total(Experiment("data", "base", trials=9, total_trials=36), 4) is None
    said = said_of_total(Experiment("data", "base", trials=9, total_trials=37), 4)
    assert said == "--total-trials 37 is not reached: 4 users have at most 9 trials each"
