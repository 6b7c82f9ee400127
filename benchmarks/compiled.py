"""Whether `torch.compile` pays: a pack's training step with it, without it, and how long it takes.

What lies between matrix products is compiled, with lengths left open: norms, activations, rotary
embeddings. Whole layers can't be: a bank's hooks choose their products by the rows of each batch,
and torch 2.13 refuses to trace them. The same packs, in turns, so that both see the same machine;
processor time on a CPU, wall time on a GPU. Losses must come out equal, or it ends with an error.

    python -m benchmarks.compiled --base BASE [--device cpu] [--dtype float32] [--repeats 5]
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch._inductor.config

from benchmarks.plain_ways import Measure, replaced
from models.bank import Bank, Memory
from models.base import Base
from models.loss import row_nll
from models.prompt import Row
from search.space import SearchSpace

WIDTHS = (12, 16, 20, 24, 30, 40)  # tokens of a batch's rows, as in chat
MEMORIES, ROWS = 4, 8  # in a pack; of each memory
ROTARY = "apply_rotary_pos_emb"
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2}  # of the loss, relative


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    torch._inductor.config.force_disable_caches = True  # what is compiled is compiled now
    torch._inductor.config.compile_threads = 1  # others would outlive the clock
    plain = Base.load(given.base, given.device, given.dtype)
    compiled = Base.load(given.base, given.device, given.dtype)
    packs, batches = _memories(plain), [_rows(plain, width) for width in WIDTHS]
    began = _clock(plain)
    with between_products(compiled):
        _pass(compiled, packs, batches)
    first = _clock(plain) - began
    _pass(plain, packs, batches)
    seconds: dict[str, list[float]] = {"plain": [], "compiled": []}
    for _ in range(given.repeats):
        took, loss = _timed(plain, packs, batches)
        seconds["plain"].append(took)
        with between_products(compiled):
            took, other = _timed(compiled, packs, batches)
        seconds["compiled"].append(took)
        if not math.isclose(loss, other, rel_tol=TOLERANCE[given.dtype]):
            sys.exit(f"expected equal losses, got {loss} and compiled {other}")
    without, within = (min(found) / len(WIDTHS) for found in seconds.values())
    saved = without - within
    pays = f"pays after {math.ceil(first / saved):,} steps" if saved > 0 else "never pays"
    print(
        f"{given.device}, {given.dtype}: a step takes {within / without:.2f} of its time, after "
        f"the time of {first / without:,.0f} steps to compile: {pays}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=TOLERANCE, default="float32")
    parser.add_argument("--repeats", type=int, default=5, help="of all lengths; the best counts")
    return parser


@contextmanager
def between_products(base: Base) -> Iterator[None]:
    """Inside, what holds no matrix runs compiled; modules stay so, the function is put back."""
    for module in base.model.modules():
        holds_matrix = any(parameter.dim() > 1 for parameter in module.parameters(recurse=False))
        is_compiled = module._compiled_call_impl is not None
        if not (holds_matrix or is_compiled or any(True for _ in module.children())):
            module.compile(dynamic=True)
    source: Any = sys.modules[type(base.model).__module__]
    if not hasattr(source, ROTARY):
        yield
        return
    rotary = torch.compile(getattr(source, ROTARY), dynamic=True)
    with replaced(Measure("eager rotary embeddings", source, ROTARY, rotary)):
        yield


def _memories(base: Base) -> list[Memory]:
    """A memory for each row of a batch, of random configurations."""
    space, _ = SearchSpace.for_base(base.layer_count, base.smallest_dimension)
    generator = np.random.default_rng(0)
    pack = [Memory.initialise(base, space.sample(generator), seed) for seed in range(MEMORIES)]
    return [memory for memory in pack for _ in range(ROWS)]


def _rows(base: Base, width: int) -> list[Row]:
    """Rows of one length, of random tokens."""
    known: int = base.model.config.vocab_size
    drawn = np.random.default_rng(width).integers(known, size=(MEMORIES * ROWS, width))
    return [Row(tuple(row), 1) for row in drawn.tolist()]


def _pass(base: Base, packs: Sequence[Memory], batches: Sequence[list[Row]]) -> float:
    """Forward and backward of every batch; the loss."""
    total = 0.0
    for rows in batches:
        with Bank.of(base).rows(packs):
            loss = row_nll(base, rows).sum()
            loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    return total


def _timed(
    base: Base, packs: Sequence[Memory], batches: Sequence[list[Row]]
) -> tuple[float, float]:
    began = _clock(base)
    loss = _pass(base, packs, batches)
    return _clock(base) - began, loss


def _clock(base: Base) -> float:
    if base.device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return sum(os.times()[:4])  # compilers are processes of their own


if __name__ == "__main__":
    main()
