"""A whole search whose users begin with what an earlier run's users advise."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.studies import OBJECTIVES
from search.census import study_names
from search.design import DEFAULT
from search.samplers import PORTFOLIO, SamplerSettings, make_sampler
from search.space import MemoryConfig
from search.storage import open_storage, sqlite_url
from search.study import Study
from tests.cluster import tiny_run
from tests.cluster.tiny_run import USERS, Driver
from tests.search.begun import ask_one

SOURCES, SOURCE_TRIALS = 8, 24
BASE = (4.0, 0.1)


def measured(config: MemoryConfig) -> tuple[float, float]:
    """Layers 0 and 2 and the higher rank are what is good, for every earlier user."""
    learned = 0.5 * (0 in config.layers) + 0.3 * (2 in config.layers) - 0.1 * (3 in config.layers)
    learned += 0.01 * config.rank
    return BASE[0] - learned, BASE[1] + 0.1 * learned


def search_earlier_users(url: str, like: str) -> None:
    """Studies of the same space and base as the one that there is."""
    storage = open_storage(url)
    first = Study(storage, like)
    (base,) = {study.user_attrs["base"] for study in storage.get_all_studies()}
    for user in range(SOURCES):
        study = Study.open(storage, f"source{user}", first.space, OBJECTIVES, base)
        study.tell(study.ask_anchor(0).number, BASE)
        random = make_sampler(SamplerSettings("random", 0))
        for one in random.suggest(first.space, OBJECTIVES, [], [], SOURCE_TRIALS, user):
            study.tell(ask_one(study, one, seed=0).number, measured(one.config))
    storage.engine.dispose()


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_users_of_a_later_run_begin_with_a_portfolio_and_share_a_total(tmp_path: Path) -> None:
    data, base = tiny_run.write_data(tmp_path), tiny_run.write_base(tmp_path)
    url = sqlite_url(tmp_path / "shared.db")
    given = {"storage": url, "sampler": "gp", "population": "off"}
    Driver(
        tiny_run.command(data, base, tmp_path / "first", **given, trials=1), tmp_path / "log"
    ).finish(700)
    known = study_names(open_storage(url))
    search_earlier_users(url, known[0])
    words = tiny_run.command(
        data, base, tmp_path / "later", **given, **{"trials": 8, "initial": 4, "total-trials": 12}
    )
    said = Driver(words, tmp_path / "log").finish(700)
    storage = open_storage(url)
    names = [n for n in study_names(storage) if n not in known and not n.startswith("source")]
    studies = [Study(storage, name) for name in names]
    assert len(studies) == len(USERS)
    assert sum(len(study.trials) - 1 for study in studies) == 12
    advised = len(studies[0].portfolio)  # of four initial points, half at most
    assert 1 <= advised <= 2
    points = "1 point" if advised == 1 else "2 points"
    assert f"new users begin with {points} of earlier users' fronts" in said
    for study in studies:
        expected = [PORTFOLIO] * advised + [DEFAULT] + ["sobol"] * (3 - advised)
        assert [t.source for t in study.trials[1:5]] == expected
        assert tuple(t.config for t in study.trials[1 : 1 + advised]) == study.portfolio
        assert all(t.gain is not None for t in study.trials[5:])
    page = (tmp_path / "later" / "report.html").read_text(encoding="utf-8")
    assert f"{len(studies) * advised} begun from what was best for earlier users" in page
