"""A user's part in what a comparison of methods keeps: states, outcomes, answers, judgements.

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
from cluster.unit import Unit, Units
from cluster.users import Choice
from models.history import Histories
from models.registry import Registry

_BY_USER = ("users", "stored_bytes", "attention")


def states(folder: RunFolder, user_id: str) -> str:
    """Removes the user's states of every entrant; says how many there were."""
    registries = (folder.path / "registries").glob("*/")
    count = sum(Registry(place).forget(user_id) for place in sorted(registries))
    return f"removed from the entrants' registries: {count} states" if count else ""


def outcomes(folder: RunFolder, digest: str) -> str:
    """Removes the user from the outcomes of all units; says in how many the user was."""
    units, count = Units(folder.path), 0
    for content in units.every():
        kept = {**content, **{name: _without(content[name], digest) for name in _of(content)}}
        if kept != content:
            units.write(Unit(**content["unit"]), _rest(kept))
            count += 1
    return f"removed from the outcomes of {count} units" if count else ""


def answers(folder: RunFolder, digest: str) -> str:
    """Removes the user's answers; says of how many units they were."""
    count = 0
    for file in sorted((folder.path / "answers").glob("*.json")):
        said = json.loads(file.read_text(encoding="utf-8"))
        if digest in said:
            write_private(file, json.dumps(_without(said, digest)))
            count += 1
    return f"removed from the answers of {count} units" if count else ""


def judgements(folder: RunFolder, digest: str) -> str:
    """Removes what judges said of the user's answers."""
    file = folder.path / FOLDER / digest
    if not file.is_file():
        return ""
    file.unlink()
    return "removed from what a judge said"


def anchors(folder: RunFolder) -> None:
    """Takes anew what answers are read against, once the user is gone from lists and data."""
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
    return [name for name in _BY_USER if isinstance(content.get(name), dict)]


def _rest(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != "unit"}


def _without(by_user: Mapping[str, Any], digest: str) -> dict[str, Any]:
    return {user: own for user, own in by_user.items() if user != digest}
