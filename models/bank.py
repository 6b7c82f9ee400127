"""Many LoRA memories side by side on one frozen base: each row of a batch runs under its own.

The bank hooks every feed-forward matrix of the base once. Inside `rows(...)`, row i of any batch
gets `W x + B A x` with the A and B of its own memory (MiLP, equation 1: no scaling), or `W x`.
Training, validation and serving run this same code. Rows of memories with the same rank and as
many rows each are one batched product; nothing is padded, so what a memory computes does not
depend on its neighbours beyond floating-point summation order.

Since the base needs no gradients, autograd builds no graph below a pack's lowest adapted layer.

Notation: B rows, T tokens, I and O features in and out, R rank, N memories of a group, K rows each.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from models.base import Base
from models.personalizer import UserState
from search.space import MemoryConfig

Pair = tuple[Tensor, Tensor]  # A [R, I], B [O, R]


@dataclass(frozen=True, eq=False)
class Memory:
    """The LoRA weights of one user: full module name -> (A, B), all of one rank."""

    rank: int
    pairs: Mapping[str, Pair]

    @classmethod
    def initialise(cls, base: Base, configuration: MemoryConfig, seed: int) -> Memory:
        """A fresh memory: A Kaiming-uniform as in PEFT, B zero; float32 (float64 on such a base).

        Drawn on the CPU from its own generator, so that it is the same on every device.
        """
        generator = torch.Generator().manual_seed(seed)
        kind = torch.promote_types(base.dtype, torch.float32)
        pairs = {}
        for layer in configuration.layers:
            for name, (features_in, features_out) in base.matrix_shapes(layer).items():
                a_RI = torch.empty(configuration.rank, features_in, dtype=kind)
                nn.init.kaiming_uniform_(a_RI, a=math.sqrt(5), generator=generator)
                b_OR = torch.zeros(features_out, configuration.rank, dtype=kind)
                pairs[name] = (
                    a_RI.to(base.device).requires_grad_(),
                    b_OR.to(base.device).requires_grad_(),
                )
        return cls(configuration.rank, pairs)

    @classmethod
    def from_state(cls, base: Base, state: UserState) -> Memory:
        """A trained memory, on the base's device.

        Raises:
            ValueError: a tensor has no place on this base, or a wrong shape.
        """
        shapes = {n: s for i in range(base.layer_count) for n, s in base.matrix_shapes(i).items()}
        names = {name.rsplit(".lora_", 1)[0] for name in state.tensors}
        pairs, ranks = {}, set()
        for name in sorted(names):
            a_RI = state.tensors.get(f"{name}.lora_A.weight")
            b_OR = state.tensors.get(f"{name}.lora_B.weight")
            if name not in shapes or a_RI is None or b_OR is None:
                raise ValueError(
                    f"expected a LoRA pair of a feed-forward matrix, got {name[:80]!r}"
                )
            expected = shapes[name]
            if (a_RI.shape[1], b_OR.shape[0]) != expected or a_RI.shape[0] != b_OR.shape[1]:
                got = f"A {tuple(a_RI.shape)}, B {tuple(b_OR.shape)}"
                raise ValueError(
                    f"expected {name} to map {expected[0]} to {expected[1]}, got {got}"
                )
            ranks.add(a_RI.shape[0])
            pairs[name] = (a_RI.to(base.device), b_OR.to(base.device))
        if len(ranks) != 1:
            raise ValueError(
                f"expected one rank over all matrices of a memory, got {sorted(ranks)}"
            )
        return cls(ranks.pop(), pairs)

    def parameters(self) -> list[Tensor]:
        """A and B of every matrix, in a stable order."""
        return [tensor for pair in self.pairs.values() for tensor in pair]

    def tensors(self) -> dict[str, Tensor]:
        """Detached copies on the CPU under a user state's names."""
        return {
            f"{name}.lora_{letter}.weight": tensor.detach().cpu().clone()
            for name, pair in self.pairs.items()
            for letter, tensor in zip("AB", pair, strict=True)
        }


@dataclass(frozen=True)
class _Product:
    """One batched product at one matrix: rows `[N*K]`, and the pairs of their N memories."""

    rows: Tensor
    everything: bool  # the rows are all rows of the batch, in order
    pairs: tuple[Pair, ...]

    def add(self, x_BTI: Tensor, y_BTO: Tensor) -> None:
        """Add B A x to the rows of y, in place: a linear layer's backward never reads y."""
        x = x_BTI if self.everything else x_BTI.index_select(0, self.rows)
        # One memory needs no copy; stacking several costs their weights once a step.
        if len(self.pairs) == 1:
            a_RI, b_OR = self.pairs[0]
            delta = (x.to(a_RI.dtype) @ a_RI.T) @ b_OR.T
        else:
            a_NRI = torch.stack([a for a, _ in self.pairs])
            b_NOR = torch.stack([b for _, b in self.pairs])
            x_NPI = x.to(a_NRI.dtype).reshape(len(self.pairs), -1, x.shape[-1])
            delta = torch.bmm(torch.bmm(x_NPI, a_NRI.mT), b_NOR.mT)
        y_BTO.index_add_(0, self.rows, delta.reshape(len(x), -1, y_BTO.shape[-1]).to(y_BTO.dtype))


class Bank:
    """The hooks of one base. Use `Bank.of(base)`: a base carries at most one bank."""

    _banks: ClassVar[WeakKeyDictionary[nn.Module, Bank]] = WeakKeyDictionary()

    def __init__(self, base: Base) -> None:
        self._device = base.device
        self._row_count = 0
        self._plan: dict[str, list[_Product]] = {}
        for layer in base.feed_forward:
            for name, module in layer.items():
                module.register_forward_hook(self._hook(name))

    @classmethod
    def of(cls, base: Base) -> Bank:
        """The bank of a base, hooked at first use."""
        if base.model not in cls._banks:
            cls._banks[base.model] = cls(base)
        return cls._banks[base.model]

    @contextmanager
    def rows(self, memories: Sequence[Memory | None]) -> Iterator[None]:
        """Inside, row i of every batch runs under `memories[i]`; None is the base alone.

        Raises:
            RuntimeError: already inside; one batch runs at a time.
        """
        if self._row_count:
            raise RuntimeError(
                "expected no rows attached to this base, got a nested use of the bank"
            )
        self._plan, self._row_count = _plan(memories, self._device), len(memories)
        try:
            yield
        finally:
            self._plan, self._row_count = {}, 0

    def _hook(self, name: str):  # type: ignore[no-untyped-def]
        def add_memories(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            products = self._plan.get(name)
            if not products:
                return
            # OPT flattens rows and tokens before its feed-forward layers.
            x_BTI = inputs[0].reshape(self._row_count, -1, inputs[0].shape[-1])
            y_BTO = output.view(self._row_count, -1, output.shape[-1])
            for product in products:
                product.add(x_BTI, y_BTO)

        return add_memories


def _plan(memories: Sequence[Memory | None], device: torch.device) -> dict[str, list[_Product]]:
    """For each matrix, the products that give every row its own memory."""
    rows_of: dict[Memory, list[int]] = defaultdict(list)
    for row, memory in enumerate(memories):
        if memory is not None:
            rows_of[memory].append(row)
    groups: dict[tuple[int, int, str], list[Memory]] = defaultdict(list)
    for memory, rows in rows_of.items():
        for name in memory.pairs:
            groups[memory.rank, len(rows), name].append(memory)
    plan: dict[str, list[_Product]] = defaultdict(list)
    tensors: dict[tuple[int, ...], Tensor] = {}
    for (_, _, name), members in groups.items():
        order = tuple(row for memory in members for row in rows_of[memory])
        if order not in tensors:
            tensors[order] = torch.tensor(order, device=device)
        everything = order == tuple(range(len(memories)))
        plan[name].append(
            _Product(tensors[order], everything, tuple(memory.pairs[name] for memory in members))
        )
    return plan
