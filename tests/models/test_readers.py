"""The formats: the same interactions from each, and what is said of files that can't be read."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models import readers
from models.lines import DataError
from models.readers import LONGEST_LINE, document, find, profiles, records

RECORDS: list[dict[str, object]] = [
    {"user_id": "ann", "time": "b", "query": "how are you", "response": "fine", "session": "s"},
    {"user_id": "böb/1", "time": "a", "query": None, "response": "a post", "session": None},
]


def content(source: str | Path, scratch: Path) -> list[object]:
    return [record for _, record in records(find(source), Counter(), scratch)]


def write_lines(file: Path, lines: Sequence[object] = RECORDS) -> Path:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    return file


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "A.JSONL"])
def test_json_lines(name: str, tmp_path: Path) -> None:
    assert content(write_lines(tmp_path / name), tmp_path) == RECORDS


def test_a_byte_order_mark_and_empty_lines_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("\ufeff" + "\n\n".join(map(json.dumps, RECORDS)) + "\r\n\n")
    places = [place for place, _ in records(find(file), Counter(), tmp_path)]
    assert places == [f"{file}:1", f"{file}:3"]


def test_parquet_in_small_pieces(tmp_path: Path) -> None:
    table = pa.table(
        {
            "user_id": [f"user {n}" for n in range(5000)],
            "time": pa.array([n * 1500 for n in range(5000)], pa.timestamp("ns")),
            "response": ["words"] * 5000,
            "embedding": [[0.5] * 4] * 5000,
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1700)
    found = list(records(find(tmp_path), Counter(), tmp_path))
    assert len(found) == 5000
    place, record = found[4000]
    assert place == f"{tmp_path / 'a.parquet'}: row 4001"
    time = datetime(1970, 1, 1, microsecond=6000)
    assert record == {"user_id": "user 4000", "time": time, "response": "words"}


def test_parquet_with_choices(tmp_path: Path) -> None:
    choices = [["yes", "no"], None]
    columns = {"user_id": ["ann", "ann"], "time": [1, 2], "response": ["no", "a post"]}
    pq.write_table(pa.table({**columns, "choices": choices}), tmp_path / "a.parquet")
    found = content(tmp_path, tmp_path)
    assert [record["choices"] for record in found] == choices  # type: ignore[index,call-overload]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    write_lines(tmp_path / "b.jsonl", RECORDS[:1])
    write_lines(tmp_path / "a.jsonl.gz", RECORDS[1:])
    write_lines(tmp_path / "profiles.jsonl", [{"user_id": "ann", "profile": "likes tea"}])
    for name in ("README.md", "LICENSE", ".hidden.jsonl", "dataset_info.json"):
        (tmp_path / name).write_text("not data")
    (tmp_path / "folder.jsonl").mkdir()
    source = find(tmp_path)
    assert content(tmp_path, tmp_path) == RECORDS[::-1]
    assert profiles(source) == {"ann": "likes tea"}
    assert profiles(find(tmp_path / "b.jsonl")) == {"ann": "likes tea"}


def test_nested_dialogues_are_numbered_over_all_files(tmp_path: Path) -> None:
    turns = [{"0": {"Assistant": "a0", "User": "u0"}}, {"1": {"Assistant": "a1", "User": "u1"}}]
    (tmp_path / "one.json").write_text(json.dumps([turns, turns]))
    (tmp_path / "two.json.gz").write_bytes(gzip.compress(json.dumps([turns]).encode()))
    pair = {"time": 0, "query": "u0", "response": "a1"}
    assert content(tmp_path, tmp_path) == [
        {"user_id": f"dialogue-0000{number}", **pair} for number in range(3)
    ]


def test_a_folder_that_datasets_loads(tmp_path: Path) -> None:
    folder, scratch = tmp_path / "data", tmp_path / "scratch"
    folder.mkdir()
    for split in ("train", "test"):
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, [*RECORDS[0], "more"])
            writer.writeheader()
            writer.writerows({**record, "more": split} for record in RECORDS)
    assert content(folder, scratch) == RECORDS * 2
    assert any(scratch.iterdir())  # its copy of users' text lies there and not in the home folder


def test_the_name_of_a_data_set(tmp_path: Path) -> None:
    """Loaded from the library's own cache, in a process that may not ask the hub."""
    import datasets

    (tmp_path / "chat").mkdir()
    write_lines(tmp_path / "chat" / "a.jsonl")
    datasets.load_dataset(str(tmp_path / "chat"), cache_dir=str(tmp_path / "prepared"))
    (prepared,) = (tmp_path / "prepared" / "chat" / "default").iterdir()
    (built,) = (entry for entry in prepared.iterdir() if entry.is_dir())
    place = tmp_path / "cache" / "someone___chat" / "default" / "0.0.0" / ("0" * 40)
    shutil.copytree(built, place)
    program = (
        "import sys, json; from collections import Counter; from pathlib import Path\n"
        "from models.readers import find, records\n"
        "found = records(find('someone/chat'), Counter(), Path(sys.argv[1]))\n"
        "print(json.dumps(list(found)))"
    )
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, **offline, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    places = [f"someone/chat[train]: row {number}" for number in (1, 2)]
    assert json.loads(done.stdout) == [list(pair) for pair in zip(places, RECORDS, strict=True)]


@pytest.mark.parametrize(
    "source", ["missing.jsonl", "missing", "./missing/folder", "/missing/x", "data/missing"]
)
def test_a_missing_path_is_told_at_once(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"^{source}: expected a file or folder"):
        find(source)


def test_a_folder_without_data(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected files that end in \.jsonl"):
        find(tmp_path)
    (tmp_path / "README.md").write_text("nothing here")
    with pytest.raises(DataError, match="that `datasets` loads, got"):
        content(tmp_path, tmp_path / "scratch")


def test_an_unknown_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_text("x")
    with pytest.raises(DataError, match=r"expected a name that ends in \.jsonl, .*; convert"):
        find(tmp_path / "a.xlsx")


@pytest.mark.parametrize(
    "line", [b"{", b"user_id: ann", b'{"a": 1} {}', b"\xff\xfe", b"[" * 100_000, b"9" * 5000]
)
def test_a_line_that_is_not_json_is_named(line: bytes, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl")
    file.write_bytes(file.read_bytes() + line + b"\n")
    with pytest.raises(DataError, match=r"a\.jsonl:3: expected JSON in UTF-8, got b'") as raised:
        content(file, tmp_path)
    assert len(str(raised.value)) < 300 + len(str(file))


def test_a_line_without_an_end_is_not_read_into_memory(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(gzip.compress(b"{" + b" " * LONGEST_LINE, 1))
    with pytest.raises(DataError, match=rf"a\.jsonl\.gz:1: .* at most {LONGEST_LINE} bytes"):
        content(file, tmp_path)


def test_a_document_that_unpacks_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.json.gz"
    file.write_bytes(gzip.compress(b"[" + b" " * 998 + b"]"))
    monkeypatch.setattr(readers, "LARGEST_DOCUMENT", 1000)
    assert document(file) == []
    monkeypatch.setattr(readers, "LARGEST_DOCUMENT", 999)
    with pytest.raises(DataError, match=r"a\.json\.gz: expected at most 999 bytes of JSON"):
        document(file)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.jsonl.gz", "expected gzipped text, got damaged data"),
        ("a.json.gz", "expected gzipped text, got damaged data"),
        ("a.parquet", "expected Parquet, got"),
    ],
)
def test_damaged_files_are_named(name: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / name
    for damaged in (b"no such thing" * 20, gzip.compress(b'{"a": 1}\n' * 9999)[:-9]):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"{name}: {message}.*; "):
            content(file, tmp_path)


def test_a_table_without_the_fields(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": ["ann"], "text": ["hi"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"got \['text', 'user_id'\]; add time, response"):
        content(tmp_path, tmp_path)


def test_json_that_is_no_list_of_dialogues(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"user_id": "ann"}')
    with pytest.raises(DataError, match=r"expected a list of dialogues.*; name JSON Lines"):
        content(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"user_id": "ann"}, "expected 'profile' as text"),
        ({"user_id": "bob", "profile": "again"}, "expected one profile a user, got two of 'bob'"),
        ("text", "expected a JSON object"),
    ],
)
def test_bad_profiles_are_named(line: object, message: str, tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl")
    write_lines(tmp_path / "profiles.jsonl", [{"user_id": "bob", "profile": "tall"}, line])
    with pytest.raises(DataError, match=rf"profiles\.jsonl:2: {message}"):
        profiles(find(tmp_path))
