"""How many bytes a piece of work holds at most, on top of what lay on the device before it.

A GPU's allocator keeps that count. On a CPU nobody does, so every tensor that an operation of torch
makes is counted from then until nobody holds it any more; what a kernel takes for itself while it
runs is not seen there.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass
class Peak:
    """The most bytes held at once; known when the context is left."""

    bytes: int = 0


@contextmanager
def peak(device: torch.device) -> Iterator[Peak]:
    """Counts what is held inside."""
    found = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield found
        found.bytes = torch.cuda.max_memory_allocated(device) - before
    else:
        with _Allocations() as allocations:
            yield found
        found.bytes = allocations.most


class _Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the storages that operations made and that are still held."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = 0
        self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        for value in tree_leaves((args, named)):
            self._see(value, is_new=False)  # or a view of a weight would be taken for a new tensor
        results = func(*args, **named)
        for value in tree_leaves(results):
            self._see(value, is_new=True)
        return results

    def _see(self, value: object, is_new: bool) -> None:
        if not isinstance(value, Tensor):
            return
        storage = value.untyped_storage()
        key = storage._cdata
        if key not in self._known:
            size = storage.nbytes() if is_new else 0
            self._known.add(key)
            self.held += size
            self.most = max(self.most, self.held)
            weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.held -= size
