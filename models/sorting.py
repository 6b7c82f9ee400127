"""Any number of lines in Arrow files, sorted by user and time in bounded memory.

A merge sort on disk: chunks of bounded size are sorted in memory and written, then merged while the
result is read. Both steps are stable, so equal times keep their order. Memory holds one chunk, then
one batch of each of at most `_MERGED` files; never the data.

Every batch of a file but the last holds `BATCH_LINES` lines, so that a line is found by arithmetic.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import starmap
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa

from models.lines import Line

BATCH_LINES = 256
_RUN_LINES = 25_000
_RUN_SIZE = 16_000_000  # characters
_MERGED = 200  # files open at once
_ORDER = attrgetter("user_id", "time")


def in_order(lines: Iterable[Line], aside: Path) -> Iterator[Line]:
    """The lines sorted by user, then time, then as they came; files of its own lie in `aside`."""
    runs: list[Path] = []
    for chunk in _chunks(lines):
        chunk.sort(key=_ORDER)
        runs.append(aside / f"run-{len(runs)}.arrow")
        write(runs[-1], chunk)
    level = 0
    while len(runs) > _MERGED:
        level += 1
        groups = [runs[i : i + _MERGED] for i in range(0, len(runs), _MERGED)]
        runs = [aside / f"merged-{level}-{i}.arrow" for i in range(len(groups))]
        for merged, group in zip(runs, groups, strict=True):
            write(merged, _merge(group))
            for run in group:
                run.unlink()
    return _merge(runs)


def write(file: Path, lines: Iterable[Line]) -> None:
    """An Arrow file of lines; of no lines, one with text as time."""
    batches = _batches(lines)
    rows = next(batches, [])
    schema = _schema(rows[0] if rows else Line("", "", None, ""))
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        while rows:
            writer.write_batch(batch(rows, schema))
            rows = next(batches, [])


def read(file: Path) -> Iterator[Line]:
    """All lines of a file, read without mapping it, so that no page of it stays in memory."""
    with pa.OSFile(str(file)) as source:
        reader = pa.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            yield from lines_of(reader.get_batch(number))


def batch(rows: Sequence[tuple[object, ...]], schema: Any) -> Any:
    """Rows as a batch of Arrow columns."""
    columns = zip(zip(*rows, strict=True), schema, strict=True)
    arrays = [pa.array(values, field.type) for values, field in columns]
    return pa.record_batch(arrays, schema=schema)


def lines_of(rows: Any) -> Iterator[Line]:
    """A batch's lines."""
    return starmap(Line, zip(*(column.to_pylist() for column in rows.columns), strict=True))


def _schema(line: Line) -> Any:
    time = pa.string() if isinstance(line.time, str) else pa.float64()
    types = {
        "time": time,
        "fact_choices": pa.int64(),
        "choices": pa.list_(pa.string()),
        "held_out": pa.bool_(),
    }
    return pa.schema([(name, types.get(name, pa.string())) for name in Line._fields])


def _merge(runs: Sequence[Path]) -> Iterator[Line]:
    return heapq.merge(*map(read, runs), key=_ORDER)


def _batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    rows: list[Line] = []
    for line in lines:
        rows.append(line)
        if len(rows) == BATCH_LINES:
            yield rows
            rows = []
    if rows:
        yield rows


def _chunks(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """As many lines as are sorted in memory at once, by their number and by their text."""
    chunk: list[Line] = []
    size = 0
    for line in lines:
        chunk.append(line)
        size += len(line.user_id) + len(line.query or "") + len(line.response)
        if len(chunk) >= _RUN_LINES or size >= _RUN_SIZE:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
