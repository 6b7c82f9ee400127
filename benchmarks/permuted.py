"""Data in which each user's training part is a stranger's: validation and test stay the user's own.

Whoever is compared swaps training parts (and profiles) with the user whose history is nearest in
length, so that how much there is to learn from differs as little as can be; of an odd number the
last three go round. The split of such a history is told by its sessions, one for each part, so that
everything that reads data cuts it where it was cut.

Nobody may learn now from the later conversations of anybody who is compared: lines of those
sessions are left out of all training parts, and of the others', from whom shared parts are learned.
The others have no sessions after that, and so none can be drawn in a compared user's place.

A user whose later parts are longer than the stranger's training part keeps the oldest of either:
a history is never cut where less than half of it is for training.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path

from models import quiz
from models.history import Histories, History, Interaction, Split, split
from models.population import closed_sessions
from models.quiz import Quiz

TRAINING, VALIDATION, TEST = "training", "validation", "test"


def partners(sizes: Mapping[str, int]) -> dict[str, str]:
    """Whose training part each user gets: never the own, and each one's is given once.

    Args:
        sizes: how much each user has to learn from.

    Raises:
        ValueError: fewer than two users.
    """
    if len(sizes) < 2:
        raise ValueError(f"expected at least 2 users to permute, got {len(sizes)}")
    ordered = sorted(sizes, key=lambda user: (sizes[user], user))
    groups = [ordered[start : start + 2] for start in range(0, len(ordered), 2)]
    if len(groups[-1]) == 1:
        groups[-2:] = [groups[-2] + groups[-1]]
    return {user: group[place - 1] for group in groups for place, user in enumerate(group)}


def write(histories: Histories, users: Sequence[str], folder: Path) -> dict[str, str]:
    """Writes permuted data of these users, and of all others what nobody is asked about.

    Returns:
        Whose training part each user got.

    Raises:
        ValueError: a user whose history isn't split between sessions, or too few users.
    """
    found = {user: histories.load(user) for user in users}
    parts = {user: split(history) for user, history in found.items()}
    if not all(part.by_session for part in parts.values()):
        raise ValueError(
            "--users: expected users whose histories can be split between sessions, got others: "
            "give fewer"
        )
    aside = folder.with_name(f".{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    given = partners({user: _pairs(part.train) for user, part in parts.items()})
    closed = closed_sessions(parts.values())
    permuted = _permuted(found, parts, given, closed)
    quiz.write([*permuted, *_others(histories, found, closed)], aside)
    aside.rename(folder)
    return given


def _permuted(
    found: Mapping[str, History],
    parts: Mapping[str, Split],
    given: Mapping[str, str],
    closed: Set[str],
) -> Iterator[Quiz]:
    for user, part in parts.items():
        train = _open(parts[given[user]].train, closed)
        room = _pairs(train)
        validation = _oldest(part.validation, room // 3)
        test = _oldest(part.test, room - room // 3)
        named = ((train, TRAINING), (validation, VALIDATION), (test, TEST))
        items = [replace(item, session=name) for own, name in named for item in own]
        yield _quiz(user, items, found[given[user]].profile)


def _others(histories: Histories, compared: Collection[str], closed: Set[str]) -> Iterator[Quiz]:
    for user in histories.user_ids:
        if user not in compared:
            history = histories.load(user)
            items = [replace(i, session=None) for i in _open(history.interactions, closed)]
            yield _quiz(user, items, history.profile)


def _open(items: Sequence[Interaction], closed: Set[str]) -> list[Interaction]:
    return [item for item in items if item.session not in closed]


def _quiz(user: str, items: Sequence[Interaction], profile: str | None) -> Quiz:
    told = [replace(item, user_id=user, time=float(place)) for place, item in enumerate(items)]
    return Quiz(user, tuple(told), (), profile)


def _pairs(items: Sequence[Interaction]) -> int:
    return sum(item.query is not None for item in items)


def _oldest(items: Sequence[Interaction], pairs: int) -> Sequence[Interaction]:
    """The first interactions with so many pairs among them."""
    if _pairs(items) <= pairs:
        return items
    places = [place for place, item in enumerate(items) if item.query is not None]
    return items[: places[pairs]]
