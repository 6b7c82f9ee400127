"""What a row of a batch runs under, whatever method made it: the one way from a state to a pass.

A method turns each user's state into `Parts`; `running` puts the parts of all rows on the base at
once. So rows of different methods share a batch, and who runs the base knows no method.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from models.attended import Attended, Attending
from models.bank import Bank, Memory
from models.base import Base
from models.soft import SoftTokens

_locks: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_making = threading.Lock()


@dataclass(frozen=True, eq=False)
class Parts:
    """What a row runs under, each part where it is not None.

    A LoRA; the vectors `[K, D]` of the soft tokens that the row begins with; and what its hidden
    states attend to.
    """

    memory: Memory | None = None
    soft: Tensor | None = None
    attended: Attended | None = None


@contextmanager
def running(base: Base, parts: Sequence[Parts]) -> Iterator[None]:
    """Inside, row i of every batch runs under `parts[i]`; other threads wait for the base."""
    with ExitStack() as stack:
        stack.enter_context(alone(base))
        if any(part.memory for part in parts):
            stack.enter_context(Bank.of(base).rows([part.memory for part in parts]))
        if any(part.soft is not None for part in parts):
            stack.enter_context(SoftTokens.of(base).rows([part.soft for part in parts]))
        if any(part.attended for part in parts):
            stack.enter_context(Attending.of(base).rows([part.attended for part in parts]))
        yield


@contextmanager
def alone(base: Base) -> Iterator[None]:
    """Inside, no other thread runs the base: what is attached to it counts for all threads."""
    with _making:
        lock = _locks.setdefault(base.model, threading.RLock())
    with lock:
        yield
