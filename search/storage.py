"""How trials lie in an Optuna storage: opening one, and a trial as its rows.

It knows no rules of a search (that is `study`). SQLite by default, PostgreSQL where several
machines write; `optuna-dashboard` reads either.

In Optuna a configuration is few parameters, since each costs a transaction's time: `layers`, an
integer whose bits are the active layers (`layers_53` and so on hold those beyond 53: Optuna keeps
parameters as doubles), `rank`, and `learning_rate`. The base has `layers` alone. A readable list of
layers stands among the user attributes.
"""

import logging
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.pareto import LOSS, ROUGE_L, Candidate, Objective
from search.patience import Patience, PatientStorage, Say
from search.samplers import Known, Proposal
from search.space import MemoryConfig, SearchSpace

BITS = 53  # of an integer that a double holds exactly
ATTEMPTS = 10  # at opening a new database that others are opening too
LOCK_SECONDS = 60.0  # that whoever opens a file first waits for others
BUSY_SECONDS = 5.0  # that a writer waits for another before anything is said of it
# PostgreSQL's own: a machine that is gone must not be waited for in silence, as a server is not.
_REACHABLE = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
_SECRET = ("password", "sslpassword")

_logger = logging.getLogger(__name__)

State = Literal["pending", "completed", "failed", "stopped"]
STATES: Mapping[TrialState, State] = {
    TrialState.COMPLETE: "completed",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "stopped",
}


@dataclass(frozen=True)
class Trial:
    """One evaluation of a configuration, as it is stored."""

    id: int  # in the storage
    number: int  # in its study: the order in which it was asked
    config: MemoryConfig
    state: State
    source: str  # who proposed it
    seed: int
    parameters: int
    values: tuple[float, ...] | None = None
    gain: float | None = None  # expected of it when it was proposed, see `Proposal`
    known: Known | None = None  # when it was proposed; of the anchor there is nothing to be known
    measured: Mapping[str, Any] = field(default_factory=dict)  # what else was measured
    reason: str | None = None  # of a failure, or why it was stopped

    def candidate(self, objectives: Sequence[Objective]) -> Candidate:
        """What the winner rule reads of a completed trial."""
        by_name = dict(zip((o.name for o in objectives), self.values or (), strict=True))
        error = self.measured.get("rouge_l_error", 0.0)
        return Candidate(
            by_name[LOSS.name], by_name.get(ROUGE_L.name, 0.0), float(error), self.parameters
        )


def sqlite_url(path: Path) -> str:
    """The address of a database file."""
    return sqlalchemy.URL.create("sqlite", database=str(path)).render_as_string()


def open_storage(url: str) -> PatientStorage:
    """An Optuna storage, made where there is none; it has to answer now, and is waited for later.

    Args:
        url: `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/DATABASE`.

    Raises:
        ValueError: not such an address, a damaged database, or one that can't be reached.
    """
    return _open(url, Patience(), is_new=True)


def reopen_storage(url: str, say: Say = _logger.warning) -> PatientStorage:
    """The same in the middle of a run: it was checked before, and is waited for if it is away.

    Args:
        url: as for `open_storage`.
        say: told when waiting begins and when it goes on.

    Raises:
        ValueError: as `open_storage`.
        DatabaseAway: it was away for too long.
    """
    patience = Patience(say)
    return patience(lambda: _open(url, patience, is_new=False))


def _open(url: str, patience: Patience, is_new: bool) -> PatientStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        address = sqlalchemy.make_url(url)
    except sqlalchemy.exc.ArgumentError as error:
        shown = url.rpartition("@")[2]  # what stands before it may be a password
        raise ValueError(f"expected sqlite:///FILE or postgresql://..., got {shown!r}") from error
    shown = address.difference_update_query(_SECRET).render_as_string(hide_password=True)
    kind = address.get_backend_name()
    if kind == "sqlite" and address.database:
        _prepare_file(Path(address.database), is_new)
        engine: dict[str, Any] = {"connect_args": {"timeout": BUSY_SECONDS}}
    elif kind in ("postgresql", "postgres"):
        address = address.set(drivername="postgresql+psycopg", query=_REACHABLE | address.query)
        engine = {"pool_pre_ping": True}
    else:
        raise ValueError(f"expected sqlite:///FILE or postgresql://..., got {shown}")
    # NOTE: Optuna fills templates in addresses, so braces are doubled.
    full = address.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    try:
        return _opened(full, engine, patience, is_new)
    except ImportError as error:
        raise ValueError(f"{shown} needs psycopg: pip install 'milpa[postgres]'") from error
    except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        raise ValueError(f"can't open the study database {shown}: {_cause(error)}") from error


def _opened(url: str, engine: dict[str, Any], patience: Patience, is_new: bool) -> PatientStorage:
    """NOTE: processes that open a new database at once make its tables under one another's feet."""
    if not is_new:
        with suppress(StorageInternalError):  # its tables may not be there yet
            return PatientStorage(url, engine, patience, is_checked=True)
    for _ in range(ATTEMPTS):
        try:
            return PatientStorage(url, engine, patience)
        except sqlalchemy.exc.DatabaseError as error:
            raced = isinstance(error, sqlalchemy.exc.IntegrityError)
            if not raced and "already exists" not in str(error):
                raise
            time.sleep(0.1)
    return PatientStorage(url, engine, patience)


def _prepare_file(path: Path, is_new: bool) -> None:
    """Lets readers of a file read while another process writes; checks it all where it is new."""
    problem, cause, seconds = "ok", None, LOCK_SECONDS if is_new else BUSY_SECONDS
    try:
        with closing(sqlite3.connect(path, timeout=seconds)) as connection:
            if is_new:
                problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            _write_ahead(connection, seconds)
    except sqlite3.DatabaseError as error:
        problem, cause = str(error), error
    if problem != "ok":
        raise ValueError(
            f"can't open the study database {path}: {' '.join(problem.split())}. "
            "If it is damaged, put a copy in its place or start a new run folder"
        ) from cause


def _write_ahead(connection: sqlite3.Connection, seconds: float) -> None:
    """NOTE: of two that switch at once SQLite refuses one without waiting, whatever its timeout."""
    end = time.monotonic() + seconds
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)


def created(storage: RDBStorage, name: str, maximise: Sequence[bool]) -> int:
    """The id of a new study of this name, or of the one that another process was quicker to make.

    Args:
        storage: where.
        name: of the study.
        maximise: for each objective, whether more is better.
    """
    directions = [StudyDirection.MAXIMIZE if up else StudyDirection.MINIMIZE for up in maximise]
    try:
        return storage.create_new_study(directions, name)
    except DuplicatedStudyError:
        return storage.get_study_id_from_name(name)


def scrub(storage: RDBStorage) -> None:
    """Rewrite a SQLite file without what was deleted, which it leaves in free space until then."""
    if storage.engine.dialect.name != "sqlite":
        return
    with storage.engine.connect() as connection:
        alone = connection.execution_options(isolation_level="AUTOCOMMIT")
        alone.exec_driver_sql("VACUUM")
        alone.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def template(
    space: SearchSpace, proposal: Proposal, seed: int, parameters: int, known: Known | None = None
) -> FrozenTrial:
    """A waiting trial to be stored."""
    config, found = proposal.config, _parameters(space, proposal.config)
    # NOTE: to Optuna every attribute is a row of its own, and a query before it.
    asked: dict[str, Any] = {"parameters": parameters, "source": proposal.source, "seed": seed}
    if proposal.gain is not None:
        asked["gain"] = proposal.gain
    if known is not None:
        asked["known"] = [known.asked, list(known.pending)]
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=TrialState.WAITING,
        value=None,
        values=None,
        datetime_start=datetime.now(),
        datetime_complete=None,
        params={name: value for name, (value, _) in found.items()},
        distributions={name: distribution for name, (_, distribution) in found.items()},
        user_attrs={
            "active_layers": ", ".join(map(str, config.layers)) or "none",
            "asked": asked,
        },
        system_attrs={},
        intermediate_values={},
    )


def from_stored(stored: FrozenTrial) -> Trial:
    """A stored trial."""
    attributes = stored.user_attrs
    asked = attributes["asked"]
    known = asked.get("known")
    return Trial(
        id=stored._trial_id,
        number=stored.number,
        config=config_of(stored.params),
        state=STATES.get(stored.state, "pending"),
        source=asked["source"],
        seed=asked["seed"],
        parameters=asked["parameters"],
        values=tuple(stored.values) if stored.state == TrialState.COMPLETE else None,
        gain=asked.get("gain"),
        known=Known(known[0], tuple(known[1])) if known else None,
        measured=attributes.get("measured", {}),
        reason=attributes.get("reason"),
    )


def _parameters(
    space: SearchSpace, config: MemoryConfig
) -> dict[str, tuple[int | float, BaseDistribution]]:
    bits = sum(1 << layer for layer in config.layers)
    found: dict[str, tuple[int | float, BaseDistribution]] = {}
    for first in range(0, space.layer_count, BITS):
        width = min(BITS, space.layer_count - first)
        name = f"layers_{first}" if first else "layers"
        found[name] = ((bits >> first) % (1 << width), IntDistribution(0, (1 << width) - 1))
    if config.layers:
        ranks, rates = space.ranks, space.learning_rates
        found["rank"] = (config.rank, IntDistribution(ranks[0], ranks[-1], log=True))
        rate = FloatDistribution(rates[0], rates[-1], log=True)
        found["learning_rate"] = (config.learning_rate, rate)
    return found


def config_of(parameters: Mapping[str, float]) -> MemoryConfig:
    """The configuration that these parameters are, as Optuna has them or as its tables do."""
    layers: list[int] = []
    for name, value in parameters.items():
        if name.startswith("layers"):
            first = int(name.removeprefix("layers").removeprefix("_") or 0)
            layers += [first + bit for bit in range(BITS) if int(value) >> bit & 1]
    return MemoryConfig(
        tuple(sorted(layers)),
        int(parameters.get("rank", 0)),
        parameters.get("learning_rate", 0.0),
    )


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().splitlines()[0]
