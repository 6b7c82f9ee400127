"""What is asked and told lies in the tables as Optuna would have written it, all or nothing."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Any

import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.patience import PatientStorage
from search.samplers import Known, Proposal
from search.space import BASE_CONFIG
from search.storage import template
from tests.search.begun import CONFIGS
from tests.search.planted import SPACE

MEASURED = {"measured": {"item_count": 16, "curve": [["tuning", 1, 8, 2.5]]}, "reason": "né"}
WAITING = [
    template(SPACE, Proposal(BASE_CONFIG, "anchor"), 2**62, 0),
    template(SPACE, Proposal(CONFIGS[0], "gp", 0.25), 7, 100, Known(1, (0,))),
    template(SPACE, Proposal(CONFIGS[1], "gp"), 8, 100, Known(1, (0,))),
]


def made(storage: PatientStorage, name: str) -> int:
    return storage.create_new_study([StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE], name)


def seen(trial: FrozenTrial) -> dict[str, Any]:
    """All that is stored of a trial, but for its id and when it ended."""
    names = (
        *("number", "state", "values", "params", "distributions", "user_attrs", "system_attrs"),
        *("intermediate_values", "datetime_start"),
    )
    return {name: getattr(trial, name) for name in names}


def test_what_is_asked_is_as_optuna_would_have_stored_it(storage: PatientStorage) -> None:
    study, other = made(storage, "ours"), made(storage, "optuna's")
    asked = storage.ask(study, WAITING[:1]) + storage.ask(study, WAITING[1:])
    theirs = [RDBStorage.create_new_trial(storage, other, one) for one in WAITING]
    assert [number for _, number in asked] == [0, 1, 2]
    for (trial, _), like in zip(asked, theirs, strict=True):
        assert seen(storage.get_trial(trial)) == seen(storage.get_trial(like))


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED])
def test_what_is_told_is_as_optuna_would_have_stored_it(
    storage: PatientStorage, state: TrialState
) -> None:
    values = [2.5, 0.25] if state == TrialState.COMPLETE else None
    study, other = made(storage, "ours"), made(storage, "optuna's")
    ((trial, _),) = storage.ask(study, WAITING[:1])
    like = RDBStorage.create_new_trial(storage, other, WAITING[0])
    storage.end(trial, state, values, MEASURED)
    for key, value in MEASURED.items():
        RDBStorage.set_trial_user_attr(storage, like, key, value)
    RDBStorage.set_trial_state_values(storage, like, state, values)
    ours, theirs = storage.get_trial(trial), storage.get_trial(like)
    assert seen(ours) == seen(theirs)
    assert ours.datetime_complete is not None
    assert abs(ours.datetime_complete - datetime.now()) < timedelta(minutes=10)


def test_an_end_is_the_last_one(storage: PatientStorage) -> None:
    ((trial, _),) = storage.ask(made(storage, "one"), WAITING[:1])
    storage.end(trial, TrialState.COMPLETE, [1.0, 0.5], {})
    with pytest.raises(UpdateFinishedTrialError):
        storage.end(trial, TrialState.FAIL, None, MEASURED)
    found = storage.get_trial(trial)
    assert (found.state, found.values) == (TrialState.COMPLETE, [1.0, 0.5])
    assert "reason" not in found.user_attrs


def test_an_end_that_breaks_off_leaves_the_trial_pending(storage: PatientStorage) -> None:
    ((trial, _),) = storage.ask(made(storage, "one"), WAITING[:1])
    before = seen(storage.get_trial(trial))
    with pytest.raises(TypeError):
        storage.end(trial, TrialState.COMPLETE, [1.0, 0.5], {"measured": object()})
    assert seen(storage.get_trial(trial)) == before


def test_what_is_not_there_is_refused(storage: PatientStorage) -> None:
    with pytest.raises(KeyError):
        storage.ask(10**6, WAITING)
    with pytest.raises(KeyError):
        storage.end(10**6, TrialState.FAIL, None, {})


def test_who_asks_at_once_gets_numbers_of_their_own(storage: PatientStorage) -> None:
    study, found = made(storage, "one"), list[int]()

    def ask() -> None:
        for one in WAITING[1:]:
            found.extend(number for _, number in storage.ask(study, [one, WAITING[0]]))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(12))
    assert len(storage.get_all_trials(study)) == 12
