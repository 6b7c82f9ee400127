"""Checked lines on disk: sorted by user and time, memory-mapped, replaced at once.

A folder holds `lines-<digest>.arrow` (all lines), `users-<digest>.arrow` (per user: first line,
lines, pairs, profile) and `index.json`, which names the two. Replacing `index.json` is the switch
from old content to new, so a reader finds either, whole; what the index doesn't name is removed.
One writer at a time. The folder and its files are their owner's alone.

Opening reads the users' ids and numbers, no text; a user's lines are found by arithmetic.

The digest is over the content (every line and profile in order), not over Arrow's bytes.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from models import sorting, storage
from models.lines import DataError, Line

INDEX = "index.json"
_VERSION = 1
_USER_ROWS = 10_000  # in a batch
_USERS = pa.schema(
    [
        ("user_id", pa.string()),
        ("start", pa.int64()),
        ("lines", pa.int64()),
        ("pairs", pa.int64()),
        ("profile", pa.string()),
    ]
)


@dataclass(frozen=True)
class Archive:
    """An opened folder."""

    users: Any  # memory-mapped pa.Table of _USERS, sorted by user
    digest: str
    counts: Mapping[str, int]
    _lines: Any  # memory-mapped reader of Line's fields, sorted by user and time
    _lines_file: Path

    @classmethod
    def open(cls, folder: Path) -> Archive:
        """The content that the index names.

        Raises:
            FileNotFoundError: nothing was written there.
            DataError: damaged.
        """
        index = folder / INDEX
        if not index.is_file():
            raise FileNotFoundError(f"{folder}: expected histories, found no {INDEX} there")
        try:
            named = json.loads(index.read_bytes())
            if named["version"] != _VERSION:
                raise ValueError(f"version {named['version']} instead of {_VERSION}")
            files = [folder / named[name] for name in ("users", "lines")]
            users, lines = (pa.ipc.open_file(pa.memory_map(str(file))) for file in files)
            opened = cls(users.read_all(), named["digest"], named["counts"], lines, files[1])
            if -(-len(opened) // sorting.BATCH_LINES) != lines.num_record_batches:
                raise ValueError("the index counts other numbers of lines")
            return opened
        except (ValueError, KeyError, TypeError, OSError, pa.ArrowException) as error:
            raise DataError(
                f"{folder}: expected histories as they were written, got damaged ones ({error}); "
                "read the data again"
            ) from error

    def __len__(self) -> int:
        """Number of lines."""
        return int(pc.sum(self.users["lines"]).as_py() or 0)

    def slice(self, start: int, count: int) -> Iterator[Line]:
        """Lines from a place on; only their part of the file is read."""
        end = start + count
        while start < end:
            number, skip = divmod(start, sorting.BATCH_LINES)
            length = min(end - start, sorting.BATCH_LINES - skip)
            yield from sorting.lines_of(self._lines.get_batch(number).slice(skip, length))
            start += length

    def stream(self) -> Iterator[Line]:
        """All lines in order."""
        return sorting.read(self._lines_file)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A private folder beside `folder` for a write into it; leftovers of killed writes go."""
    storage.make_private(folder.parent)
    prefix = f".{folder.name}-"
    for left in folder.parent.glob(f"{glob.escape(prefix)}*.writing"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(".writing", prefix, folder.parent) as aside:
        yield Path(aside)


def write(
    lines: Iterable[Line],
    profiles: Mapping[str, str],
    counts: Mapping[str, int],
    folder: Path,
    aside: Path,
) -> None:
    """Replace a folder's content at once by sorted lines; killed before the end, it keeps the old.

    Args:
        lines: sorted by user, then time.
        profiles: of users; those without lines are left out.
        counts: what the data lost on its way; kept with it.
        folder: made if missing.
        aside: as `scratch` gives it.
    """
    with pa.OSFile(str(aside / "users"), "wb") as sink, pa.ipc.new_file(sink, _USERS) as writer:
        index = _Index(writer, profiles)
        sorting.write(aside / "lines", index.noting(lines))
    storage.make_private(folder)
    folder.chmod(0o700)
    digest = index.digest()
    named = {name: f"{name}-{digest[:16]}.arrow" for name in ("lines", "users")}
    for name, file in named.items():
        _move(aside / name, folder / file)
    content = {"version": _VERSION, **named, "digest": digest, "counts": dict(counts)}
    storage.write_file(folder / INDEX, storage.to_json(content))
    clean(folder)


def clean(folder: Path) -> None:
    """Remove content that the index doesn't name: what a killed writer left."""
    named = json.loads((folder / INDEX).read_bytes())
    for file in folder.glob("*-*.arrow"):
        if file.name not in (named["lines"], named["users"]):
            file.unlink()


class _Index:
    """Writes a row for every user, and takes the digest of all, while the lines pass by."""

    def __init__(self, writer: Any, profiles: Mapping[str, str]) -> None:
        self._writer = writer
        self._profiles = profiles
        self._hash = hashlib.sha256()
        self._rows: list[tuple[str, int, int, int, str | None]] = []

    def noting(self, lines: Iterable[Line]) -> Iterator[Line]:
        """The same lines."""
        start = 0
        for user_id, own in groupby(lines, attrgetter("user_id")):
            count = pairs = 0
            for line in own:
                count += 1
                pairs += line.query is not None
                self._note(_noted(line))
                yield line
            profile = self._profiles.get(user_id)
            self._note(("profile", profile))
            self._rows.append((user_id, start, count, pairs, profile))
            start += count
            if len(self._rows) == _USER_ROWS:
                self._flush()
        self._flush()

    def digest(self) -> str:
        """SHA-256 over all lines and the profiles of their users."""
        return self._hash.hexdigest()

    def _note(self, value: tuple[object, ...]) -> None:
        self._hash.update(json.dumps(value).encode() + b"\n")

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_batch(sorting.batch(self._rows, _USERS))
            self._rows.clear()


def _noted(line: Line) -> tuple[object, ...]:
    """A line for the digest: without its last fields, where it is as it was before these were."""
    if line.held_out is not None:
        return line
    return line[:-2] if line.choices is None else line[:-1]


def _move(file: Path, place: Path) -> None:
    """Rename a file whose content is on the disk, for its owner alone."""
    file.chmod(0o600)
    with file.open("rb") as written:
        os.fsync(written.fileno())
    os.replace(file, place)
