"""Cuts in time: by hand, against exhaustive search, and what they may never do."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations

import pytest

from models.splitting import between_sessions, cuts


def every_cut(
    positions: Sequence[int], has_query: Sequence[bool]
) -> list[tuple[float, tuple[int, int, int]]]:
    """Distance and counts of every allowed pair of cuts, by the rule's own words."""
    n = sum(has_query)
    allowed = []
    for first, second in combinations(positions, 2):
        counts = tuple(sum(has_query[s]) for s in (slice(first), slice(first, second)))
        train, validation, test = *counts, n - sum(counts)
        if validation >= 3 and test >= 4 and train >= n / 2:
            shares = zip((train / n, validation / n, test / n), (0.7, 0.1, 0.2), strict=True)
            distance = round(sum((have - want) ** 2 for have, want in shares), 9)
            allowed.append((distance, (train, validation, test)))
    return allowed


def counts_of(first: int, second: int, has_query: Sequence[bool]) -> tuple[int, int, int]:
    return sum(has_query[:first]), sum(has_query[first:second]), sum(has_query[second:])


def test_by_hand() -> None:
    sessions = [*"A" * 10, *"B" * 4, *"C" * 3, *"D" * 4]
    assert cuts(sessions, [True] * 21) == (14, 17, True)
    assert cuts([None] * 30, [True] * 30) == (21, 24, False)
    assert cuts([None] * 100, [True] * 100) == (70, 80, False)


def test_a_session_that_comes_back_is_never_cut() -> None:
    assert between_sessions(["A", "B", "A", "C", "C", "D"]) == [3, 5]
    assert between_sessions(["A", None, None, "B", "C", None, "C"]) == [1, 3, 4]
    assert between_sessions(["A", None, "A", None]) == [3]
    sessions = [*"A" * 14, *"B" * 3, *"C" * 3, "B"]
    assert cuts(sessions, [True] * 21) == (14, 17, False)


def test_too_little_for_three_parts() -> None:
    assert cuts([None] * 13, [True] * 13) is None
    assert cuts([None] * 14, [True] * 14) == (7, 10, False)
    assert cuts([None] * 100, [True] * 13 + [False] * 87) is None
    assert cuts([], []) is None


def test_posts_do_not_count_and_stay_with_the_earlier_part() -> None:
    has_query = [*[True] * 7, False, False, *[True] * 3, False, *[True] * 4, False]
    assert cuts([None] * 18, has_query) == (9, 13, False)


@pytest.mark.parametrize("seed", range(300))
def test_equals_exhaustive_search(seed: int) -> None:
    rng = random.Random(seed)
    length = rng.randrange(10, 60)
    sessions: list[str | None] = []
    while len(sessions) < length:
        name = None if rng.random() < 0.1 else f"s{rng.randrange(20)}"
        sessions += [name] * rng.randrange(1, 9)
    has_query = [rng.random() < 0.8 for _ in sessions]
    allowed = every_cut(between_sessions(sessions), has_query)
    by_session = bool(allowed)
    allowed = allowed or every_cut(range(1, len(sessions)), has_query)
    found = cuts(sessions, has_query)
    if not allowed:
        assert found is None
        return
    assert found is not None
    best = min(distance for distance, _ in allowed)
    ties = [counts for distance, counts in allowed if distance == best]
    assert counts_of(found[0], found[1], has_query) == max(ties)
    assert found[2] == by_session
    if by_session:
        parts = sessions[: found[0]], sessions[found[0] : found[1]], sessions[found[1] :]
        for one, other in combinations([set(part) - {None} for part in parts], 2):
            assert not one & other
