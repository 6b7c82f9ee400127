"""Some users' part in what a comparison of methods keeps: states, outcomes, answers, judgements.

`forget.py` asks it, and holds the folder meanwhile. Numbers of all users together, times and what
methods share, stay as they are: nobody is in them alone. What answers are read against is taken
anew over those who are left.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cluster.folder import RunFolder
from cluster.judgements import FOLDER
from cluster.measuring import Subject, anchors_of
from cluster.private import write_private
from cluster.traces import Users
from cluster.unit import BY_USER, Unit, Units
from cluster.users import Choice
from models.history import Histories
from models.registry import Registry


def states(folder: RunFolder, users: Users) -> str:
    """Removes the users' states of every entrant; says how many there were."""
    registries = [Registry(place) for place in sorted((folder.path / "registries").glob("*/"))]
    count = sum(one.forget(user_id) for one in registries for user_id in users.values())
    return f"removed from the entrants' registries: {count} states" if count else ""


def outcomes(folder: RunFolder, users: Users) -> str:
    """Removes the users from the outcomes of all units; says in how many they were."""
    units, count = Units(folder.path), 0
    for content in units.every():
        kept = {**content, **{name: _without(content[name], users) for name in _of(content)}}
        if kept != content:
            units.write(Unit(**content["unit"]), _rest(kept))
            count += 1
    return f"removed from the outcomes of {count} units" if count else ""


def answers(folder: RunFolder, users: Users) -> str:
    """Removes the users' answers; says of how many units they were."""
    count = 0
    for file in sorted((folder.path / "answers").glob("*.json")):
        said = json.loads(file.read_text(encoding="utf-8"))
        if not users.keys().isdisjoint(said):
            write_private(file, json.dumps(_without(said, users)))
            count += 1
    return f"removed from the answers of {count} units" if count else ""


def judgements(folder: RunFolder, users: Users) -> str:
    """Removes what judges said of the users' answers."""
    files = [folder.path / FOLDER / digest for digest in users]
    found = [file for file in files if file.is_file()]
    for file in found:
        file.unlink()
    return "removed from what a judge said" if found else ""


def anchors(folder: RunFolder) -> None:
    """Takes anew what answers are read against, once the users are gone from lists and data."""
    units = Units(folder.path)
    read = [content for content in units.every() if "anchors" in content]
    if not read:
        return
    terms, histories = folder.stored(), Histories.open(folder.data)
    subjects = [
        Subject.of(histories.load(user.user_id), terms["user_said"], terms["items"])
        for user in Choice.load(folder.path).searched
    ]
    found = anchors_of(subjects, terms["seed"]) if subjects else {}
    for content in read:
        units.write(Unit(**content["unit"]), _rest({**content, "anchors": found}))


def _of(content: Mapping[str, Any]) -> list[str]:
    return [name for name in BY_USER if isinstance(content.get(name), dict)]


def _rest(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != "unit"}


def _without(by_user: Mapping[str, Any], gone: Users) -> dict[str, Any]:
    return {user: own for user, own in by_user.items() if user not in gone}
