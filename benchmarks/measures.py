"""What each of the trainer's measures is worth: the same trials with one of them taken away.

The same users, configurations and seeds each time, in one process without Ray; short epochs, so
that all rows together take minutes. A measure is taken away by putting the plain way in the place
of the function or number that makes it. The first row, as it is, comes once more at the end: what
these two differ by is the machine's mood. Losses must come out equal, or it ends with an error.

Left out, since it can't be switched inside a process: how memory is given back to the system.

    python -m benchmarks.measures --data DATA --base BASE [--dtype float32] [--users 4]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import models.base
from benchmarks import pack_sizes
from cluster import workbench
from models import decoding, head, lowrank, products, trainer
from models.base import Base
from models.prompt import Row

TOLERANCE_NATS = {"float32": 1e-3, "bfloat16": 2e-2}
PACK = 4


@dataclass(frozen=True)
class Measure:
    """What a row says is missing; whose attribute is replaced, and by what; memories together."""

    missing: str
    owner: Any = None
    attribute: str = ""
    plain: Any = None
    memories: int = PACK


AS_IT_IS = Measure("nothing")


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    print("| missing | CPU-s/trial | train | score | times as dear | loss |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    first: dict[str, float] = {}
    for measure in (AS_IT_IS, *measures(given.dtype), AS_IT_IS):
        found = _without(measure, given)
        first = first or found
        print(
            f"| {measure.missing} | {found['cpu']:.2f} | {found['train']:.2f} | "
            f"{found['score']:.2f} | {found['cpu'] / first['cpu']:.2f} | {found['loss']:.6f} |",
            flush=True,
        )
        if not abs(found["loss"] - first["loss"]) <= TOLERANCE_NATS[given.dtype]:
            sys.exit(f"expected equal losses, got others without {measure.missing}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    pack_sizes.add_work(parser, trials=1, epoch_tokens=2048)
    parser.add_argument("--dtype", choices=TOLERANCE_NATS, default="float32")
    return parser


def measures(dtype: str) -> list[Measure]:
    """All that can be taken away in this precision."""
    found = [
        Measure("packing: one memory at a time", memories=1),
        Measure("batches of like length", trainer, "batches", in_order),
        Measure("backwards apart by lowest layer", trainer, "by_lowest_layer", _together),
        Measure("end of a backward at the lowest layer", Base, "hidden", _through_all(Base.hidden)),
        Measure("products apart by memory", lowrank, "LONG_ROW", sys.maxsize),
        Measure("the head a chunk at a time", head, "CHUNK_BYTES", {"cpu": 1 << 60}),
        Measure("answers of several trials together", workbench, "GATHERED_SHARE", 0.0),
        Measure("prompts read by like length", decoding, "_of_like_length", _together),
    ]
    if dtype == "bfloat16":
        found.append(Measure("own attention", models.base, "take_attention", lambda model: None))
    elif torch._C._has_mkldnn:
        pays = products.onednn_pays()
        name = "oneDNN's products" if pays else "torch's products: oneDNN's"
        found.append(Measure(name, products, "onednn_pays", lambda: not pays))
    return found


def in_order(rows: Sequence[Row], padded_tokens: int, device: torch.device) -> list[list[int]]:
    """As many rows at once as fit, in the order in which they come."""
    cut: list[list[int]] = [[]]
    for i in range(len(rows)):
        widest = max(len(rows[j].tokens) for j in (*cut[-1], i))
        if cut[-1] and widest * (len(cut[-1]) + 1) > padded_tokens:
            cut.append([])
        cut[-1].append(i)
    return cut


def _together(members: Sequence[object], *_others: object) -> list[list[int]]:
    return [list(range(len(members)))]


def _through_all(hidden: Callable[[Base, Tensor], Tensor]) -> Callable[[Base, Tensor], Tensor]:
    """Hidden states whose backward goes down to the embeddings."""

    def ask(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        output.requires_grad_(torch.is_grad_enabled())

    def traced(base: Base, tokens_BT: Tensor) -> Tensor:
        handle = base.model.get_input_embeddings().register_forward_hook(ask)
        try:
            return hidden(base, tokens_BT)
        finally:
            handle.remove()

    return traced


def _without(measure: Measure, given: argparse.Namespace) -> dict[str, float]:
    given.size = measure.memories
    with replaced(measure) if measure.owner else nullcontext():
        return pack_sizes.measured(given)


@contextmanager
def replaced(measure: Measure) -> Iterator[None]:
    """Inside, the plain way stands in the place of the measure's own."""
    own = getattr(measure.owner, measure.attribute)
    setattr(measure.owner, measure.attribute, measure.plain)
    try:
        yield
    finally:
        setattr(measure.owner, measure.attribute, own)


if __name__ == "__main__":
    main()
