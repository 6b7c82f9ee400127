"""What a study was made with, as it lies in the storage: a search goes on with nothing else.

It knows no trials and no database. A header holds the space, the objectives and a version. The base
is told beside it, where it is known: studies of one header and one base are about the same
question, asked of different users.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from search.pareto import Objective
from search.space import SearchSpace

VERSION = 2
NAME = "milpa"  # of the study attribute
BASE = "base"  # of the one that names the base


def of(space: SearchSpace, objectives: Sequence[Objective]) -> dict[str, Any]:
    """A space, objectives and this version, as JSON."""
    named = [{"name": o.name, "maximise": o.maximise, "unit": o.unit} for o in objectives]
    return {"version": VERSION, "space": space.to_json(), "objectives": named}


def read(stored: Mapping[str, Any]) -> tuple[SearchSpace, tuple[Objective, ...]]:
    """The inverse of `of`.

    Raises:
        KeyError, TypeError, ValueError: it is none, or another version's.
    """
    if stored["version"] != VERSION:
        raise ValueError(f"expected version {VERSION}, got {stored['version']}")
    space = SearchSpace.from_json(stored["space"])
    return space, tuple(Objective(**values) for values in stored["objectives"])


def check(name: str, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuses the study of this name where it was made with something else.

    Raises:
        ValueError: it was; says with what.
    """
    if stored != wanted:
        raise ValueError(
            f"the study {name} was made otherwise: {difference(stored, wanted)}; search as it was "
            "made, or begin another run"
        )


def difference(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The fields that differ, with the stored and the wanted value."""
    before, now = ({**header, **header.get("space", {})} for header in (stored, wanted))
    return "; ".join(
        f"{key} was {json.dumps(before.get(key))}, now {json.dumps(now.get(key))}"
        for key in sorted({*before, *now} - {"space"})
        if before.get(key) != now.get(key)
    )
