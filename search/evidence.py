"""Studies in a storage that a new user may learn from.

It chooses and reads; what follows from them is `transfer`'s business. Only studies of the same
space, objectives and base are about the same question.

However many studies there are, at most `DRAWN` are read, in four statements. Which ones, a seed
decides: by the order of (a id + b) mod p over the ids of studies, with a and b drawn by the seed,
the first ones. The database works that out, so what comes back does not grow with what is there;
and studies that are added later move no others, they only come in between.

NOTE: Optuna's own interface has no question for some of this. So its tables are read here, as it
wrote them (`tables`).
"""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    String,
    cast,
    exists,
    select,
)

from search import header
from search.pareto import Objective
from search.patience import PatientStorage
from search.samplers import Evidence, Observation
from search.space import SearchSpace
from search.storage import STATES, config_of
from search.study import REFERENCE
from search.tables import ABOUT, PARAMETERS, STUDIES, TRIALS, VALUES

DRAWN = 64  # studies that are read
MOST = 16  # of them that are used: each costs a fit, and the more there are, the less one adds
_PRIME = 2**31 - 1

_TOLD = {state.name for state in STATES}


def earlier(
    storage: PatientStorage,
    space: SearchSpace,
    objectives: Sequence[Objective],
    base: str,
    besides: Collection[str] = (),
    seed: int = 0,
) -> dict[int, Evidence]:
    """What users searched before show, by the study's id; at most `MOST` of `DRAWN` studies.

    The same for the same storage and seed. A study counts once enough of its trials are told. A few
    may still be pending: where many users are searched, the next ones start while the last drain.

    Args:
        storage: where the studies are.
        space: of the new user.
        objectives: of the new user.
        base: as it was told to `Study.open`.
        besides: names of studies that are not to be used.
        seed: of the draw.
    """
    question = _drawn(header.of(space, objectives), base, seed)

    def read() -> dict[int, Evidence]:
        with storage.engine.begin() as connection:
            drawn = connection.execute(question).all()
            return _shown(connection, [study for study, name in drawn if name not in besides])

    found = storage.patience(read)
    return dict([(study, one) for study, one in found.items() if one.is_telling][:MOST])


def _drawn(about: Mapping[str, Any], base: str, seed: int) -> Select[Any]:
    """Ids and names of studies about this question, in the order that the seed decides."""
    a, b = map(int, np.random.default_rng(seed).integers(1, _PRIME, 2))
    rank = (cast(STUDIES.c.study_id, BigInteger) * a + b) % _PRIME
    of_base = _says(header.BASE, base) if base else ~_says(header.BASE)
    question = select(STUDIES.c.study_id, STUDIES.c.study_name)
    return question.where(_says(header.NAME, about), of_base).order_by(rank).limit(DRAWN)


def _says(key: str, value: object = None) -> ColumnElement[bool]:
    """Whether a study has an attribute, of this value where one is given."""
    said = exists().where(ABOUT.c.study_id == STUDIES.c.study_id, ABOUT.c.key == key)
    return said if value is None else said.where(ABOUT.c.value_json == json.dumps(value))


def _shown(connection: Connection, ids: Sequence[int]) -> dict[int, Evidence]:
    """What these studies show, in the order of their ids as they are given."""
    here = TRIALS.c.study_id.in_(ids)
    values: dict[int, dict[int, float]] = defaultdict(dict)
    joined = VALUES.join(TRIALS, VALUES.c.trial_id == TRIALS.c.trial_id)
    question = select(*VALUES.c).select_from(joined).where(here)
    for trial, objective, value in connection.execute(question):
        values[trial][objective] = value
    known = ABOUT.c.study_id.in_(ids) & (ABOUT.c.key == REFERENCE)
    pairs = connection.execute(select(ABOUT.c.study_id, ABOUT.c.value_json).where(known))
    references = {study: tuple(json.loads(text)) for study, text in pairs}
    told: dict[int, list[Observation]] = {study: [] for study in ids}
    for study, trial, parameters in _told(connection, here):
        found = values.get(trial)
        row = tuple(found[place] for place in sorted(found)) if found else None
        told[study].append(Observation(config_of(parameters), row))
    return {study: Evidence(tuple(some), references.get(study)) for study, some in told.items()}


def _told(
    connection: Connection, here: ColumnElement[bool]
) -> list[tuple[int, int, dict[str, float]]]:
    """The study, the id and the parameters of each trial that was told, in the order of asking."""
    t, p = TRIALS.c, PARAMETERS.c
    joined = TRIALS.join(PARAMETERS, p.trial_id == t.trial_id)
    state = cast(t.state, String)
    question = select(t.study_id, t.trial_id, state, p.param_name, p.param_value)
    rows = connection.execute(question.select_from(joined).where(here).order_by(t.number))
    found: dict[int, tuple[int, int, dict[str, float]]] = {}
    for study, trial, how, name, value in rows:
        if how in _TOLD:
            found.setdefault(trial, (study, trial, {}))[2][name] = value
    return list(found.values())
