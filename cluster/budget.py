"""Who gets the next trial: each user's share of a shard's trials, and when a search is over.

It knows no Tune, no study and no sampler: users are digests, and what a sampler expected of a
proposal is a number between 0 and 1, the hypervolume to be added as a share of what the front would
hold with it.

Every user has a ceiling. Without a total each gets that many trials, the user with the fewest ahead
first. With a total every user gets a floor, the initial design; what is left is shared in
proportion to what users' last proposals promised: the next trial is the user's for whom that,
divided by the trials had beyond the floor and this one, is largest. The whole would not go to whom
most is promised: promises stay high in large spaces however little comes of them, and one poor
proposal would end a search. Who has had no promise yet comes first, so samplers that promise
nothing share equally. Enough is always left for the floors.

Beside that, a user's search is over when each of the last `QUIET` proposals promised less than
asked for. Promises are stored with the trials, so going on after a kill decides the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

PENDING_PER_USER = 4
QUIET = 3  # proposals in a row


@dataclass(frozen=True)
class Rules:
    """What holds for every user of a shard."""

    ceiling: int  # trials of a user, the base itself not counted
    floor: int = 0
    total: int | None = None  # of all users together
    batch: int = 1  # trials of a user requested at once, when there is room for all of them
    stop_below: float = 0.0

    def expected(self, users: int) -> int:
        """Trials of one of so many users, on average."""
        if self.total is None:
            return self.ceiling
        return min(self.ceiling, max(self.floor, self.total // max(1, users)))


@dataclass
class Share:
    """Where one user's search stands; `left` counts trials to the ceiling nobody has requested."""

    asked: int
    left: int
    pending: int
    gains: list[float | None]  # promised by the trials asked, in their order
    requested: int = 0

    @property
    def ahead(self) -> int:
        """Trials asked or requested that have no result yet."""
        return self.pending + self.requested

    @property
    def is_over(self) -> bool:
        """Whether nothing is under way and nothing will be."""
        return not self.left and not self.ahead

    @property
    def promise(self) -> float:
        """Mean of the last proposals; boundless where none was a surrogate's."""
        known = [gain for gain in self.gains[-QUIET:] if gain is not None]
        return fmean(known) if known else math.inf

    def is_quiet(self, below: float) -> bool:
        """Whether the last proposals all promised less."""
        last = self.gains[-QUIET:]
        return len(last) == QUIET and all(gain is not None and gain < below for gain in last)


class Budget:
    """A shard's trials and who gets them."""

    def __init__(
        self,
        rules: Rules,
        pending: Mapping[str, int],
        gains: Mapping[str, Sequence[float | None]],
    ) -> None:
        """Takes up every user where their study stands.

        Args:
            rules: what holds for every user.
            pending: trials asked and not told, by user.
            gains: what every trial asked promised, the base's own left out, by user.
        """
        self._rules = rules
        self.users = {
            digest: Share(len(some), max(0, rules.ceiling - len(some)), pending[digest], [*some])
            for digest, some in gains.items()
        }
        for user in self.users.values():
            self._settle(user)

    @property
    def ahead(self) -> int:
        """Trials asked or requested, of all users, that have no result yet."""
        return sum(user.ahead for user in self.users.values())

    @property
    def is_asking(self) -> bool:
        """Whether anything is still to be asked."""
        return any(user.left or user.requested for user in self.users.values())

    @property
    def is_over(self) -> bool:
        """Whether nothing is under way and nothing will be."""
        return all(user.is_over for user in self.users.values())

    def request(self) -> tuple[str, int] | None:
        """The user whose next trials are to be requested, and how many; None where nobody's."""
        self._end_where_spent()
        free = self._free()
        able = [digest for digest, user in self.users.items() if self._may_request(user, free)]
        if not able:
            return None
        digest = min(able, key=lambda d: self._order(self.users[d]))
        user = self.users[digest]
        user.requested = min(self._rules.batch, user.left, self._room(user, free))
        user.left -= user.requested
        return digest, user.requested

    def arrived(self, digest: str, gains: Sequence[float | None]) -> None:
        """Requested trials have been asked; fewer than requested where the space has run out."""
        user = self.users[digest]
        if len(gains) < user.requested:
            user.left = 0
        user.requested = 0
        user.asked += len(gains)
        user.pending += len(gains)
        user.gains.extend(gains)
        self._settle(user)

    def ended(self, digest: str) -> None:
        """A trial has its result."""
        self.users[digest].pending -= 1

    def _settle(self, user: Share) -> None:
        if user.asked >= self._rules.floor and user.is_quiet(self._rules.stop_below):
            user.left = 0

    def _may_request(self, user: Share, free: int) -> bool:
        """Whether there is room for a whole batch."""
        has_place = user.pending <= max(0, PENDING_PER_USER - self._rules.batch)
        return user.left > 0 and not user.requested and has_place and self._room(user, free) > 0

    def _order(self, user: Share) -> tuple[float, ...]:
        if self._rules.total is None:
            return (user.ahead, -user.left)
        beyond = user.asked + user.requested - self._rules.floor
        worth = math.inf if self._lacks(user) else user.promise / (1 + max(0, beyond))
        return (-worth, user.ahead, -user.left)

    def _lacks(self, user: Share) -> int:
        """Trials to the floor that nobody has requested."""
        return max(0, min(user.left, self._rules.floor - user.asked - user.requested))

    def _room(self, user: Share, free: int) -> int:
        """Trials of the total that this user may have now, the others' floors kept free."""
        return user.left if self._rules.total is None else free + self._lacks(user)

    def _free(self) -> int:
        """Trials of the total that are kept for nobody's floor: the same for all users."""
        return self._unspent() - sum(map(self._lacks, self.users.values()))

    def _unspent(self) -> int:
        spent = sum(user.asked + user.requested for user in self.users.values())
        return (self._rules.total or 0) - spent

    def _end_where_spent(self) -> None:
        if self._rules.total is not None and self._unspent() <= 0:
            for user in self.users.values():
                user.left = 0


def parted(rules: Rules, asked: Mapping[str, int], shards: Sequence[Sequence[str]]) -> list[Rules]:
    """The rules of each shard: each has its users' part of the total.

    A user's part is what they have had, or the floor, and an equal share of what is left. Users in
    no shard are done: what they had is gone.

    Args:
        rules: of the whole run.
        asked: trials that every user of the run has had.
        shards: their users.
    """
    if rules.total is None:
        return [rules] * len(shards)
    users = [digest for shard in shards for digest in shard]
    had = {digest: max(rules.floor, asked[digest]) for digest in users}
    gone = sum(count for digest, count in asked.items() if digest not in had)
    share, rest = divmod(max(0, rules.total - gone - sum(had.values())), max(1, len(users)))
    parts = {d: had[d] + share + (place < rest) for place, d in enumerate(users)}
    return [replace(rules, total=sum(parts[digest] for digest in shard)) for shard in shards]
