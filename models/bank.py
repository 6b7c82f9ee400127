"""Many LoRA memories side by side on one frozen base: each row of a batch runs under its own.

The bank hooks every matrix of the base that may hold a memory once. Inside `rows(...)`, row i of
any batch gets `W x + B A x` with the A and B of its own memory (MiLP, equation 1: no scaling), or
`W x`. Training, validation and serving run this same code. Memories of one rank with like numbers
of rows share a batched product (`models/lowrank.py`); what a memory computes does not depend on its
neighbours beyond floating-point summation order.

Since the base needs no gradients, autograd builds no graph below a pack's lowest adapted layer.

Notation: I and O features in and out, R rank.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from models.base import Base
from models.lowrank import Product, add_products
from search.space import MemoryConfig

if TYPE_CHECKING:
    from models.personalizer import UserState

LIKE_COUNTS = 0.75  # of the most rows: memories with fewer get a product of their own

Pair = tuple[Tensor, Tensor]  # A [R, I], B [O, R]
Plan = dict[str, tuple[Sequence[Product], Sequence[Tensor]]]
"""For each matrix its products, and the weights that they take."""


@dataclass(frozen=True, eq=False)
class Memory:
    """The LoRA weights of one user: full module name -> (A, B), all of one rank."""

    rank: int
    pairs: Mapping[str, Pair]

    @classmethod
    def initialise(
        cls, base: Base, configuration: MemoryConfig, seed: int, on_attention: bool = False
    ) -> Memory:
        """A fresh memory: A Kaiming-uniform as in PEFT, B zero; float32 (float64 on such a base).

        Drawn on the CPU from its own generator, so that it is the same on every device. It lies on
        feed-forward matrices, or else on those of queries and values.

        Raises:
            ValueError: a rank above half of the smallest side of these matrices.
        """
        shapes = base.attention_shapes if on_attention else base.matrix_shapes
        _check_rank(configuration.rank, map(shapes, configuration.layers))
        generator = torch.Generator().manual_seed(seed)
        kind = torch.promote_types(base.dtype, torch.float32)
        pairs = {}
        for layer in configuration.layers:
            for name, (features_in, features_out) in shapes(layer).items():
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
        shapes = base.places
        names = {name.rsplit(".lora_", 1)[0] for name in state.tensors}
        pairs, ranks = {}, set()
        for name in sorted(names):
            a_RI = state.tensors.get(f"{name}.lora_A.weight")
            b_OR = state.tensors.get(f"{name}.lora_B.weight")
            if name not in shapes or a_RI is None or b_OR is None:
                raise ValueError(f"expected a LoRA pair of a matrix of the base, got {name[:80]!r}")
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


class Bank:
    """The hooks of one base. Use `Bank.of(base)`: a base carries at most one bank."""

    _banks: ClassVar[WeakKeyDictionary[nn.Module, Bank]] = WeakKeyDictionary()

    def __init__(self, base: Base) -> None:
        self._device = base.device
        self._row_count = 0
        self._plan: Plan = {}
        for layer in (*base.feed_forward, *base.attention):
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
        def add_memories(
            _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
        ) -> Tensor | None:
            if name not in self._plan:
                return None
            products, weights = self._plan[name]
            return add_products(output, inputs[0], self._row_count, products, weights)

        return add_memories


def _plan(memories: Sequence[Memory | None], device: torch.device) -> Plan:
    """For each matrix, the products that give every row its own memory."""
    rows_of: dict[Memory, list[int]] = defaultdict(list)
    for row, memory in enumerate(memories):
        if memory is not None:
            rows_of[memory].append(row)
    members: dict[str, list[Memory]] = defaultdict(list)
    for memory in sorted(rows_of, key=lambda memory: (memory.rank, -len(rows_of[memory]))):
        for name in memory.pairs:
            members[name].append(memory)
    made: dict[tuple[Memory, ...], list[tuple[Product, tuple[Memory, ...]]]] = {}
    plan: Plan = {}
    for name, present in members.items():
        key = tuple(present)
        if key not in made:  # most matrices carry the same memories
            made[key] = _products(present, rows_of, device)
        owners = [memory for _, group in made[key] for memory in group]
        weights = [tensor for memory in owners for tensor in memory.pairs[name]]
        plan[name] = ([product for product, _ in made[key]], weights)
    return plan


def _products(
    memories: Sequence[Memory],
    rows_of: Mapping[Memory, Sequence[int]],
    device: torch.device,
) -> list[tuple[Product, tuple[Memory, ...]]]:
    """Groups of one rank and of like row counts, from memories sorted by both, most rows first."""
    groups: list[list[Memory]] = []
    for memory in memories:
        first = groups[-1][0] if groups else memory
        like = len(rows_of[memory]) >= LIKE_COUNTS * len(rows_of[first])
        if groups and first.rank == memory.rank and like:
            groups[-1].append(memory)
        else:
            groups.append([memory])
    return [(_product([rows_of[m] for m in g], device), tuple(g)) for g in groups]


def _product(rows: Sequence[Sequence[int]], device: torch.device) -> Product:
    """One product of the rows of its memories; shorter lists are filled up with their first row."""
    width = len(rows[0])
    filled = [row for own in rows for row in (*own, *[own[0]] * (width - len(own)))]
    real = [width * i + j for i, own in enumerate(rows) for j in range(len(own))]
    together = filled == list(range(filled[0], filled[0] + len(filled)))
    return Product(
        slice(filled[0], filled[0] + len(filled))
        if together
        else torch.tensor(filled, device=device),
        None if len(real) == len(filled) else torch.tensor(real, device=device),
        len(rows),
        tuple(_product([own], device) for own in rows) if len(rows) > 1 else (),
    )


def _check_rank(rank: int, layers: Iterable[Mapping[str, tuple[int, int]]]) -> None:
    """Refuses a rank that the search space of these matrices leaves out.

    Args:
        rank: of a LoRA.
        layers: (features in, features out) of the matrices of each layer that it lies on.

    Raises:
        ValueError: it is above half of their smallest side.
    """
    smallest = min((min(shape) for layer in layers for shape in layer.values()), default=2 * rank)
    if 2 * rank > smallest:
        raise ValueError(
            f"expected a rank of at most {smallest // 2}, half of the smallest side of the base's "
            f"matrices that it is for, got {rank}: give a smaller rank, or leave the method out"
        )
