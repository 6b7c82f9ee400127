"""Where many studies stand: how each of their trials ended, read in a few statements.

Whoever goes on with a search of many users needs no more of their studies at first, and must not
open each of them for it.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, String, cast, select

from search import header
from search.patience import PatientStorage
from search.storage import STATES, State
from search.tables import ABOUT, STUDIES, TRIALS, VALUES

STUDIES_READ = 500  # at once: in three statements, and no more of them is held in memory

_STATES = {state.name: told for state, told in STATES.items()}


def study_names(storage: PatientStorage) -> list[str]:
    """The names of all studies, in the order they were made.

    NOTE: Optuna's own list brings with each name all that was noted in its study.
    """
    question = select(STUDIES.c.study_name).order_by(STUDIES.c.study_id)

    def read() -> list[str]:
        with storage.engine.begin() as connection:
            return [str(name) for name in connection.scalars(question)]

    return storage.patience(read)


class Stand(NamedTuple):
    """One trial: its place in its study, how it ended, and with which values."""

    number: int
    state: State
    values: tuple[float, ...] | None


def census(
    storage: PatientStorage, names: Sequence[str], about: Mapping[str, Any]
) -> Iterator[tuple[str, list[Stand]]]:
    """The trials of each of these studies that is there, in the order of asking.

    A study whose maker was killed before it had a header counts as not there.

    Args:
        storage: where the studies are.
        names: of the studies.
        about: what they have to be about, see `header.of`.

    Raises:
        ValueError: a study is about something else, or of another version.
    """
    for start in range(0, len(names), STUDIES_READ):
        some = names[start : start + STUDIES_READ]

        def read(some: Sequence[str] = some) -> list[tuple[str, list[Stand]]]:
            with storage.engine.begin() as connection:
                return _read(connection, some, about)

        yield from storage.patience(read)


def _read(
    connection: Connection, names: Sequence[str], about: Mapping[str, Any]
) -> list[tuple[str, list[Stand]]]:
    joined = STUDIES.join(ABOUT, ABOUT.c.study_id == STUDIES.c.study_id)
    question = select(STUDIES.c.study_id, STUDIES.c.study_name, ABOUT.c.value_json)
    here = STUDIES.c.study_name.in_(names) & (ABOUT.c.key == header.NAME)
    studies: dict[int, str] = {}
    wanted = json.dumps(about)
    rows = question.select_from(joined).where(here).order_by(STUDIES.c.study_id)
    for study, name, stored in connection.execute(rows):
        if stored != wanted:
            header.check(name, json.loads(stored), about)
        studies[study] = name
    found = _trials(connection, list(studies))
    return [(name, found[study]) for study, name in studies.items()]


def _trials(connection: Connection, ids: Sequence[int]) -> Mapping[int, list[Stand]]:
    here = TRIALS.c.study_id.in_(ids)
    values: dict[int, list[float]] = defaultdict(list)
    joined = VALUES.join(TRIALS, VALUES.c.trial_id == TRIALS.c.trial_id)
    question = select(VALUES.c.trial_id, VALUES.c.value).select_from(joined)
    for trial, value in connection.execute(question.where(here).order_by(VALUES.c.objective)):
        values[trial].append(value)
    t, found = TRIALS.c, defaultdict[int, list[Stand]](list)
    ended = select(t.study_id, t.trial_id, t.number, cast(t.state, String)).where(here)
    for study, trial, number, how in connection.execute(ended.order_by(t.number)):
        state = _STATES.get(how, "pending")
        is_whole = state == "completed" and trial in values
        found[study].append(Stand(number, state, tuple(values[trial]) if is_whole else None))
    return found
