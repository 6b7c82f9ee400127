"""Who said what, when: interactions, histories, their split in time, and all of them on disk.

The vocabulary of users' data, which every other part imports. It knows no file format (`readers`),
no checks (`lines`), no bytes on disk (`archive`), no arithmetic of cuts (`splitting`) and no model.

    Interaction   one dated (query, response), or a post: a response alone
    History       all of a user's interactions in time order, and a profile
    Split         a history in three parts: training, validation, test, about 70/10/20
    Histories     all users', sorted on disk; one is read at a time

User ids are data: they may hold anything but blanks alone, and are never a path or a name. Where a
name is needed, `user_digest` gives one.
"""

from __future__ import annotations

import hashlib
import hmac
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from models import archive, readers, sorting, splitting
from models.archive import Archive
from models.lines import DataError, Line, check, shown

__all__ = [
    "DataError",
    "Fact",
    "Histories",
    "History",
    "Interaction",
    "Split",
    "TooShort",
    "UserSaid",
    "split",
    "user_digest",
    "user_texts",
]

UserSaid = Literal["response", "query", "both"]
"""Which text of a pair is the user's own."""


class TooShort(ValueError):  # noqa: N818
    """A history that can't be split in three."""


@dataclass(frozen=True)
class Fact:
    """What an interaction's query asks for, where that is known.

    `kind` is "asked" (training asks for it too), "unasked" or "inferred". A guess among `choices`
    values is right with chance 1 / choices.
    """

    value: str
    kind: str
    choices: int


@dataclass(frozen=True)
class Interaction:
    """One dated query and response. Without a query it is a post: the user's own words.

    `choices` are the answers that the query may have, the response among them. What is `held_out`
    belongs to the test part.
    """

    user_id: str
    time: str | float
    query: str | None
    response: str
    session: str | None = None
    fact: Fact | None = None
    choices: tuple[str, ...] | None = None
    held_out: bool = False


@dataclass(frozen=True)
class History:
    """All of a user's interactions in time order."""

    user_id: str
    interactions: tuple[Interaction, ...]
    profile: str | None = None


@dataclass(frozen=True)
class Split:
    """A history cut in time; `by_session`: no session is shared by two parts."""

    train: tuple[Interaction, ...]
    validation: tuple[Interaction, ...]
    test: tuple[Interaction, ...]
    by_session: bool


def split(history: History) -> Split:
    """A history in three parts, by time: between sessions where that is possible.

    At least half of the pairs are for training, 3 for validation and 4 for test; within that, the
    parts lie as near to 70/10/20 as can be. Where something is held out, that is the test part, and
    what is before it is cut into training and validation at about 7 to 1.

    Raises:
        TooShort: fewer pairs than make three parts.
        DataError: what is held out is not the history's end.
    """
    items = history.interactions
    sessions, has_query = [i.session for i in items], [i.query is not None for i in items]
    held_out = _held_out_from(history)
    found = splitting.cuts(sessions, has_query, held_out)
    if found is None and held_out is not None:
        raise TooShort(
            f"user {shown(history.user_id)}: expected 6 or more interactions with a query before "
            f"those held out, and one of those, got {sum(has_query[:held_out])} and "
            f"{sum(has_query[held_out:])}; leave the user out"
        )
    if found is None:
        pairs = sum(has_query)
        raise TooShort(
            f"user {shown(history.user_id)}: expected 14 or more interactions with a query to "
            f"split, got {pairs}; leave the user out"
        )
    first, second, by_session = found
    return Split(items[:first], items[first:second], items[second:], by_session)


def _held_out_from(history: History) -> int | None:
    """The place from which on everything is held out; None where nothing is."""
    held_out = [i.held_out for i in history.interactions]
    if not any(held_out):
        return None
    first = held_out.index(True)
    if not all(held_out[first:]):
        raise DataError(
            f"user {shown(history.user_id)}: expected 'held_out' on the last interactions, got one "
            "that others follow in time; hold those out too, or none"
        )
    return first


def user_texts(interactions: Iterable[Interaction], user_said: UserSaid) -> list[str]:
    """The user's own words in order: posts, and of pairs the side that the user said."""
    texts: list[str] = []
    for interaction in interactions:
        if interaction.query is not None and user_said in ("query", "both"):
            texts.append(interaction.query)
        if interaction.query is None or user_said in ("response", "both"):
            texts.append(interaction.response)
    return texts


def user_digest(key: bytes, user_id: str) -> str:
    """A user's name where the id must not stand: 16 hexadecimal digits, keyed per run."""
    return hmac.new(key, user_id.encode(), hashlib.sha256).hexdigest()[:16]


class Histories:
    """All users' histories in a folder on disk, memory-mapped: a user is read when asked for.

    Attributes:
        user_ids: in code point order.
        pair_counts: each user's number of interactions with a query.
        counts: what the data lost when it was read: `junk_turns`, `blank_queries` and such.
        digest: SHA-256 of the content, the same for the same interactions and profiles.
    """

    def __init__(self, folder: Path, content: Archive) -> None:
        self.folder = folder
        self._content = content
        self.user_ids: tuple[str, ...] = tuple(content.users["user_id"].to_pylist())
        pairs = content.users["pairs"].to_pylist()
        self.pair_counts: Mapping[str, int] = MappingProxyType(
            dict(zip(self.user_ids, pairs, strict=True))
        )
        self.counts: Mapping[str, int] = MappingProxyType(dict(content.counts))
        self.digest = content.digest

    @classmethod
    def read(
        cls, source: str | Path, folder: Path, lost: Mapping[str, int] = MappingProxyType({})
    ) -> Histories:
        """Check all of a source, write it sorted to a folder, and open that.

        Args:
            source: a file, a folder, or the name of a data set (see `readers`).
            folder: made private to its owner; what it held is replaced at the end.
            lost: counts of what the data lost on its way to this source.

        Raises:
            DataError: a bad line, with its file and number; damaged or empty data.
            OSError: missing or unreadable. In either case the folder stays as it was.
        """
        found = readers.find(source)
        counts: Counter[str] = Counter(lost)
        with archive.scratch(folder) as aside:
            profiles = readers.profiles(found)
            lines = check(readers.records(found, counts, aside), counts)
            ordered = sorting.in_order(lines, aside)
            first = next(ordered, None)
            if first is None:
                raise DataError(f"{source}: expected interactions, found none; add some")
            archive.write(chain([first], ordered), profiles, counts, folder, aside)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> Histories:
        """Histories that `read` wrote.

        Raises:
            FileNotFoundError: none there.
            DataError: damaged.
        """
        return cls(folder, Archive.open(folder))

    def __len__(self) -> int:
        """Number of interactions."""
        return len(self._content)

    def load(self, user_id: str) -> History:
        """One user's history; nobody else's text is read.

        Raises:
            KeyError: unknown user.
        """
        row = self._row(user_id)
        start, count, profile = (
            self._content.users[name][row].as_py() for name in ("start", "lines", "profile")
        )
        lines = self._content.slice(start, count)
        return History(user_id, tuple(map(_interaction, lines)), profile)

    def forget(self, *user_ids: str) -> Histories:
        """The histories without some users, rewritten on disk at once, opened anew.

        Killed at any moment it leaves the old content or the new; call it again then.

        Raises:
            KeyError: unknown user; leftovers of a killed call are removed all the same.
        """
        archive.clean(self.folder)
        for user_id in user_ids:
            self._row(user_id)
        content, gone = self._content, frozenset(user_ids)
        kept = (line for line in content.stream() if line.user_id not in gone)
        profiles = dict(zip(self.user_ids, content.users["profile"].to_pylist(), strict=True))
        known = {user: profile for user, profile in profiles.items() if profile is not None}
        with archive.scratch(self.folder) as aside:
            archive.write(kept, known, self.counts, self.folder, aside)
        return Histories.open(self.folder)

    def _row(self, user_id: str) -> int:
        row = bisect_left(self.user_ids, user_id)
        if row == len(self.user_ids) or self.user_ids[row] != user_id:
            raise KeyError(f"expected a user of these histories, got {shown(user_id)}")
        return row


def _interaction(line: Line) -> Interaction:
    fact = None
    if line.fact_value and line.fact_kind and line.fact_choices:
        fact = Fact(line.fact_value, line.fact_kind, line.fact_choices)
    choices = None if line.choices is None else tuple(line.choices)
    return Interaction(
        line.user_id,
        line.time,
        line.query,
        line.response,
        line.session,
        fact,
        choices,
        held_out=line.held_out is True,
    )
