"""Who is searched, who is the population, and who is left out, with the reason.

It knows no Ray and no model. Users with enough items are drawn by the seed: first those whose
history can be split between sessions, since results are claimed on them; then, where these are too
few, others, and they are marked. Everybody who is not searched belongs to the population.

The choice is kept in the run's folder: going on must not draw anew.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.experiment import Experiment, seed_of
from cluster.private import write_private
from cluster.results import LeftOut
from models.history import Histories, TooShort, split, user_digest

FILE_NAME = "users.json"


@dataclass(frozen=True)
class Searched:
    """A user who is searched."""

    user_id: str
    digest: str
    seed: int
    by_session: bool


@dataclass(frozen=True)
class Choice:
    """The users of a run."""

    searched: tuple[Searched, ...]
    left_out: tuple[LeftOut, ...]

    def save(self, run: Path) -> None:
        """Keeps the choice in the run's folder."""
        write_private(run / FILE_NAME, json.dumps(asdict(self)))

    @classmethod
    def load(cls, run: Path) -> Choice:
        """The choice that was kept.

        Raises:
            ValueError: the file is damaged.
        """
        file = run / FILE_NAME
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
            searched = tuple(Searched(**user) for user in stored["searched"])
            return cls(searched, tuple(LeftOut(**user) for user in stored["left_out"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file}: expected a run's users, got {error!r}") from error

    def without(self, *user_ids: str) -> Choice:
        """The choice as if some users had never been there."""
        gone = frozenset(user_ids)
        return Choice(
            tuple(user for user in self.searched if user.user_id not in gone),
            tuple(user for user in self.left_out if user.user_id not in gone),
        )


def choose(histories: Histories, experiment: Experiment, key: bytes, skip: int = 0) -> Choice:
    """Draws the users to search; so many as are skipped come first in the draw, and are others.

    Raises:
        ValueError: there is none to search.
    """
    counts = histories.pair_counts
    left_out = [
        LeftOut(user, pairs, f"{pairs} items with a query, fewer than {experiment.min_items}")
        for user, pairs in counts.items()
        if pairs < experiment.min_items
    ]
    enough = [user for user, pairs in counts.items() if pairs >= experiment.min_items]
    random.Random(seed_of(experiment.seed, "users")).shuffle(enough)
    drawn = _drawn(histories, enough, experiment.users, left_out, skip)
    if not drawn:
        raise ValueError(_nobody(max(counts.values(), default=0), experiment.min_items, skip))
    searched = tuple(
        Searched(user, user_digest(key, user), seed_of(experiment.seed, user), by_session)
        for user, by_session in sorted(drawn)
    )
    return Choice(searched, tuple(left_out))


def _nobody(most: int, least: int, skip: int) -> str:
    """Why nobody can be searched, where the longest history has `most` items with a query."""
    if not most:
        return (
            "expected interactions with a 'query', got posts alone, which nothing can be scored "
            "on; if the data call it otherwise, rename that field 'query'"
        )
    if most < least:
        return (
            f"expected a user with at least {least} items with a query, got none: the longest "
            f"history has {most}; lower --min-items or give more data"
        )
    if skip:
        return f"--skip: expected users beside the first {skip}, got none; give a smaller number"
    return (
        "expected a user whose history can be split in training, validation and test (14 items "
        "with a query, or 6 before those held out), got none: the longest history has "
        f"{most}; give more data"
    )


def _drawn(
    histories: Histories,
    users: list[str],
    count: int | None,
    left_out: list[LeftOut],
    skip: int,
) -> list[tuple[str, bool]]:
    """(user, whether split between sessions), those that are first; all if no count is given."""
    end = None if count is None else skip + count
    first: list[tuple[str, bool]] = []
    others: list[tuple[str, bool]] = []
    for user, by_session in _split(histories, users, left_out):
        (first if by_session else others).append((user, by_session))
        if len(first) == end:
            break
    return [*first, *others][skip:end]


def _split(
    histories: Histories, users: list[str], left_out: list[LeftOut]
) -> Iterator[tuple[str, bool]]:
    for user in users:
        try:
            yield user, split(histories.load(user)).by_session
        except TooShort:
            reason = "too few items with a query to split in training, validation and test"
            left_out.append(LeftOut(user, histories.pair_counts[user], reason))
