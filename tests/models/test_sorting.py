"""Sorting on disk: equal to sorting in memory, whatever the sizes of chunks and batches."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest

from models import sorting
from models.lines import Line


def some_lines(count: int, as_text: bool) -> list[Line]:
    """Lines in random order; many have equal users and times, all differ in response."""
    rng = random.Random(0)
    lines = []
    for n in range(count):
        time = rng.randrange(20)
        fact = rng.choice([("a dog", "asked", 12), (None, None, None)])
        at = f"day {time:02d}" if as_text else float(time)
        user_id, query = f"user {rng.randrange(7)}", rng.choice([None, f"query {n}"])
        lines.append(Line(user_id, at, query, f"response {n}", rng.choice([None, "s"]), *fact))
    return lines


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("merged", [2, 3, 200])
def test_equals_sorting_in_memory(
    as_text: bool, merged: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sorting, "_RUN_LINES", 100)
    monkeypatch.setattr(sorting, "BATCH_LINES", 8)
    monkeypatch.setattr(sorting, "_MERGED", merged)
    lines = some_lines(1234, as_text)
    ordered = sorting.in_order(lines, tmp_path)
    assert list(ordered) == sorted(lines, key=lambda line: (line.user_id, line.time))
    assert len(list(tmp_path.iterdir())) == {2: 2, 3: 2, 200: 13}[merged]


def test_chunks_end_where_their_text_grows_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sorting, "_RUN_SIZE", 1000)
    lines = [Line("ann", float(-n), None, "x" * 400) for n in range(9)]
    assert list(sorting.in_order(lines, tmp_path)) == lines[::-1]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_gives_back_its_lines(tmp_path: Path) -> None:
    for count in (0, 1, sorting.BATCH_LINES, sorting.BATCH_LINES + 1):
        lines = some_lines(count, as_text=True)
        sorting.write(tmp_path / "lines", lines)
        assert list(sorting.read(tmp_path / "lines")) == lines


def test_a_file_from_before_a_field_was_there_is_read(tmp_path: Path) -> None:
    lines = [Line("ann", 1.0, "q", "r", "s", "a dog", "asked", 12), Line("ann", 2.0, None, "p")]
    columns = {n: [getattr(line, n) for line in lines] for n in Line._fields if n != "choices"}
    table = pa.table(columns)
    with pa.OSFile(str(tmp_path / "old"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as to:
        to.write_table(table)
    assert list(sorting.read(tmp_path / "old")) == lines
