"""Checked lines on disk: sorted by user and time, memory-mapped, written in bounded memory.

Sorting is a merge sort on disk: chunks of bounded size are sorted in memory and written, then
merged while the result is written. Both steps are stable, so equal times keep their order. Memory
holds one chunk, then a batch of every chunk, and the index; never the data.

A folder holds `lines-<digest>.arrow` (all lines), `users-<digest>.arrow` (per user: first line,
lines, pairs, profile) and `index.json`, which names the two. Replacing `index.json` is the switch
from old content to new, so a reader finds either, whole; what the index doesn't name is removed.
One writer at a time. The folder and its files are their owner's alone.

The digest is over the content (every line and profile in order), not over Arrow's bytes.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import shutil
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from models import storage
from models.lines import DataError, Line

INDEX = "index.json"
_VERSION = 1
_RUN_LINES, _BATCH_LINES = 50_000, 512
_RUN_SIZE, _BATCH_SIZE = 16_000_000, 1_000_000  # characters
_ORDER = attrgetter("user_id", "time")
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
    """An opened folder: two memory-mapped tables."""

    lines: Any  # pa.Table of Line's fields, sorted by user and time
    users: Any  # pa.Table of _USERS, sorted by user
    digest: str
    counts: Mapping[str, int]
    lines_file: Path

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
            files = [folder / named[name] for name in ("lines", "users")]
            lines, users = (pa.ipc.open_file(pa.memory_map(str(f))).read_all() for f in files)
            if len(lines) != (pc.sum(users["lines"]).as_py() or 0):
                raise ValueError(f"{len(lines)} lines, and other numbers of them in the index")
            return cls(lines, users, named["digest"], named["counts"], files[0])
        except (ValueError, KeyError, TypeError, OSError, pa.ArrowException) as error:
            raise DataError(
                f"{folder}: expected histories as they were written, got damaged ones ({error}); "
                "read the data again"
            ) from error

    def slice(self, start: int, count: int) -> Iterator[Line]:
        """Lines from a place on; only their pages of the file are read."""
        return _lines_of(self.lines.slice(start, count))

    def stream(self) -> Iterator[Line]:
        """All lines in order, read without mapping, so that memory doesn't fill with the file."""
        return _read(self.lines_file)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A private folder beside `folder` for a write into it; leftovers of killed writes go."""
    storage.make_private(folder.parent)
    prefix = f".{folder.name}-"
    for left in folder.parent.glob(f"{prefix}*.writing"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(".writing", prefix, folder.parent) as aside:
        yield Path(aside)


def in_order(lines: Iterable[Line], aside: Path) -> Iterator[Line]:
    """The lines sorted by user, then time, then as they came; any number of them."""
    runs: list[Path] = []
    for chunk in _chunks(lines, _RUN_LINES, _RUN_SIZE):
        chunk.sort(key=_ORDER)
        runs.append(aside / f"run-{len(runs)}.arrow")
        _write(runs[-1], chunk)
    return heapq.merge(*map(_read, runs), key=_ORDER)


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
    index = _Index(profiles)
    _write(aside / "lines", index.noting(lines))
    with pa.OSFile(str(aside / "users"), "wb") as sink, pa.ipc.new_file(sink, _USERS) as writer:
        writer.write_table(index.table(), max_chunksize=_RUN_LINES)
    digest = index.digest()
    storage.make_private(folder)
    folder.chmod(0o700)
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
    """What is noted of every line while all are written."""

    def __init__(self, profiles: Mapping[str, str]) -> None:
        self._profiles = profiles
        self._hash = hashlib.sha256()
        self._user_ids: list[str] = []
        self._starts, self._pairs = array("q"), array("q")
        self._count = 0

    def noting(self, lines: Iterable[Line]) -> Iterator[Line]:
        """The same lines."""
        for line in lines:
            if not self._user_ids or self._user_ids[-1] != line.user_id:
                self._user_ids.append(line.user_id)
                self._starts.append(self._count)
                self._pairs.append(0)
            self._count += 1
            self._pairs[-1] += line.query is not None
            self._hash.update(json.dumps(line).encode() + b"\n")
            yield line

    def table(self) -> Any:
        """One row a user."""
        ends = [*self._starts[1:], self._count]
        lengths = [end - start for start, end in zip(self._starts, ends, strict=False)]
        profiles = [self._profiles.get(user_id) for user_id in self._user_ids]
        columns = [self._user_ids, self._starts, lengths, self._pairs, profiles]
        arrays = [
            pa.array(column, field.type) for column, field in zip(columns, _USERS, strict=True)
        ]
        return pa.table(arrays, schema=_USERS)

    def digest(self) -> str:
        """SHA-256 over all lines and the profiles of their users."""
        whole = self._hash.copy()
        for user_id in self._user_ids:
            if user_id in self._profiles:
                whole.update(json.dumps([user_id, self._profiles[user_id]]).encode() + b"\n")
        return whole.hexdigest()


def _schema(line: Line) -> Any:
    time = pa.string() if isinstance(line.time, str) else pa.float64()
    types = {"time": time, "fact_choices": pa.int64()}
    return pa.schema([(name, types.get(name, pa.string())) for name in Line._fields])


def _write(file: Path, lines: Iterable[Line]) -> None:
    """An Arrow file of lines in batches; of no lines, one with text as time."""
    batches = _chunks(lines, _BATCH_LINES, _BATCH_SIZE)
    batch = next(batches, [])
    schema = _schema(batch[0] if batch else Line("", "", None, ""))
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        while batch:
            columns = zip(zip(*batch, strict=True), schema, strict=True)
            arrays = [pa.array(values, field.type) for values, field in columns]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            batch = next(batches, [])


def _read(file: Path) -> Iterator[Line]:
    with pa.OSFile(str(file)) as source:
        reader = pa.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            yield from _lines_of(reader.get_batch(number))


def _lines_of(rows: Any) -> Iterator[Line]:
    return map(Line._make, zip(*(column.to_pylist() for column in rows.columns), strict=True))


def _chunks(lines: Iterable[Line], most: int, size: int) -> Iterator[list[Line]]:
    """Lists of so many lines at most, that end where their text exceeds a size in characters."""
    chunk: list[Line] = []
    length = 0
    for line in lines:
        chunk.append(line)
        length += len(line.user_id) + len(line.query or "") + len(line.response)
        if len(chunk) == most or length > size:
            yield chunk
            chunk, length = [], 0
    if chunk:
        yield chunk


def _move(file: Path, place: Path) -> None:
    """Rename a file whose content is on the disk, for its owner alone."""
    file.chmod(0o600)
    with file.open("rb") as written:
        os.fsync(written.fileno())
    os.replace(file, place)
