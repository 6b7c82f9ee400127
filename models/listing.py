"""Who has a published state, read again only where something was published, replaced or removed.

A server is asked for the list at every turn, and a registry may hold a hundred thousand users, each
with a file. Every change there adds a file to a folder or takes one away, so a folder that has not
changed since it was read holds the same users.

NOTE: file systems tell times in steps. A folder that changed a moment ago may change again within
the same step, so what was read of it is not kept until it has settled.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from models.pointer import Pointer
from models.storage import DamagedState

SETTLED_SECONDS = 3.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Read:
    """The users of one folder, and when it had last changed (nanoseconds)."""

    changed: int
    users: tuple[str, ...]


class Listing:
    """The users of a registry's pointers, which lie in folders by the first digits of their names.

    Several threads may ask at once; one of them reads what changed, and the others wait for it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, _Read] = {}
        self._reading = threading.Lock()

    def users(self) -> list[str]:
        """All users with a current state, in order of their ids.

        A damaged pointer is logged and left out: one user's file must not hide the others.
        """
        with self._reading:
            found = {place.name: self._of(place) for place in self._places()}
            self._read = {name: read for name, read in found.items() if _is_settled(read)}
        return sorted(user for read in found.values() for user in read.users)

    def some(self, count: int) -> list[str]:
        """So many users with a current state, or all where these are fewer; no other file is read.

        Which ones does not depend on their ids, nor on when they were published.
        """
        return list(islice(chain.from_iterable(map(_users_in, self._places())), count))

    def _places(self) -> list[Path]:
        return sorted(self._folder.glob("[0-9a-f]*")) if self._folder.is_dir() else []

    def _of(self, place: Path) -> _Read:
        changed = place.stat().st_mtime_ns  # before it is read: what comes later shows next time
        known = self._read.get(place.name)
        return (
            known if known and known.changed == changed else _Read(changed, tuple(_users_in(place)))
        )


def _is_settled(read: _Read) -> bool:
    return time.time_ns() - read.changed > SETTLED_SECONDS * 1e9


def _users_in(place: Path) -> Iterator[str]:
    for name in os.listdir(place):
        if name.startswith(".") or not name.endswith(".json"):
            continue
        file = place / name
        try:
            pointer = Pointer.read(file)
        except DamagedState:
            if file.exists():  # otherwise forgotten just now
                _log.warning("left out a damaged pointer: %s", file)
            continue
        if pointer.current:
            yield pointer.user_id
