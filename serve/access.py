"""Who may speak as whom: one file of keys, each with the users it opens.

    {"a long random key": ["alice", "bob"], "sha256:<64 hex digits>": "*"}

A key may stand there itself or as its SHA-256; `"*"` opens every user, an empty list only the base.
In memory there are digests alone, and a key's is looked up among them: what that takes does not
grow with their number, and how long it took could tell of digests only, from which no key follows.
The file must be private to its owner. A changed file is read again at the next request; while it is
unreadable nobody gets in, so that a key taken back stays out.

This file knows no registry: a user that a key does not open and a user that does not exist must
look alike, so it is asked before anything is looked up.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_KEY = re.compile(r"[\x21-\x7e]+")  # what an HTTP header can carry


@dataclass(frozen=True)
class Grant:
    """The users that a key opens; None opens them all. The base is open to every key.

    `asker` tells keys apart, among whom rows are shared out; it is a key's digest, for no log.
    """

    users: frozenset[str] | None
    asker: str = field(default="", repr=False)

    def opens(self, user_id: str | None) -> bool:
        """Whether the key may speak as a user (None: as the base)."""
        return self.users is None or user_id is None or user_id in self.users


EVERYONE = Grant(None)


class Keys:
    """The keys of a file, read again when the file changes; several threads may ask at once.

    A file of a hundred thousand keys takes a good part of a second to read: ask where that holds
    up nobody else.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stamp: tuple[int, int, int] | None = None
        self._grants: dict[str, Grant] = {}
        self._reading = threading.Lock()
        self.refresh()

    def refresh(self) -> None:
        """Read the file if it changed.

        Raises:
            OSError: there is no such file, or it can't be read.
            ValueError: others may read it, or it holds no valid keys.
        """
        with self._reading:
            self._refresh()

    def _refresh(self) -> None:
        status = self._file.stat()
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp == self._stamp:
            return
        self._stamp = None
        _refuse_unless_private(self._file, status)
        self._grants = _grants(self._file, self._file.read_bytes())
        self._stamp = stamp

    def grant(self, key: str) -> Grant | None:
        """What a key opens, None for an unknown key."""
        self.refresh()
        return self._grants.get(_sha256(key))


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _refuse_unless_private(file: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"expected a file of keys, got {str(file)!r}, which is none")
    if not is_private(status.st_mode, status.st_uid, os.geteuid()):
        raise ValueError(
            f"expected the key file {str(file)!r} to be readable by its owner alone, got mode "
            f"{stat.S_IMODE(status.st_mode):04o} and owner {status.st_uid}; run: chmod 600 FILE"
        )


def is_private(mode: int, owner: int, reader: int) -> bool:
    """Whether only the reader or root can see and change a file.

    NOTE: A Kubernetes secret is mounted as root's and shown to a pod through its group; that is
    as private as it gets there, so group reading passes on a file of root's read by another user.
    """
    if owner not in (reader, 0):
        return False
    shared = owner == 0 and reader != 0
    return not mode & (0o037 if shared else 0o077)


def _grants(file: Path, content: bytes) -> dict[str, Grant]:
    def refuse(expected: str) -> ValueError:
        return ValueError(f"{str(file)!r}: expected {expected}")

    def distinct(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
        if len({name for name, _ in pairs}) < len(pairs):
            raise refuse("each key once, got one twice")
        return dict(pairs)

    try:
        entries = json.loads(content, object_pairs_hook=distinct)
    except (json.JSONDecodeError, UnicodeDecodeError):
        # The parser's message and the content may hold a key.
        raise refuse("a JSON object of keys and their users, got something else") from None
    if not isinstance(entries, dict) or not entries:
        raise refuse('an object with at least one key, such as {"KEY": ["user"]}')
    for number, (key, users) in enumerate(entries.items(), 1):
        if key.lower().startswith("sha256:") and not _DIGEST.fullmatch(key):
            # Taken for a key itself, it would let in whoever reads the file.
            raise refuse(f"key {number} to be sha256:<64 hex digits>, in lower case")
        if not _KEY.fullmatch(key):
            raise refuse(f"key {number} to be printable ASCII without spaces")
        if users != "*" and not _is_texts(users):
            raise refuse(f'a list of user ids or "*" as the users of key {number}')
    digests = ((_digest(key), users) for key, users in entries.items())
    grants = {digest: _opened(users, digest) for digest, users in digests}
    if len(grants) < len(entries):
        raise refuse("each key once, got one itself and as its digest")
    return grants


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _digest(key: str) -> str:
    return key.removeprefix("sha256:") if _DIGEST.fullmatch(key) else _sha256(key)


def _opened(users: str | list[str], digest: str) -> Grant:
    return Grant(None if users == "*" else frozenset(users), digest)
