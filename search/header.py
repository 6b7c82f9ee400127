"""What a study was made with: stored with it, and compared when it is opened.

It knows no trials. A header holds the space, the objectives and a version: a study is gone on with
under the same ones only. The base is told beside it, where it is known: studies of one header and
one base are about the same question, asked of different users.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.exceptions import DuplicatedStudyError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection

from search.pareto import Objective
from search.space import SearchSpace

VERSION = 1
HEADER = "milpa"  # the study attribute that holds the header
BASE = "base"  # and the one that names the base


def header(space: SearchSpace, objectives: Sequence[Objective]) -> dict[str, Any]:
    """What is stored."""
    named = [{"name": o.name, "maximise": o.maximise, "unit": o.unit} for o in objectives]
    return {"version": VERSION, "space": space.to_json(), "objectives": named}


def difference(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The fields that differ, with the stored and the wanted value."""
    before, now = ({**header, **header.get("space", {})} for header in (stored, wanted))
    return "; ".join(
        f"{key} was {json.dumps(before.get(key))}, now {json.dumps(now.get(key))}"
        for key in sorted({*before, *now} - {"space"})
        if before.get(key) != now.get(key)
    )


def created(storage: RDBStorage, name: str, objectives: Sequence[Objective]) -> int:
    """The id of a new study, or of the one that another process made meanwhile."""
    directions = [
        StudyDirection.MAXIMIZE if objective.maximise else StudyDirection.MINIMIZE
        for objective in objectives
    ]
    try:
        return storage.create_new_study(directions, name)
    except DuplicatedStudyError:  # another process was quicker
        return storage.get_study_id_from_name(name)
