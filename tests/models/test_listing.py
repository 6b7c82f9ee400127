"""Who has a published state: told as it is now, and read no oftener than it changes."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models import listing
from models.listing import Listing
from models.personalizer import UserState
from models.pointer import Pointer
from models.published import BaseIdentity
from models.registry import Registry

BASE = BaseIdentity("base", "f" * 64, "plain/1")
USERS = [f"user{i:02}" for i in range(20)]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Users whose winner is the base; as if they had been published an hour ago."""
    made = Registry(tmp_path / "registry")
    for user in USERS:
        publish(made, user)
    settle(made)
    return made


def publish(registry: Registry, user: str) -> None:
    registry.publish(UserState("milp", user, {}, {}), BASE, {}, "too short")


def settle(registry: Registry) -> None:
    then = time.time_ns() - 3600 * 10**9
    for place in (registry.folder / "users").iterdir():
        os.utime(place, ns=(then, then))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The pointers that a listing reads."""
    files: list[Path] = []
    read = Pointer.read

    def noting(file: Path) -> Pointer:
        files.append(file)
        return read(file)

    monkeypatch.setattr(Pointer, "read", noting)
    return files


def test_what_has_not_changed_is_read_once(registry: Registry, opened: list[Path]) -> None:
    for _ in range(3):
        assert registry.users() == USERS
    assert len(opened) == len(USERS)


def test_many_who_ask_at_once_read_it_once(registry: Registry, opened: list[Path]) -> None:
    together = threading.Barrier(4)

    def users(_: int) -> list[str]:
        together.wait(60)
        return registry.users()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(users, range(4))) == [USERS] * 4
    assert len(opened) == len(USERS)


def test_a_change_is_seen_and_only_its_folder_read(registry: Registry, opened: list[Path]) -> None:
    registry.users()
    publish(registry, "zoe")
    opened.clear()
    assert registry.users() == [*USERS, "zoe"]
    assert 1 <= len(opened) < len(USERS)
    registry.withdraw("zoe")
    registry.forget("user03")
    assert registry.users() == [user for user in USERS if user != "user03"]
    publish(registry, "zoe")
    assert registry.users()[-1] == "zoe"


def test_some_users_are_told_without_reading_the_others(
    registry: Registry, opened: list[Path]
) -> None:
    some = registry.some_users(5)
    assert len(set(some)) == len(opened) == 5
    assert set(some) < set(USERS)
    for user in some:
        registry.withdraw(user)
    assert sorted(registry.some_users(100)) == sorted({*USERS} - {*some})


def test_a_change_within_the_same_step_of_the_clock_is_seen(registry: Registry) -> None:
    """Two changes that a file system's times don't tell apart, the list asked for in between."""
    places = list((registry.folder / "users").iterdir())
    now = time.time_ns()

    def at_once() -> None:
        for place in places:
            os.utime(place, ns=(now, now))

    at_once()
    assert registry.users() == USERS
    for place in places:
        next(place.glob("*.json")).unlink()
    at_once()
    assert len(registry.users()) == len(USERS) - len(places)


def test_it_tells_what_a_listing_that_knows_nothing_tells(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "SETTLED_SECONDS", 0.0)
    for user in (*USERS[::3], "new", *USERS[::7]):
        publish(registry, user) if user == "new" else registry.forget(user)
        time.sleep(0.02)  # longer than a step of any file system here
        assert registry.users() == Listing(registry.folder / "users").users()


def test_damaged_pointers_are_left_out_and_no_folder_is_no_user(
    registry: Registry, tmp_path: Path
) -> None:
    file = next((registry.folder / "users").glob("*/*.json"))
    file.write_text("{")
    assert len(registry.users()) == len(USERS) - 1
    assert Listing(tmp_path / "none").users() == []
