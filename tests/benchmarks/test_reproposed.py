"""Stored proposals made again from what was known when they were made."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.reproposed import differences
from search.patience import PatientStorage
from search.samplers import Known, Proposal, Sampler, SamplerSettings, make_sampler
from search.storage import open_storage, sqlite_url
from search.study import Study
from tests.search.begun import CONFIGS, NAME, ask_one, begun, opened
from tests.search.planted import OBJECTIVES, SPACE, planted

INITIAL, SEED = 4, 7


@pytest.fixture
def storage(tmp_path: Path) -> PatientStorage:
    return open_storage(sqlite_url(tmp_path / "studies.db"))


def propose(study: Study, sampler: Sampler, count: int = 1) -> tuple[list[Proposal], Known]:
    """What is asked next, and on what grounds."""
    pending = [trial.config for trial in study.pending()]
    known, reference = study.known(), study.settle_reference(INITIAL)
    completed = study.completed()
    found = sampler.suggest(SPACE, OBJECTIVES, completed, pending, count, SEED, reference)
    return found, known


def searched(storage: PatientStorage, sampler: Sampler) -> Study:
    """Proposals by ones and twos, stored late, and coming back in another order than asked."""
    study = begun(storage)
    for turn in range(6):
        proposals, known = propose(study, sampler, 1 + turn % 2)
        if study.pending():  # told between the request and its answer
            last = study.pending()[-1]
            study.tell(last.number, planted(last.config))
        for proposal in proposals:
            ask_one(study, proposal, 1, known=known)
    return study


@pytest.mark.parametrize("name", ["random", "gp", "tpe"])
def test_every_proposal_comes_out_the_same(storage: PatientStorage, name: str) -> None:
    sampler = make_sampler(SamplerSettings(name, INITIAL))
    study = searched(storage, sampler)
    assert {t.source for t in study.trials[1:]} >= {name}
    assert study.reference is not None
    assert opened(storage).trials == study.trials
    assert differences(Study(storage, NAME), sampler, INITIAL, SEED) == []


def test_what_was_proposed_otherwise_is_named(storage: PatientStorage) -> None:
    sampler = make_sampler(SamplerSettings("random", INITIAL))
    study = searched(storage, sampler)
    (foreign,) = [c for c in CONFIGS if c not in {t.config for t in study.trials}][:1]
    stored = ask_one(study, Proposal(foreign, "random"), seed=1)
    (found,) = differences(study, sampler, INITIAL, SEED)
    assert found.trial == stored
    assert found.proposal is not None
    assert found.proposal.config != foreign
    assert len(differences(study, sampler, INITIAL, SEED + 1)) > 1
