"""What each of the trainer's measures is worth: the same trials with one of them taken away.

The same users, configurations and seeds each time, in one process without Ray; short epochs, so
that all rows together take minutes. A measure is taken away by putting the plain way in the place
of the function or number that makes it. The first row, as it is, comes once more at the end: what
these two differ by is the machine's mood. Losses must come out equal, or it ends with an error.

    python -m benchmarks.measures --data DATA --base BASE [--dtype float32] [--users 4]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext

import torch

from benchmarks import pack_sizes
from benchmarks.plain_ways import ANYWHERE, ON_A_CPU, Measure, replaced
from cluster import workbench
from models import attention, products

TOLERANCE_NATS = {"float32": 1e-3, "bfloat16": 2e-2}
PACK = 4


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    print("| missing | CPU-s/trial | train | score | times as dear | loss |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    first: dict[str, float] = {}
    for missing, memories, measure in rows(given.dtype):
        found = _without(measure, memories, given)
        first = first or found
        print(
            f"| {missing} | {found['cpu']:.2f} | {found['train']:.2f} | "
            f"{found['score']:.2f} | {found['cpu'] / first['cpu']:.2f} | {found['loss']:.6f} |",
            flush=True,
        )
        if not abs(found["loss"] - first["loss"]) <= TOLERANCE_NATS[given.dtype]:
            sys.exit(f"expected equal losses, got others without {missing}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    pack_sizes.add_work(parser, trials=1, epoch_tokens=2048)
    parser.add_argument("--dtype", choices=TOLERANCE_NATS, default="float32")
    return parser


def rows(dtype: str) -> list[tuple[str, int, Measure | None]]:
    """What is missing in each row of the table, memories in a pack, and what is taken away."""
    as_it_is = ("nothing", PACK, None)
    others = [(measure.missing, PACK, measure) for measure in measures(dtype)]
    return [as_it_is, ("packing: one memory at a time", 1, None), *others, as_it_is]


def measures(dtype: str) -> list[Measure]:
    """All that can be taken away in this precision."""
    answers = Measure("answers of several trials together", workbench, "GATHERED_SHARE", 0.0)
    found = [*ANYWHERE.values(), *ON_A_CPU, answers]
    if dtype == "bfloat16":
        found.append(Measure("short rows attended to in float32", attention, "LONGEST", 0))
        found.append(
            Measure("shapes that come again", products, "_room", lambda positions: positions)
        )
    elif torch._C._has_mkldnn:
        pays = products.onednn_pays()
        name = "oneDNN's products" if pays else "torch's products: oneDNN's"
        found.append(Measure(name, products, "onednn_pays", lambda: not pays))
    return found


def _without(measure: Measure | None, memories: int, given: argparse.Namespace) -> dict[str, float]:
    given.size = memories
    with replaced(measure) if measure else nullcontext():
        return pack_sizes.measured(given)


if __name__ == "__main__":
    main()
