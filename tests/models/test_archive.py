"""Sorted lines on disk: order, content, privacy, and what a killed writer leaves."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from models import archive, sorting, storage
from models.archive import Archive
from models.lines import DataError, Line


def some_lines(count: int, seed: int = 0) -> list[Line]:
    """Lines of seven users in random order; many have equal times, all differ in response."""
    rng = random.Random(seed)
    lines = []
    for n in range(count):
        time = rng.randrange(20)
        query = rng.choice([None, f"query {n}"])
        fact = ("a dog", "asked", 12) if rng.random() < 0.2 else (None, None, None)
        user_id = f"user {rng.randrange(7)}"
        session = rng.choice([None, "s"])
        choices = [f"response {n}", "another"] if rng.random() < 0.2 else None
        lines.append(Line(user_id, float(time), query, f"response {n}", session, *fact, choices))
    return lines


def in_order(lines: Sequence[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: (line.user_id, line.time))


def write(folder: Path, lines: Sequence[Line], profiles: dict[str, str] | None = None) -> Archive:
    with archive.scratch(folder) as aside:
        archive.write(sorting.in_order(lines, aside), profiles or {}, {"lost": 2}, folder, aside)
    return Archive.open(folder)


def test_the_index_counts_lines_and_pairs(tmp_path: Path) -> None:
    lines = [Line(user, 0.0, query, "r") for user, query in [("b", None), ("a", "q"), ("b", "q")]]
    content = write(tmp_path / "data", lines, {"b": "tall", "stranger": "short"})
    assert content.users.to_pylist() == [
        {"user_id": "a", "start": 0, "lines": 1, "pairs": 1, "profile": None},
        {"user_id": "b", "start": 1, "lines": 2, "pairs": 1, "profile": "tall"},
    ]
    assert content.counts == {"lost": 2}


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    lines = some_lines(300)
    digest = write(tmp_path / "a", lines).digest
    shuffled = random.Random(1).sample(in_order(lines), len(lines))
    shuffled.sort(key=lambda line: int(line.response.split()[1]))  # equal times keep their order
    assert write(tmp_path / "b", shuffled).digest == digest
    longer = lines[0]._replace(response=lines[0].response + ".")
    assert write(tmp_path / "c", [longer, *lines[1:]]).digest != digest
    assert write(tmp_path / "d", lines, {"user 1": "tall"}).digest != digest
    assert write(tmp_path / "e", lines, {"stranger": "tall"}).digest == digest


def test_choices_are_part_of_the_digest_where_there_are_any(tmp_path: Path) -> None:
    plain = Line("ann", 1.0, "q", "r")
    noted = [["ann", 1.0, "q", "r", None, None, None, None], ["profile", None]]
    by_hand = hashlib.sha256("".join(json.dumps(each) + "\n" for each in noted).encode())
    assert write(tmp_path / "a", [plain]).digest == by_hand.hexdigest()
    chosen = write(tmp_path / "b", [plain._replace(choices=["r", "s"])])
    other = write(tmp_path / "c", [plain._replace(choices=["r", "t"])])
    assert len({by_hand.hexdigest(), chosen.digest, other.digest}) == 3


def test_a_slice_may_cross_batches(tmp_path: Path) -> None:
    lines = some_lines(3 * sorting.BATCH_LINES + 5)
    content, ordered = write(tmp_path / "data", lines), in_order(lines)
    assert len(content) == len(lines)
    edge = sorting.BATCH_LINES
    for start, count in [(0, len(lines)), (edge - 1, 2), (edge, edge), (5, 2 * edge), (9, 0)]:
        assert list(content.slice(start, count)) == ordered[start : start + count]


def test_everything_is_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "data"
    folder.mkdir(parents=True, mode=0o755)
    write(folder, some_lines(10))
    assert folder.stat().st_mode & 0o777 == 0o700
    files = list(folder.iterdir())
    assert len(files) == 3
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    with archive.scratch(folder) as aside:
        assert aside.stat().st_mode & 0o777 == 0o700


def test_a_write_that_ends_early_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, old, new = tmp_path / "data", some_lines(50, seed=1), some_lines(60, seed=2)
    write(folder, old)

    def power_cut(place: Path, content: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_file", power_cut)
        with pytest.raises(KeyboardInterrupt):
            write(folder, new)
    assert list(Archive.open(folder).stream()) == in_order(old)
    assert len(list(folder.iterdir())) == 5  # the new files lie there, unnamed
    left = tmp_path / ".data-1234.writing"  # as a killed process leaves it
    left.mkdir()
    (left / "run-0.arrow").write_text("somebody's words")
    assert list(write(folder, new).stream()) == in_order(new)
    assert len(list(folder.iterdir())) == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_an_open_archive_outlives_its_replacement(tmp_path: Path) -> None:
    old, new = some_lines(50, seed=1), some_lines(60, seed=2)
    opened = write(tmp_path / "data", old)
    write(tmp_path / "data", new)
    assert list(opened.slice(0, 50)) == in_order(old)


@pytest.mark.parametrize("name", ["lines", "users", "index"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damage_is_named(name: str, damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write(folder, some_lines(2000))
    (file,) = folder.glob(f"{name}*")
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises((DataError, FileNotFoundError), match="expected histories") as raised:
        Archive.open(folder)
    assert str(folder) in str(raised.value)
