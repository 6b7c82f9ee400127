"""Trials as rows of Optuna's tables: many asked, or one told, in one transaction.

It knows no study and waits for no database (that is `patience`). Optuna's own methods make about
forty statements of a trial and three transactions, most of them to read what is known here: here it
is five to ask, however many trials, and three to tell. The tables are Optuna's, as it declares
them, and what lies in them is what it would have written.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Engine, Table, bindparam
from sqlalchemy.exc import SQLAlchemyError

_OPEN = [TrialState.WAITING, TrialState.RUNNING]

_STUDIES: Table = models.StudyModel.__table__
_TRIALS: Table = models.TrialModel.__table__
_PARAMETERS: Table = models.TrialParamModel.__table__
_VALUES: Table = models.TrialValueModel.__table__
_ATTRIBUTES: Table = models.TrialUserAttributeModel.__table__

_HOLD = (
    sqlalchemy.select(_STUDIES.c.study_id)
    .where(_STUDIES.c.study_id == bindparam("study"))
    .with_for_update()
)
_COUNT = sqlalchemy.select(sqlalchemy.func.count()).where(_TRIALS.c.study_id == bindparam("study"))
_STATE = sqlalchemy.select(_TRIALS.c.state).where(_TRIALS.c.trial_id == bindparam("trial"))
_NEW = sqlalchemy.insert(_TRIALS).returning(_TRIALS.c.trial_id, _TRIALS.c.number)
_END = (
    sqlalchemy.update(_TRIALS)
    .where(_TRIALS.c.trial_id == bindparam("trial"), _TRIALS.c.state.in_(_OPEN))
    .values(state=bindparam("now"), datetime_complete=bindparam("time"))
)


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that holds what it reads from others, committed at the end.

    Raises:
        StorageInternalError: the database refused it.
    """
    try:
        with engine.begin() as connection:
            if engine.dialect.name == "sqlite":  # else it begins at the first change
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
    except SQLAlchemyError as error:
        raise StorageInternalError("the study database refused a transaction") from error


def hold(connection: Connection, study: int) -> None:
    """Keeps everybody else from asking trials of a study until the transaction ends.

    Raises:
        KeyError: there is no such study.
    """
    if connection.execute(_HOLD, {"study": study}).scalar() is None:
        raise KeyError(study)


def ask(
    connection: Connection, study: int, waiting: Sequence[FrozenTrial]
) -> list[tuple[int, int]]:
    """Stores new trials of a study that is held; each one's id and number, in their order."""
    first = connection.execute(_COUNT, {"study": study}).scalar_one()
    rows = [_row(study, first + place, trial) for place, trial in enumerate(waiting)]
    ids = {number: trial for trial, number in connection.execute(_NEW, rows)}
    found = [(ids[row["number"]], row["number"]) for row in rows]
    parameters = [
        {
            "trial_id": trial,
            "param_name": name,
            "param_value": one.distributions[name].to_internal_repr(value),
            "distribution_json": distribution_to_json(one.distributions[name]),
        }
        for (trial, _), one in zip(found, waiting, strict=True)
        for name, value in one.params.items()
    ]
    connection.execute(sqlalchemy.insert(_PARAMETERS), parameters)
    attributes = [
        {"trial_id": trial, "key": key, "value_json": json.dumps(value)}
        for (trial, _), one in zip(found, waiting, strict=True)
        for key, value in one.user_attrs.items()
    ]
    connection.execute(sqlalchemy.insert(_ATTRIBUTES), attributes)
    return found


def end(
    connection: Connection,
    trial: int,
    state: TrialState,
    values: Sequence[float] | None,
    attributes: Mapping[str, Any],
) -> None:
    """Gives a pending trial its end, with its values and what is said of it.

    Raises:
        KeyError: there is no such trial.
        UpdateFinishedTrialError: it has an end.
    """
    given = {"trial": trial, "now": state, "time": _utc(datetime.now())}
    if not connection.execute(_END, given).rowcount:
        if connection.execute(_STATE, {"trial": trial}).scalar() is None:
            raise KeyError(trial)
        raise UpdateFinishedTrialError(f"trial {trial} has its end")
    if values:
        connection.execute(sqlalchemy.insert(_VALUES), list(_valued(trial, values)))
    rows = [
        {"trial_id": trial, "key": key, "value_json": json.dumps(value)}
        for key, value in attributes.items()
    ]
    if rows:
        connection.execute(sqlalchemy.insert(_ATTRIBUTES), rows)


def _row(study: int, number: int, trial: FrozenTrial) -> dict[str, Any]:
    began = _utc(trial.datetime_start) if trial.datetime_start else None
    return {"study_id": study, "number": number, "state": trial.state, "datetime_start": began}


def _utc(local: datetime) -> datetime:
    """NOTE: Optuna keeps times as UTC without saying so, and shows them as local ones."""
    return local.astimezone(UTC).replace(tzinfo=None)


def _valued(trial: int, values: Sequence[float]) -> Iterator[dict[str, Any]]:
    for objective, value in enumerate(values):
        stored, kind = models.TrialValueModel.value_to_stored_repr(value)
        yield {"trial_id": trial, "objective": objective, "value": stored, "value_type": kind}
