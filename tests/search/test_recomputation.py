"""Stored proposals made again from what was known when they were made."""

from __future__ import annotations

import pytest
from optuna.storages import RDBStorage

from search.recomputation import differences
from search.samplers import Known, Proposal, Sampler, SamplerSettings, make_sampler
from search.study import Study
from tests.search.begun import CONFIGS, NAME, begun, opened
from tests.search.planted import OBJECTIVES, SPACE, planted

INITIAL, SEED = 4, 7


def propose(study: Study, sampler: Sampler, count: int = 1) -> tuple[list[Proposal], Known]:
    """What is asked next, and on what grounds."""
    pending = [trial.config for trial in study.pending()]
    known, reference = study.known(), study.settle_reference(INITIAL)
    completed = study.completed()
    found = sampler.suggest(SPACE, OBJECTIVES, completed, pending, count, SEED, reference)
    return found, known


def searched(storage: RDBStorage, sampler: Sampler) -> Study:
    """Proposals by ones and twos, stored late, and coming back in another order than asked."""
    study = begun(storage)
    for turn in range(6):
        proposals, known = propose(study, sampler, 1 + turn % 2)
        if study.pending():  # told between the request and its answer
            last = study.pending()[-1]
            study.tell(last.number, planted(last.config))
        for proposal in proposals:
            study.ask(proposal, 1, known=known)
    return study


@pytest.mark.parametrize("name", ["random", "gp", "tpe"])
def test_every_proposal_comes_out_the_same(storage: RDBStorage, name: str) -> None:
    sampler = make_sampler(SamplerSettings(name, INITIAL))
    study = searched(storage, sampler)
    assert {t.source for t in study.trials[1:]} >= {name}
    assert study.reference is not None
    assert opened(storage).trials == study.trials
    assert differences(Study(storage, NAME), sampler, INITIAL, SEED) == []


def test_what_was_proposed_otherwise_is_named(storage: RDBStorage) -> None:
    sampler = make_sampler(SamplerSettings("random", INITIAL))
    study = searched(storage, sampler)
    (foreign,) = [c for c in CONFIGS if c not in {t.config for t in study.trials}][:1]
    stored = study.ask(Proposal(foreign, "random"), seed=1)
    (found,) = differences(study, sampler, INITIAL, SEED)
    assert found.trial == stored
    assert found.proposal is not None
    assert found.proposal.config != foreign
    assert len(differences(study, sampler, INITIAL, SEED + 1)) > 1


def test_what_was_known_is_what_was_pending_when_it_was_requested(storage: RDBStorage) -> None:
    study = begun(storage)
    first = study.ask(Proposal(CONFIGS[0], "sobol"), seed=1)
    second = study.ask(Proposal(CONFIGS[1], "sobol"), seed=1)
    assert (first.known, second.known) == (Known(1, ()), Known(2, (1,)))
    assert study.anchor is not None
    assert study.anchor.known is None
