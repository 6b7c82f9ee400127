"""Published states of many users, the recently used ones kept in memory.

What is published, replaced, withdrawn or forgotten in the registry counts from the next request
on: a user's pointer and manifest are read each time (two small files), the tensors only when their
digest is not the one kept. The least recently used states go first when their tensors and text
exceed a number of bytes; rows that still run keep theirs until they end.

It knows no HTTP and no keys. One user's state is never looked up for another.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass

from models.base import Base
from models.catalog import PERSONALIZERS
from models.personalizer import UserState
from models.registry import DamagedState, Registry, UnknownUser, WrongBase

_LOADERS = 16  # states of so many users may load at a time; the same user's never twice

log = logging.getLogger(__name__)


class UnusableError(ValueError):
    """A published state that is damaged, or made for another base."""


@dataclass(frozen=True)
class Served:
    """What a user is answered with; without a digest it is the base alone."""

    state: UserState | None = None
    digest: str | None = None


class Memories:
    """The states of a registry, for one base.

    Args:
        registry: where states are published.
        base: what they must have been made for.
        size_bytes: how much of their tensors and text may be kept.
    """

    def __init__(self, registry: Registry, base: Base, size_bytes: int) -> None:
        self._registry, self._base, self._limit = registry, base, size_bytes
        self._kept: OrderedDict[str, Served] = OrderedDict()
        self._lock = threading.Lock()
        self._loading = [threading.Lock() for _ in range(_LOADERS)]
        self.size_bytes = 0

    def __contains__(self, user_id: str) -> bool:
        """Whether a user can be asked for: who has a damaged pointer can't, as in `users`."""
        try:
            return user_id in self._registry
        except DamagedState as error:
            log.error("left out a damaged pointer: %s", error)
            return False

    def users(self) -> list[str]:
        """All users that can be asked for."""
        return self._registry.users()

    def kept(self) -> list[str]:
        """The users whose states are in memory, the least recently used first."""
        with self._lock:
            return list(self._kept)

    def get(self, user_id: str) -> Served:
        """What a user is answered with now. Blocks: it reads files.

        Raises:
            UnknownUser: nobody of that name is published.
            UnusableError: what is published can't be used.
        """
        try:
            digest = self._registry.current(user_id).digest
            return self._kept_state(user_id, digest) or self._load(user_id, digest)
        except UnknownUser:
            with self._lock:
                self._forget(user_id)  # what was taken back or forgotten
            raise
        except DamagedState as error:
            log.error("a published state is damaged: %s", error)  # names files, no user
            raise UnusableError("this user's memory is damaged on the server") from None
        except WrongBase:
            raise UnusableError("this user's memory was made for another base") from None

    def check(self, sample: int = 100) -> None:
        """Refuse a registry that was made for another base, by some of its users.

        A damaged state is its own user's trouble, when that user is asked for.

        Raises:
            WrongBase: states are of other bases, and none is of this one.
        """
        errors = []
        for user_id in self._registry.some_users(sample):
            try:
                return self._registry.current(user_id).check_base(self._base)
            except WrongBase as error:
                errors.append(error)
            except (DamagedState, UnknownUser):
                continue
        if errors:
            raise errors[0]

    def _kept_state(self, user_id: str, digest: str) -> Served | None:
        with self._lock:
            served = self._kept.get(user_id)
            if served is None or served.digest != digest:
                return None
            self._kept.move_to_end(user_id)
            return served

    def _load(self, user_id: str, digest: str) -> Served:
        with self._loading[hash(user_id) % _LOADERS]:
            served = self._kept_state(user_id, digest)
            while served is None:
                state = self._registry.load(user_id, self._base)
                current = self._registry.current(user_id).digest
                if current != digest:  # published anew in between: which of the two is it?
                    digest = current
                    continue
                if state is None:
                    return Served()
                if state.method not in PERSONALIZERS:
                    raise UnusableError("this user's memory is of a kind that is not known here")
                served = Served(state, digest)
                self._keep(user_id, served)
            return served

    def _keep(self, user_id: str, served: Served) -> None:
        with self._lock:
            self._forget(user_id)
            if _size_bytes(served) > self._limit:
                return
            self._kept[user_id] = served
            self.size_bytes += _size_bytes(served)
            while self.size_bytes > self._limit:
                self._forget(next(iter(self._kept)))

    def _forget(self, user_id: str) -> None:
        gone = self._kept.pop(user_id, None)
        if gone is not None:
            self.size_bytes -= _size_bytes(gone)


def _size_bytes(served: Served) -> int:
    if served.state is None:
        return 0
    tensors = served.state.tensors.values()
    of_tensors = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return of_tensors + sum(len(text.encode()) for text in served.state.text.values())
