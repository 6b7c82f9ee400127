"""Whose memories a user's own is held against: others with a memory, drawn by a seed.

Those of the same configuration come first: they differ in what was learned, not in how. A draw
costs as much as it draws, however many users there are.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from cluster.results import UserResult
from search.space import MemoryConfig


class Strangers:
    """The users of a run who have a memory."""

    def __init__(self, users: Sequence[UserResult], seed: int) -> None:
        self._seed = seed
        self._owners = [user for user in users if user.kind == "milp"]
        self._alike: dict[MemoryConfig, list[int]] = defaultdict(list)
        self._own: dict[str, int] = {}  # by digest, the place among those alike
        for place, owner in enumerate(self._owners):
            alike = self._alike[owner.configuration]
            self._own[owner.digest] = len(alike)
            alike.append(place)

    def of(self, user: UserResult, count: int) -> list[UserResult]:
        """`count` other users, those of the same configuration first; all when fewer."""
        generator = random.Random(f"{self._seed} {user.digest}")
        places = self._alike.get(user.configuration, [])
        own = [self._own[user.digest]] if user.digest in self._own else []
        drawn = _drawn(generator, len(places), own, count)
        first = [places[i] for i in drawn]
        rest = _drawn(generator, len(self._owners), places, count - len(first))
        return [self._owners[place] for place in (*first, *rest)]


def _drawn(generator: random.Random, size: int, without: Sequence[int], count: int) -> list[int]:
    """`count` of so many places, or all when fewer, without some; these ascend."""
    left = size - len(without)
    found = []
    for place in generator.sample(range(left), min(count, left)):
        for taken in without:
            place += place >= taken
        found.append(place)
    return found
