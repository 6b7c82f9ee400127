"""What is to be trained again of a user, with which seeds, and what is kept of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.experiment import seed_of
from cluster.repeats import keep, repeats_of
from search.certainty import certainty
from search.samplers import Proposal
from search.space import MemoryConfig, SearchSpace
from search.storage import open_storage, sqlite_url
from search.study import Study
from tests.search.begun import ask_one

DIGEST = "0123456789abcdef"
CONFIGS = (MemoryConfig((0,), 4, 1e-3), MemoryConfig((1,), 4, 1e-3))
SEED = 7


@pytest.fixture
def study(tmp_path: Path) -> Study:
    storage = open_storage(sqlite_url(tmp_path / "studies.db"))
    study = Study.open(storage, DIGEST, SearchSpace(2, (4, 8), (1e-3,)))
    study.ask_anchor(0)
    for config in CONFIGS:
        ask_one(study, Proposal(config, "random"), seed_of(SEED, config.key))
    study.tell(1, (3.0, 0.3))
    study.tell(2, (3.2, 0.2))
    return study


def test_every_repeat_has_a_name_and_a_seed_of_its_own(study: Study) -> None:
    study.tell(0, (4.0, 0.1), {"item_count": 10})
    found = repeats_of(study, 3, SEED)
    assert [(one.configuration, one.repeat) for one in found] == [
        (config, repeat) for config in CONFIGS for repeat in (1, 2, 3)
    ]
    assert len({one.name for one in found}) == len({one.seed for one in found}) == 6
    assert not {one.seed for one in found} & {trial.seed for trial in study.trials}
    assert found == repeats_of(study, 3, SEED)
    assert all(one.name.startswith(f"milpa/{DIGEST}/repeat-") for one in found)


def test_what_is_kept_is_not_trained_again(study: Study) -> None:
    study.tell(0, (4.0, 0.1), {"item_count": 10})
    first, second = repeats_of(study, 1, SEED)
    keep(study, first, {"loss_nats": 3.1, "rouge_l": 0.25, "steps": 20, "done": True})
    assert repeats_of(study, 1, SEED) == [second]
    keep(study, second, {"error": "training diverged", "done": True})
    assert repeats_of(study, 1, SEED) == []
    assert certainty(study) is None
    *_, another = repeats_of(study, 2, SEED)
    keep(study, another, {"loss_nats": 3.2, "rouge_l": 0.2, "steps": 20, "done": True})
    found = certainty(study)
    assert found is not None
    assert found.winner.rows == ((3.1, 0.25),)
    assert found.runner_up.rows == ((3.2, 0.2),)


def test_nothing_is_repeated_unasked_or_where_the_base_was_not_scored(study: Study) -> None:
    assert repeats_of(study, 3, SEED) == []
    study.fail(0, "out of memory")
    assert repeats_of(study, 3, SEED) == []
    assert repeats_of(study, 0, SEED) == []
