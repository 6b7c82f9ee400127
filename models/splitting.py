"""Where a history is cut in time into training, validation and test.

Arithmetic on sessions and counts; it knows no text. Shares are over interactions with a query, the
only ones that are scored: posts lie where their time puts them, and those between two cuts of equal
counts go to the earlier part, where there is more to learn.

A cut is *between sessions* when no session has interactions on both sides of it. A session may come
back after others, and then no cut inside its whole span is one. Interactions without a session that
stand side by side count as one conversation, since nothing says that they are several.

Where the test part is given, only the rest is cut, at the position nearest to 7 parts in 8.

Nearest to 70/10/20 means the smallest sum of squared differences of the three counts.

Notation: n interactions with a query; a and b of them before the first and the second cut.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

LEAST_VALIDATION = 3
LEAST_TEST = 4


def cuts(
    sessions: Sequence[str | None], has_query: Sequence[bool], test: int | None = None
) -> tuple[int, int, bool] | None:
    """The two cuts of a history, and whether they fall between sessions.

    Args:
        sessions: of every interaction, in time order.
        has_query: whether each is a pair and not a post.
        test: the second cut, where that is given; at least one pair follows it.

    Returns:
        Index of the first interaction of validation, that of test, and whether no session is
        shared by two parts; None where not even cuts between interactions leave enough.
    """
    for positions, by_session in (
        (between_sessions(sessions), True),
        (range(1, len(sessions)), False),
    ):
        if test is None:
            pair = _nearest(positions, has_query)
        else:
            pair = _before(test, positions, has_query)
        if pair is not None:
            return *pair, by_session
    return None


def between_sessions(sessions: Sequence[str | None]) -> list[int]:
    """Indices i such that no session has interactions both before i and from i on."""
    last = {session: i for i, session in enumerate(sessions) if session is not None}
    positions: list[int] = []
    open_until = -1
    for i, session in enumerate(sessions):
        if i > open_until and i > 0 and session != sessions[i - 1]:
            positions.append(i)
        if session is not None:
            open_until = max(open_until, last[session])
    return positions


def _nearest(positions: Iterable[int], has_query: Sequence[bool]) -> tuple[int, int] | None:
    """The allowed pair of positions nearest to 70/10/20; of equals, the one with more training."""
    before = [0, *accumulate(map(int, has_query))]
    n = before[-1]
    position_of = {before[i]: i for i in positions}  # the last of those with equal counts
    counts = sorted(position_of)
    end = bisect_right(counts, n - LEAST_TEST)
    found: list[tuple[int, int, int]] = []
    for a in counts[bisect_left(counts, (n + 1) // 2) :]:
        start = bisect_left(counts, a + LEAST_VALIDATION)
        # For a given a the distance is a parabola in b with its lowest point at (a + 0.9 n) / 2.
        middle = bisect_left(counts, (10 * a + 9 * n) / 20, start, max(start, end))
        for b in counts[max(start, middle - 1) : min(end, middle + 1)]:
            found.append((_distance(a, b, n), -a, -b))
    if not found:
        return None
    _, a, b = min(found)
    return position_of[-a], position_of[-b]


def _before(
    test: int, positions: Sequence[int], has_query: Sequence[bool]
) -> tuple[int, int] | None:
    """The position nearest to 7/8 of the pairs before a given cut, which must be one itself."""
    before = [0, *accumulate(map(int, has_query))]
    n = before[test]
    if test not in positions or before[-1] == n:
        return None
    # Of equal counts the last, so that posts stay with the earlier part.
    found = [i for i in positions if (n + 1) // 2 <= before[i] <= n - LEAST_VALIDATION]
    if not found:
        return None
    return min(found, key=lambda i: (abs(8 * before[i] - 7 * n), -before[i], -i)), test


def _distance(a: int, b: int, n: int) -> int:
    """Squared distance of the parts' counts from 70/10/20, times 100: exact in integers."""
    return (10 * a - 7 * n) ** 2 + (10 * (b - a) - n) ** 2 + (10 * (n - b) - 2 * n) ** 2
