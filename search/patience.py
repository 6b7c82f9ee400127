"""A storage that waits while its database is away, and does nothing twice when it is back.

It knows no studies. What is asked of the storage is one transaction each. One that the database
breaks off is begun again, once a second, until it goes through or the patience is spent. Waiting is
done where the storage is called: in a search that is the thread of Tune's controller, which could
store no result meanwhile, so there is nothing better for it to do. What trains goes on training.

A commit whose answer was lost may have happened or not. So each transaction must stand being done
twice. Reading does; an attribute is set to the same value; a trial that has its end refuses another
(`UpdateFinishedTrialError`), and so does the name of a study that is there already. New trials
alone would be there twice, so before they are stored again, the study is searched for them.

What is said of it names no address, since addresses hold passwords, and no statement's values.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import SQLAlchemyError

from search import rows

LIMIT_SECONDS = 600.0  # that a database may be away
PAUSE_SECONDS = 1.0  # between two tries
_PASSING = {  # what SQLite says when a file is locked, full, or on a disk that is away
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
}

T = TypeVar("T")
P = ParamSpec("P")
Say = Callable[[str], None]

_logger = logging.getLogger(__name__)


class DatabaseAway(TimeoutError):  # noqa: N818
    """The study database did not come back in time."""


class BrokenOff(ConnectionError):  # noqa: N818
    """A transaction that the database broke off; it may have happened or not."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the study database does not answer ({why})")
        self.why = why


class Patience:
    """How long one process waits for one database.

    Once it is spent, what is asked fails at once, until something goes through again.
    """

    def __init__(self, say: Say = _logger.warning) -> None:
        """Patience that has not been tried yet.

        Args:
            say: told when waiting begins and when it goes on.
        """
        self._say = say
        self._since: float | None = None

    def __call__(self, work: Callable[[], T]) -> T:
        """What the work gives, done again for as long as the database is away.

        Raises:
            DatabaseAway: for too long.
        """
        while True:
            try:
                found = work()
            except (SQLAlchemyError, StorageInternalError, BrokenOff, ValueError) as error:
                if not (why := _passing(error)):
                    raise
                self._wait(why, error)
            else:
                self._go_on()
                return found

    def check(self) -> None:
        """Nothing, unless the patience is spent.

        Raises:
            DatabaseAway: it is.
        """
        if self._since is not None and time.monotonic() - self._since >= LIMIT_SECONDS:
            raise DatabaseAway(
                f"the study database did not answer for {LIMIT_SECONDS / 60:g} minutes; "
                "see that it runs, then go on with --resume"
            )

    def _wait(self, why: str, error: Exception) -> None:
        if self._since is None:
            self._since = time.monotonic()
            self._say(
                f"the study database does not answer ({why}); "
                f"waiting for it, up to {LIMIT_SECONDS / 60:g} minutes"
            )
        try:
            self.check()
        except DatabaseAway as spent:
            raise spent from error
        time.sleep(PAUSE_SECONDS)

    def _go_on(self) -> None:
        if self._since is not None:
            seconds = time.monotonic() - self._since
            self._since = None
            self._say(f"the study database answers again after {seconds:.0f} s; going on")


def _patient(
    method: Callable[Concatenate[PatientStorage, P], T],
) -> Callable[Concatenate[PatientStorage, P], T]:
    """A method of Optuna's that is one transaction and stands being done twice."""

    def patient(self: PatientStorage, /, *given: P.args, **named: P.kwargs) -> T:
        return self.patience(lambda: method(self, *given, **named))

    return patient


class PatientStorage(RDBStorage):
    """Optuna's storage, for all that a search asks of it."""

    def __init__(
        self, url: str, engine: Mapping[str, Any], patience: Patience, is_checked: bool = False
    ) -> None:
        """A storage whose database answers now: opening it does not wait.

        Args:
            url: SQLAlchemy's, braces doubled.
            engine: what SQLAlchemy's engine is made with.
            patience: what every transaction is done with.
            is_checked: whether its tables are known to be there, and of a version that fits.
        """
        super().__init__(
            url,
            engine_kwargs=dict(engine),
            skip_compatibility_check=is_checked,
            skip_table_creation=is_checked,
        )
        self.patience = patience
        sqlalchemy.event.listen(self.engine, "handle_error", _break_off)

    get_all_studies = _patient(RDBStorage.get_all_studies)
    get_study_id_from_name = _patient(RDBStorage.get_study_id_from_name)
    get_study_user_attrs = _patient(RDBStorage.get_study_user_attrs)
    get_trial = _patient(RDBStorage.get_trial)
    get_all_trials = _patient(RDBStorage.get_all_trials)
    create_new_study = _patient(RDBStorage.create_new_study)
    set_study_user_attr = _patient(RDBStorage.set_study_user_attr)
    set_study_system_attr = _patient(RDBStorage.set_study_system_attr)

    def ask(self, study_id: int, waiting: Sequence[FrozenTrial]) -> list[tuple[int, int]]:
        """Stores new trials; the id and the number of each, in their order.

        Where an answer to storing them was lost, it is those that are there.

        Raises:
            KeyError: there is no such study.
            StorageInternalError: the database refused it, and would again.
        """
        is_tried = False

        def store() -> list[tuple[int, int]]:
            nonlocal is_tried
            with rows.writing(self.engine) as connection:
                rows.hold(connection, study_id)
                found = self._stored(study_id, waiting) if is_tried else None
                is_tried = True
                return found or rows.ask(connection, study_id, waiting)

        return self.patience(store)

    def end(
        self,
        trial_id: int,
        state: TrialState,
        values: Sequence[float] | None,
        attributes: Mapping[str, Any],
    ) -> None:
        """Gives a pending trial its end, with all that is said of it.

        Raises:
            KeyError: there is no such trial.
            UpdateFinishedTrialError: it has an end; so it is where an answer to this was lost.
            StorageInternalError: the database refused it, and would again.
        """

        def store() -> None:
            with rows.writing(self.engine) as connection:
                rows.end(connection, trial_id, state, values, attributes)

        self.patience(store)

    def _stored(
        self, study_id: int, waiting: Sequence[FrozenTrial]
    ) -> list[tuple[int, int]] | None:
        """The trials that are as these templates say; all are there, or none.

        NOTE: a server may still be at work on the transaction that got no answer. It holds the
        study, so it must be held here too: then what became of it can be read.
        """
        told = [(one.params, one.user_attrs) for one in waiting]
        there = RDBStorage.get_all_trials(self, study_id, deepcopy=False)
        found = [one for one in there if (one.params, one.user_attrs) in told]
        found.sort(key=lambda one: one.number)
        return [(one._trial_id, one.number) for one in found] or None


def _break_off(context: ExceptionContext) -> None:
    """NOTE: a ping that fails is answered by SQLAlchemy with a new connection."""
    error = context.sqlalchemy_exception
    if error is not None and not context.is_pre_ping and (why := _passing(error)):
        raise BrokenOff(why)


def _passing(error: BaseException) -> str | None:
    """The name of what is likely to pass without anybody's doing; None where it is not."""
    for one in _causes(error):
        if isinstance(one, BrokenOff):
            return one.why
        if isinstance(one, sqlite3.Error):
            code = getattr(one, "sqlite_errorcode", 0) & 0xFF  # without its details
            return one.sqlite_errorname if code in _PASSING else None
        if isinstance(one, sqlalchemy.exc.DBAPIError) and not isinstance(one.orig, sqlite3.Error):
            is_passing = isinstance(one, sqlalchemy.exc.OperationalError)
            return type(one.orig).__name__ if is_passing or one.connection_invalidated else None
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__
