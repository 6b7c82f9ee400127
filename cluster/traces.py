"""Whom a run's or a comparison's folder holds: asked before anybody is removed from it.

It changes nothing. What is read first is what names everybody; the rest is read for those alone who
are not found yet, since a removal that was killed may have left the last of a user anywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from cluster import results
from cluster.folder import RunFolder
from cluster.judgements import FOLDER
from cluster.unit import BY_USER, Units
from cluster.users import FILE_NAME, Choice
from models.history import Histories
from models.registry import Registry
from search.census import study_names
from search.storage import open_storage

Users = Mapping[str, str]
"""Some users' ids by their digests."""

_DIGESTS = re.compile(r"(?=([0-9a-f]{16}))")  # wherever in a line one could begin


def held(folder: RunFolder, users: Users) -> set[str]:
    """The digests of those of these users of whom there is anything in the folder."""
    found: set[str] = set()
    for look in (_named, _published, _stored, _measured, _logged):
        left = {digest: user for digest, user in users.items() if digest not in found}
        if left:
            found |= look(folder, left)
    return found


def data_of(folder: RunFolder) -> Iterator[Histories]:
    """The histories in a folder: its users', and those that a population was learned from."""
    for place in (folder.data, folder.population / "data"):
        if place.is_dir():
            yield Histories.open(place)


def registries_of(folder: RunFolder) -> list[Registry]:
    """The registry of a run and those of a comparison's entrants."""
    entrants = sorted((folder.path / "registries").glob("*/"))
    return [Registry(place) for place in (folder.registry, *entrants) if place.is_dir()]


def logs_of(folder: RunFolder) -> list[Path]:
    """The logs of packers and stations."""
    return [*folder.path.glob("packer-*.log"), *folder.path.glob("station-*.log")]


def names_one_of(line: str, users: Users) -> bool:
    """Whether a line of a log holds the digest of one of these users."""
    return not users.keys().isdisjoint(_DIGESTS.findall(line))


def _named(folder: RunFolder, users: Users) -> set[str]:
    ids: set[str] = set()
    for histories in data_of(folder):
        ids |= histories.pair_counts.keys()
    if (folder.path / FILE_NAME).is_file():
        choice = Choice.load(folder.path)
        ids |= {one.user_id for one in choice.searched} | {one.user_id for one in choice.left_out}
    return {digest for digest, user_id in users.items() if user_id in ids}


def _published(folder: RunFolder, users: Users) -> set[str]:
    registries = registries_of(folder)
    return {d for d, user_id in users.items() if any(one.holds(user_id) for one in registries)}


def _stored(folder: RunFolder, users: Users) -> set[str]:
    found = {file.stem for file in folder.winners.glob("*.json")}
    found |= {file.name for file in (folder.path / FOLDER).glob("*")}
    if folder.has_studies:
        found |= set(study_names(open_storage(folder.storage())))
    return found & users.keys()


def _measured(folder: RunFolder, users: Users) -> set[str]:
    found: set[str] = set()
    for content in Units(folder.path).every():
        parts = (content.get(name) for name in BY_USER)
        found.update(*(part for part in parts if isinstance(part, dict)))
    for file in (folder.path / "answers").glob("*.json"):
        found |= set(json.loads(file.read_text(encoding="utf-8")))
    if (folder.path / results.FILE_NAME).is_file():
        run = results.load(folder.path)
        ids = {one.user_id for one in run.users} | {one.user_id for one in run.left_out}
        found |= {digest for digest, user_id in users.items() if user_id in ids}
    return found & users.keys()


def _logged(folder: RunFolder, users: Users) -> set[str]:
    found: set[str] = set()
    for file in logs_of(folder):
        with file.open(encoding="utf-8") as lines:
            found.update(*map(_DIGESTS.findall, lines))
    return found & users.keys()
