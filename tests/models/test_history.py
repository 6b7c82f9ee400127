"""Histories from end to end: read, split, whose words, forget, and memory that stays bounded."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from models.history import (
    DataError,
    Fact,
    Histories,
    History,
    Interaction,
    TooShort,
    split,
    user_digest,
    user_texts,
)

LIMIT_BYTES = 400 * 2**20
PEAK = """
import json, sys
from pathlib import Path
from models.history import Histories

def status(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))

before = status("VmRSS")
histories = Histories.read(sys.argv[1], Path(sys.argv[2]))
user_id = histories.user_ids[len(histories.user_ids) // 2]
loaded = len(histories.load(user_id).interactions)
print(json.dumps([len(histories), len(histories.user_ids), loaded, status("VmHWM") - before]))
"""


def interactions(count: int, sessions: Sequence[str | None] = ()) -> tuple[Interaction, ...]:
    names = [*sessions, *[None] * (count - len(sessions))]
    return tuple(Interaction("ann", float(n), f"q{n}", f"r{n}", names[n]) for n in range(count))


def write_lines(file: Path, records: Sequence[Mapping[str, object]]) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


def records_of(user_ids: Sequence[str], each: int) -> list[dict[str, object]]:
    """Lines of users in turn, newest first, so that reading has something to sort."""
    return [
        {"user_id": user_id, "time": -n, "query": f"q{n}", "response": f"{user_id} {n}"}
        for n in range(each)
        for user_id in user_ids
    ]


def test_read_then_load(tmp_path: Path) -> None:
    fact = {"value": "a dog", "kind": "unasked", "choices": 12}
    records = records_of(["bob", "ann"], 3)
    records.append({"user_id": "ann", "time": 5, "response": "a post", "session": "s"})
    asked = {"query": "?", "response": "Rex", "fact": fact, "choices": ["Max", "Rex"]}
    records.append({"user_id": "ann", "time": 5, **asked})
    source = write_lines(tmp_path / "source" / "a.jsonl", records)
    write_lines(source.parent / "profiles.jsonl", [{"user_id": "ann", "profile": "likes tea"}])
    read = Histories.read(source.parent, tmp_path / "run" / "data")
    for histories in (read, Histories.open(tmp_path / "run" / "data")):
        assert histories.user_ids == ("ann", "bob")
        assert histories.pair_counts == {"ann": 4, "bob": 3}
        assert len(histories) == 8
        ann = histories.load("ann")
        assert ann.profile == "likes tea"
        assert [i.time for i in ann.interactions] == [-2.0, -1.0, 0.0, 5.0, 5.0]
        assert ann.interactions[3] == Interaction("ann", 5.0, None, "a post", "s")
        assert ann.interactions[4].fact == Fact("a dog", "unasked", 12)
        assert [i.choices for i in ann.interactions[3:]] == [None, ("Max", "Rex")]
        assert [i.response for i in histories.load("bob").interactions] == [
            "bob 2",
            "bob 1",
            "bob 0",
        ]
        assert histories.load("bob").profile is None
        assert histories.digest == read.digest


def test_user_ids_are_data(tmp_path: Path) -> None:
    user_ids = ["../../up", "a.b/c", "a\\b", "ünï 🙂", "x" * 512, "x" * 511, "\u2028", "nul\0"]
    user_ids.pop(6)  # a blank alone is no id
    source = write_lines(tmp_path / "a.jsonl", records_of(user_ids, 2))
    histories = Histories.read(source, tmp_path / "run" / "data")
    assert histories.user_ids == tuple(sorted(user_ids))
    for user_id in user_ids:
        assert histories.load(user_id).user_id == user_id
        assert {i.user_id for i in histories.load(user_id).interactions} == {user_id}
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.jsonl", "run"}
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["data"]


def test_bad_data_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    good = write_lines(tmp_path / "good.jsonl", records_of(["ann"], 3))
    bad = write_lines(tmp_path / "bad.jsonl", [*records_of(["bob"], 3), {"user_id": "bob"}])
    folder = tmp_path / "run" / "data"
    with pytest.raises(DataError, match=r"bad\.jsonl:4: expected 'time'"):
        Histories.read(bad, folder)
    assert list((tmp_path / "run").iterdir()) == []
    Histories.read(good, folder)
    with pytest.raises(DataError, match=r"bad\.jsonl:4: expected 'time'"):
        Histories.read(bad, folder)
    assert Histories.open(folder).user_ids == ("ann",)


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"a\.jsonl: expected interactions, found none"):
        Histories.read(tmp_path / "a.jsonl", tmp_path / "run" / "data")
    with pytest.raises(FileNotFoundError, match="expected histories"):
        Histories.open(tmp_path / "run" / "data")


def test_an_unknown_user_is_no_neighbour(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "a.jsonl", records_of(["b", "d"], 1))
    histories = Histories.read(source, tmp_path / "data")
    for unknown in ("a", "c", "e", ""):
        with pytest.raises(KeyError, match="expected a user of these histories"):
            histories.load(unknown)


def test_forget_leaves_the_others_and_no_trace(tmp_path: Path) -> None:
    records = records_of(["ann", "bob", "cleo"], 40)
    source = write_lines(tmp_path / "source" / "a.jsonl", records)
    people = [{"user_id": name, "profile": f"{name} is tall"} for name in ("bob", "cleo")]
    write_lines(source.parent / "profiles.jsonl", people)
    before = Histories.read(source, tmp_path / "data")
    after = before.forget("bob")
    for histories in (after, Histories.open(tmp_path / "data")):
        assert histories.user_ids == ("ann", "cleo")
        assert histories.load("ann") == before.load("ann")
        assert histories.load("cleo") == before.load("cleo")
        assert len(histories) == 80
    assert all(b"bob" not in file.read_bytes() for file in (tmp_path / "data").iterdir())
    without = [record for record in records if record["user_id"] != "bob"]
    write_lines(source, without)
    assert Histories.read(source, tmp_path / "other").digest == after.digest != before.digest
    with pytest.raises(KeyError):
        after.forget("bob")


def test_several_are_forgotten_at_once(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "a.jsonl", records_of(["ann", "bob", "cleo"], 40))
    before = Histories.read(source, tmp_path / "data")
    with pytest.raises(KeyError):
        before.forget("bob", "nobody")
    after = before.forget("bob", "ann")
    assert after.user_ids == ("cleo",)
    assert after.load("cleo") == before.load("cleo")


def test_everybody_may_be_forgotten(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "a.jsonl", records_of(["ann"], 2))
    histories = Histories.read(source, tmp_path / "data").forget("ann")
    assert (len(histories), histories.user_ids) == (0, ())


def test_a_killed_forget_is_finished_by_the_next(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "a.jsonl", records_of(["ann", "bob"], 2))
    before = Histories.read(source, tmp_path / "data")
    kept = {file: file.read_bytes() for file in (tmp_path / "data").glob("lines-*")}
    after = before.forget("bob")
    for file, content in kept.items():  # as if killed before the old files were removed
        file.write_bytes(content)
    with pytest.raises(KeyError):
        after.forget("bob")
    assert not any(file.exists() for file in kept)


def test_split_between_sessions_and_between_items() -> None:
    by_session = split(History("ann", interactions(24, [*"A" * 15, *"B" * 4, *"C" * 5])))
    assert by_session.by_session
    assert [len(by_session.train), len(by_session.validation), len(by_session.test)] == [15, 4, 5]
    by_item = split(History("ann", interactions(30, ["A"] * 30)))
    assert not by_item.by_session
    parts = (*by_item.train, *by_item.validation, *by_item.test)
    assert parts == interactions(30, ["A"] * 30)
    assert len(by_item.train) == 21


def test_too_short_a_history_is_named() -> None:
    with pytest.raises(TooShort, match=r"expected 14 or more .*, got 13; leave the user") as raised:
        split(History("x" * 1000, interactions(13)))
    assert len(str(raised.value)) < 200
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_whose_words() -> None:
    pair = Interaction("ann", 0.0, "asked", "answered")
    post = Interaction("ann", 1.0, None, "posted")
    assert user_texts([pair, post], "response") == ["answered", "posted"]
    assert user_texts([pair, post], "query") == ["asked", "posted"]
    assert user_texts([pair, post], "both") == ["asked", "answered", "posted"]


def test_user_digests_are_keyed_names() -> None:
    digest = user_digest(b"key", "ann/../é")
    assert len(digest) == 16
    assert set(digest) <= set("0123456789abcdef")
    assert digest == user_digest(b"key", "ann/../é")
    assert len({digest, user_digest(b"other", "ann/../é"), user_digest(b"key", "bob")}) == 3


def test_a_light_process_can_import_histories() -> None:
    program = "import sys, models.history; print({'torch', 'datasets', 'ray'} & {*sys.modules})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def million(users: int) -> Iterator[bytes]:
    """A million lines of about 400 bytes, users and times in random order."""
    rng = random.Random(0)
    words = [f"word{n}" for n in range(5000)]
    for n in range(1_000_000):
        start = rng.randrange(4900)
        record = {
            "user_id": f"user {rng.randrange(users)}",
            "session": f"session {n % 999}",
            "time": f"2024-{rng.randrange(10**6):06d}",
            "query": " ".join(words[start : start + 15]),
            "response": " ".join(words[start + 20 : start + 50]),
        }
        yield json.dumps(record).encode() + b"\n"


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("name", "users"), [("a.jsonl", 20_000), ("a.jsonl.gz", 500_000)])
def test_memory_stays_bounded(name: str, users: int, tmp_path: Path) -> None:
    source = tmp_path / name
    with source.open("wb") as plain:
        if name.endswith(".gz"):
            with gzip.open(plain, "wb", compresslevel=1) as packed:
                packed.writelines(million(users))
        else:
            plain.writelines(million(users))
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(source), str(tmp_path / "run" / "data")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    count, found_users, loaded, peak_bytes = json.loads(done.stdout)
    assert count == 1_000_000
    assert users * 0.8 < found_users <= users
    assert loaded > 0
    print(f"{name}: {peak_bytes / 2**20:.0f} MB above the process before loading")
    assert peak_bytes < LIMIT_BYTES
