"""A shard's new users begin with what earlier users' studies advise; kept before the first ask."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from cluster.asker import Asker, start_askers
from cluster.budget import Rules
from cluster.connection import connected
from cluster.studies import SearchPlan, Studies
from search.design import DEFAULT
from search.samplers import PORTFOLIO, Evidence, Proposal, SamplerSettings, make_sampler
from search.space import MemoryConfig
from search.storage import open_storage, sqlite_url
from search.study import Study
from tests.search.begun import ask_one
from tests.search.planted import BASE, OBJECTIVES, SPACE, planted

SETTINGS = SamplerSettings("gp", 8)
SOURCES, SOURCE_TRIALS = 8, 32
NEW = {"aaaa": 1, "bbbb": 2}


class InlineStudies(Studies):
    """Studies whose asker answers in this process."""

    def advice(self, others: Sequence[Evidence]) -> tuple[MemoryConfig, ...]:
        return Asker(SETTINGS).advise(SPACE, OBJECTIVES, others)


def plan(folder: Path, transfer: bool = True) -> SearchPlan:
    url = sqlite_url(folder / "studies.db")
    return SearchPlan(url, SPACE, (10,) * 8, SETTINGS, Rules(24), transfer, "b")


def studies(folder: Path, seeds: dict[str, int] = NEW, transfer: bool = True) -> Studies:
    return InlineStudies(plan(folder, transfer), seeds)


def search_earlier_users(folder: Path) -> None:
    """Studies of random configurations, by users to whom the same ones are good."""
    storage = open_storage(sqlite_url(folder / "studies.db"))
    for user in range(SOURCES):
        study = Study.open(storage, f"source{user}", SPACE, OBJECTIVES, "b")
        study.tell(study.ask_anchor(0).number, BASE)
        random = make_sampler(SamplerSettings("random", 0))
        for proposal in random.suggest(SPACE, OBJECTIVES, [], [], SOURCE_TRIALS, user):
            study.tell(ask_one(study, proposal, seed=0).number, planted(proposal.config))


def proposed(of: Studies, digest: str, count: int) -> list[Proposal]:
    return make_sampler(SETTINGS).suggest(*of.grounds(digest, count))


def test_the_first_users_learn_from_nobody(tmp_path: Path) -> None:
    first = studies(tmp_path)
    assert first.advised == 0
    assert [p.source for p in proposed(first, "aaaa", 8)] == [DEFAULT] + ["sobol"] * 7


def test_later_users_begin_with_a_portfolio_and_go_on_with_it(tmp_path: Path) -> None:
    search_earlier_users(tmp_path)
    later = studies(tmp_path)
    assert 0 < later.advised <= 4
    found = proposed(later, "aaaa", 8)
    sources = [p.source for p in found]
    assert sources == [PORTFOLIO] * later.advised + [DEFAULT] + ["sobol"] * (7 - later.advised)
    asked = later.stored("aaaa", found[:1])[1][0]
    later.tell(asked, {"loss_nats": 3.5, "rouge_l": 0.2})
    storage = open_storage(sqlite_url(tmp_path / "studies.db"))
    Study(storage, "source0").delete()  # what was advised stands, whoever is forgotten
    again = studies(tmp_path)
    assert again.advised == 0
    assert proposed(again, "aaaa", 7) == found[1:]
    assert proposed(again, "bbbb", 8)[: later.advised] == [
        p for p in found if p.source == PORTFOLIO
    ]


def test_a_user_who_has_begun_alone_goes_on_alone(tmp_path: Path) -> None:
    first = studies(tmp_path, {"aaaa": 1})
    before = proposed(first, "aaaa", 8)
    first.stored("aaaa", before[:1])
    search_earlier_users(tmp_path)
    again = studies(tmp_path)
    assert proposed(again, "aaaa", 7) == before[1:]
    assert proposed(again, "bbbb", 1)[0].source == PORTFOLIO


def test_nothing_is_learned_where_it_is_not_wanted(tmp_path: Path) -> None:
    search_earlier_users(tmp_path)
    alone = proposed(studies(tmp_path, transfer=False), "aaaa", 8)
    assert [p.source for p in alone] == [DEFAULT] + ["sobol"] * 7


def test_an_asker_of_ray_advises_the_same(tmp_path: Path) -> None:
    (tmp_path / "inline").mkdir()
    search_earlier_users(tmp_path / "inline")
    shutil.copy(tmp_path / "inline" / "studies.db", tmp_path / "studies.db")
    expected = proposed(studies(tmp_path / "inline"), "aaaa", 1)
    with connected(None, 1, "transfer", lambda folder: None, packer_bytes=float("inf")):
        asking = Studies(plan(tmp_path), NEW, start_askers(1, SETTINGS))
        asking.request("aaaa", 1)
        while not (arrived := asking.collect()):
            time.sleep(0.05)
    ((digest, (asked,)),) = arrived
    assert digest == "aaaa"
    assert asked.configuration == expected[0].config
    trial = Study(open_storage(sqlite_url(tmp_path / "studies.db")), "aaaa").trials[1]
    assert (trial.source, trial.gain) == (PORTFOLIO, None)
