"""A key opens its users and no others, and only a private, valid file opens anything."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serve import access
from serve.access import EVERYONE, Keys, is_private

HASHED = "another-key"
ENTRIES = {
    "first-key": ["ada", "a:b/c ü"],
    "sha256:" + hashlib.sha256(HASHED.encode()).hexdigest(): "*",
    "nobodys-key": [],
}


def key_file(folder: Path, content: object, mode: int = 0o600) -> Path:
    file = folder / "keys.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    file.chmod(mode)
    return file


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(key_file(tmp_path, ENTRIES))


def opened(keys: Keys, key: str) -> list[str | None]:
    grant = keys.grant(key)
    assert grant is not None
    return [user for user in (None, "ada", "a:b/c ü", "bob") if grant.opens(user)]


def test_a_key_opens_its_users_and_the_base(keys: Keys) -> None:
    assert opened(keys, "first-key") == [None, "ada", "a:b/c ü"]
    assert opened(keys, "nobodys-key") == [None]


def test_a_key_given_by_its_digest_and_a_star_open_everybody(keys: Keys) -> None:
    assert opened(keys, HASHED) == [None, "ada", "a:b/c ü", "bob"]


def test_every_key_is_an_asker_of_its_own_whose_name_is_in_no_log(keys: Keys) -> None:
    grants = [keys.grant(key) for key in ("first-key", HASHED, "nobodys-key")]
    assert len({grant.asker for grant in grants if grant is not None} | {EVERYONE.asker}) == 4
    digest = hashlib.sha256(HASHED.encode()).hexdigest()
    assert not any(digest in repr(grant) for grant in grants)


def test_a_changed_file_is_read_once_for_all_who_ask_meanwhile(
    tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading may take long, and a server asks in many threads."""
    read, reading, times = access._grants, threading.Event(), []

    def slowly(file: Path, content: bytes) -> object:
        times.append(file)
        assert reading.wait(60)
        return read(file, content)

    monkeypatch.setattr(access, "_grants", slowly)
    key_file(tmp_path, {**ENTRIES, "a-new-key": ["bob"]})
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(keys.grant, "a-new-key") for _ in range(4)]
        reading.set()
        found = [one.result(60) for one in asked]
    assert all(grant is not None and grant.opens("bob") for grant in found)
    assert len(times) == 1


@pytest.mark.parametrize("key", ["", "first-ke", "first-key ", "FIRST-KEY", "schlüssel", "\udcff"])
def test_other_keys_open_nothing(keys: Keys, key: str) -> None:
    assert keys.grant(key) is None


def test_the_digest_of_a_key_is_no_key(keys: Keys) -> None:
    digest = next(key for key in ENTRIES if key.startswith("sha256:"))
    assert keys.grant(digest) is None
    assert keys.grant(digest.removeprefix("sha256:")) is None


@pytest.mark.parametrize("digest", ["A1" * 32, "a1" * 31, "", " " + "a1" * 32])
def test_a_digest_in_another_form_does_not_become_a_key_itself(tmp_path: Path, digest: str) -> None:
    with pytest.raises(
        ValueError, match=r"key 1 .*sha256:<64 hex digits>, in lower case"
    ) as raised:
        Keys(key_file(tmp_path, {f"sha256:{digest}": "*"}))
    assert "1A1" not in str(raised.value)


def test_a_key_and_its_own_digest_are_one_key_given_twice(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="each key once"):
        Keys(key_file(tmp_path, {**ENTRIES, HASHED: []}))


def test_no_key_stays_in_memory(keys: Keys) -> None:
    assert "first-key" not in repr(vars(keys))


def test_a_changed_file_counts_at_once(keys: Keys, tmp_path: Path) -> None:
    assert keys.grant("first-key") is not None
    key_file(tmp_path, {"second-key": "*"})
    assert keys.grant("first-key") is None
    assert keys.grant("second-key") is not None


def test_while_the_file_is_broken_nobody_gets_in(keys: Keys, tmp_path: Path) -> None:
    file = key_file(tmp_path, "{")
    for _ in range(2):
        with pytest.raises(ValueError, match="JSON"):
            keys.grant("first-key")
    file.unlink()
    with pytest.raises(FileNotFoundError):
        keys.grant("first-key")
    key_file(tmp_path, ENTRIES)
    assert keys.grant("first-key") is not None


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o604, 0o602, 0o700 | 0o020])
def test_a_file_that_others_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ValueError, match="chmod 600"):
        Keys(key_file(tmp_path, ENTRIES, mode))


def test_a_mounted_secret_of_roots_may_be_read_through_its_group() -> None:
    assert is_private(0o100440, owner=0, reader=1000)
    assert not is_private(0o100444, owner=0, reader=1000)
    assert not is_private(0o100460, owner=0, reader=1000)
    assert not is_private(0o100440, owner=0, reader=0)
    assert not is_private(0o100600, owner=1001, reader=1000)
    assert is_private(0o100400, owner=os.geteuid(), reader=os.geteuid())


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "\x00",
        '{"secret": "ada"}',
        '{"secret": ["ada", 1]}',
        '{"secret": null}',
        '{"": ["ada"]}',
        '{"two words": ["ada"]}',
        '{"secret": ["ada"], "secret": "*"}',
    ],
)
def test_a_file_that_is_not_as_described_is_refused_without_repeating_it(
    tmp_path: Path, content: str
) -> None:
    with pytest.raises(ValueError, match=r"keys\.json") as caught:
        Keys(key_file(tmp_path, content))
    assert "secret" not in str(caught.value)
    assert "expected" in str(caught.value)


def test_a_folder_is_no_key_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="file of keys"):
        Keys(tmp_path)


def test_a_key_is_looked_up_and_not_compared_with_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unlisted(dict[str, object]):
        def __iter__(self) -> Iterator[str]:
            raise AssertionError("expected a look-up, got a walk over all keys")

        items = values = keys = __iter__  # type: ignore[assignment]

    keys = Keys(key_file(tmp_path, ENTRIES))
    monkeypatch.setattr(keys, "_grants", Unlisted(keys._grants))
    assert opened(keys, "first-key") == [None, "ada", "a:b/c ü"]
    assert keys.grant("nobody") is None
