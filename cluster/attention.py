"""Which slots of a user's state attend to which items of the user's history.

It is kept with the outcome of a final unit, as numbers alone: an item is known by its place in the
training part. Words join them on the page, which quotes users only where that is wanted.

Notation: N slots, n items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from models.base import Base
from models.history import Interaction
from models.personalizer import UserState

NEWEST = 40  # items of a training part

Shares = list[list[float]]
"""`[n][N]`: of each item in time order, every slot's share of the attention."""


@runtime_checkable
class ReadsSlots(Protocol):
    """A method whose states are slots that queries attend to."""

    def masses(self, base: Base, state: UserState, items: Sequence[Interaction]) -> Tensor:
        """`[N, n]`: each slot's share of the attention when item i is asked about."""


def newest(train: Sequence[Interaction]) -> Sequence[Interaction]:
    """The items that are asked about."""
    return train[-NEWEST:]


def attention_of(
    method: ReadsSlots, base: Base, state: UserState, train: Sequence[Interaction]
) -> Shares:
    """The shares of a state's slots over the newest items of its user's training part."""
    masses_Nn = method.masses(base, state, newest(train))
    return [[round(share, 6) for share in item] for item in masses_Nn.T.tolist()]
