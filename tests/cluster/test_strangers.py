"""Whose memories are drawn for a user: others, with a memory, of the same configuration first."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from cluster import strangers
from cluster.results import UserResult
from cluster.strangers import Strangers
from search.space import BASE_CONFIG, MemoryConfig
from tests.cluster.made_results import user

HERE, THERE = MemoryConfig((0,), 8, 1e-3), MemoryConfig((1,), 8, 1e-3)


def one(name: str, configuration: MemoryConfig) -> UserResult:
    kind = "base" if configuration == BASE_CONFIG else "milp"
    return replace(user(0), user_id=name, digest=name, configuration=configuration, kind=kind)


USERS = [one("ann", HERE), one("ben", HERE), one("cleo", THERE), one("dan", BASE_CONFIG)]
USERS.append(one("eve", THERE))


def drawn(of: UserResult, count: int, seed: int, users: Sequence[UserResult] = USERS) -> list[str]:
    return [found.user_id for found in Strangers(users, seed).of(of, count)]


def test_those_of_the_same_configuration_come_first() -> None:
    for seed in range(5):
        first, second = drawn(USERS[0], 2, seed)
        assert first == "ben"
        assert second in ("cleo", "eve")
    assert {drawn(USERS[0], 2, seed)[1] for seed in range(20)} == {"cleo", "eve"}


def test_whose_winner_is_the_base_is_nobodys_stranger() -> None:
    assert set(drawn(USERS[3], 9, 0)) == {"ann", "ben", "cleo", "eve"}
    assert drawn(USERS[0], 4, 0, USERS[:1]) == []


def test_it_draws_as_from_lists_of_all_others() -> None:
    """The lists that a draw spares."""
    for seed in range(10):
        for me in USERS:
            others = [u for u in USERS if u is not me and u.kind == "milp"]
            alike = [u for u in others if u.configuration == me.configuration]
            unlike = [u for u in others if u.configuration != me.configuration]
            generator = random.Random(f"{seed} {me.digest}")
            listed = [generator.sample(some, len(some)) for some in (alike, unlike)]
            assert drawn(me, 3, seed) == [u.user_id for some in listed for u in some][:3]


@pytest.mark.parametrize("configurations", [1, 7, 400])
def test_a_draw_looks_at_no_more_users_the_more_there_are(
    configurations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [one(f"u{i}", MemoryConfig((i % configurations,), 8, 1e-3)) for i in range(400)]
    made = Strangers(users, 0)
    passed: list[int] = []
    draw = strangers._drawn

    def noting(
        generator: random.Random, size: int, without: Sequence[int], count: int
    ) -> list[int]:
        passed.append(len(without) if count else 0)
        return draw(generator, size, without, count)

    monkeypatch.setattr(strangers, "_drawn", noting)
    found = [made.of(each, 4) for each in users]
    assert max(passed) <= 4
    for each, others in zip(users, found, strict=True):
        names = {other.user_id for other in others}
        assert len(names) == 4
        assert each.user_id not in names
