"""The trainer's measures, each with the plain way that stands in its place when it is taken away.

Left out, since it can't be switched inside a process: how memory is given back to the system.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models import bank, cache, decoding, head, lowrank, pointwise, trainer
from models.base import Base
from models.prompt import Row


@dataclass(frozen=True)
class Measure:
    """What a row says is missing; whose attribute is replaced, and by what."""

    missing: str
    owner: Any
    attribute: str
    plain: Any


@contextmanager
def replaced(measure: Measure) -> Iterator[None]:
    """Inside, the plain way stands in the place of the measure's own."""
    own = getattr(measure.owner, measure.attribute)
    setattr(measure.owner, measure.attribute, measure.plain)
    try:
        yield
    finally:
        setattr(measure.owner, measure.attribute, own)


def in_order(rows: Sequence[Row], padded_tokens: int, device: torch.device) -> list[list[int]]:
    """As many rows at once as fit, in the order in which they come."""
    cut: list[list[int]] = []
    for i in range(len(rows)):
        last = cut[-1] if cut else []
        widest = max(len(rows[j].tokens) for j in (*last, i))
        if not last or widest * (len(last) + 1) > padded_tokens:
            cut.append([i])
        else:
            last.append(i)
    return cut


def _together(members: Sequence[object], *_others: object) -> list[list[int]]:
    return [list(range(len(members)))]


def _through_all(hidden: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Hidden states whose backward goes down to the embeddings."""

    def ask(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        output.requires_grad_(torch.is_grad_enabled())

    def traced(base: Base, *tokens: Tensor, **more: Any) -> Tensor:
        handle = base.model.get_input_embeddings().register_forward_hook(ask)
        try:
            return hidden(base, *tokens, **more)
        finally:
            handle.remove()

    return traced


def _norm(module: Any, hidden: Tensor) -> Tensor:
    """As transformers writes it."""
    wide = hidden.float()
    mean_square = wide.pow(2).mean(-1, keepdim=True)
    normal = (wide * torch.rsqrt(mean_square + module.variance_epsilon)).to(hidden.dtype)
    return torch.mul(module.weight, normal)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """As transformers writes it, where all features turn."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


# Where rows are padded; on a CPU they lie behind one another.
ON_A_GPU = {
    "rows-as-they-come": Measure("batches of like length", trainer, "batches", in_order),
}
# On every device.
ANYWHERE = {
    "backward-together": Measure(
        "backwards apart by lowest layer", trainer, "by_lowest_layer", _together
    ),
    "backward-to-the-bottom": Measure(
        "end of a backward at the lowest layer", Base, "_hidden", _through_all(Base._hidden)
    ),
    "each-memory-multiplied-alone": Measure(
        "products of like memories together", bank, "LIKE_COUNTS", math.inf
    ),
    "prompts-read-at-once": Measure(
        "prompts read by like length", decoding, "_of_like_length", _together
    ),
    "cache-copied-for-each-token": Measure("a cache that grows in place", cache, "SPARE", 1),
}
# What a GPU does otherwise, or has no memory to do without.
ON_A_CPU = (
    Measure("rows behind one another", Base, "longest_behind", 0),
    Measure("products apart by memory", lowrank, "MANY", sys.maxsize),
    Measure("norms with a backward of their own", pointwise.FrozenNorm, "forward", _norm),
    Measure("rotations with a backward of their own", pointwise, "turned", _turned),
    Measure("the head a chunk at a time", head, "CHUNK_BYTES", {"cpu": 1 << 60}),
)
