"""What is made of a user state once and used for every request: an index, a decoded text.

Requests come on several threads; each state's is made once, whoever asks first, and goes with the
state.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from torch import nn

from models.base import Base
from models.personalizer import UserState

T = TypeVar("T")


class Kept(Generic[T]):
    """One made thing for each state on a base."""

    def __init__(self, make: Callable[[Base, UserState], T]) -> None:
        self._make = make
        self._places: WeakKeyDictionary[UserState, _Place[T]] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def of(self, base: Base, state: UserState) -> T:
        """What was made of a state, for this base; others' states aren't waited for."""
        with self._lock:
            place = self._places.setdefault(state, _Place())
        with place.lock:
            if place.made is None or place.made[0] is not base.model:
                place.made = (base.model, self._make(base, state))
            return place.made[1]


class _Place(Generic[T]):
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.made: tuple[nn.Module, T] | None = None
