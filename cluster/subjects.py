"""The users whose memories train on a device: found by their digests, read when first needed."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from cluster.folder import RunFolder
from models.base import Base
from models.history import (
    Histories,
    Interaction,
    Split,
    UserSaid,
    split,
    user_digest,
    user_texts,
)
from models.persona import Persona
from models.personalizer import UserState
from models.registry import Registry, UnknownUser
from models.scoring import answer_limit, evaluation_items

_KEPT = 256


@dataclass(frozen=True)
class Subject:
    """One user's training part, and what is scored of the validation part. No test part."""

    user_id: str
    digest: str
    train: tuple[Interaction, ...]
    validation: tuple[Interaction, ...]
    items: tuple[Interaction, ...]
    answer_tokens: int
    by_session: bool
    pairs: int
    profile: str | None

    def persona(self, user_said: UserSaid) -> Persona:
        """The user's own words of the training part."""
        return Persona.of(user_texts(self.train, user_said), self.profile)


class Subjects:
    """All users of a run, by digest, and what is published of them."""

    def __init__(self, folder: RunFolder, base: Base, items: int) -> None:
        """Opens the run's histories.

        Args:
            folder: the run's.
            base: counts how many tokens an answer may have.
            items: most validation items that are scored of a user.
        """
        self._histories = Histories.open(folder.data)
        key = folder.key()
        self._user_ids = {user_digest(key, user): user for user in self._histories.user_ids}
        self._base, self._items = base, items
        self._registry = Registry(folder.registry)
        self.of = lru_cache(_KEPT)(self._read)

    def user_id(self, digest: str) -> str:
        """Whose digest it is."""
        return self._user_ids[digest]

    def states(self, digests: Iterable[str]) -> dict[str, UserState | None]:
        """What is published of these users, without those whose memory was taken back."""
        found: dict[str, UserState | None] = {}
        for digest in digests:
            with suppress(UnknownUser):
                found[digest] = self._registry.load(self.user_id(digest), self._base)
        return found

    def _read(self, digest: str) -> Subject:
        history = self._histories.load(self.user_id(digest))
        parts: Split = split(history)
        return Subject(
            history.user_id,
            digest,
            parts.train,
            parts.validation,
            evaluation_items(parts.validation, self._items),
            answer_limit(self._base, parts.train),
            parts.by_session,
            self._histories.pair_counts[history.user_id],
            history.profile,
        )
