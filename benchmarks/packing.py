"""What packing brings on a device: K memories in one trainer against PEFT, one at a time.

Random bases of 1B and 7B shape, made-up users of 30 to 200 short items, configurations drawn from
the search space; no Ray, no download. Both sides train the same rows in as many steps (no stage
ends early) and answer the same questions, in one process, on one base; PEFT goes first. A trial is
training, validation after every epoch, and scoring; training and scoring are also given apart.

Beside each ratio stands its bound: how many times PEFT's trials the device could do if it did
nothing but the useful products (`useful_work.py`), at the matrix peak measured in the same run.
Every gain has its ablation row: the largest pack with one switch turned the other way.

    python -m benchmarks.packing --device cuda --base-shape 1b 7b --out packing.json
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks import short_users
from benchmarks.device import matrix_peak, name_of
from benchmarks.packed_trials import Trials, packed
from benchmarks.packing_figures import Figures, gain, held, rates, times
from benchmarks.packing_setup import Setup
from benchmarks.plain_ways import ANYWHERE, ON_A_GPU, Measure, replaced
from benchmarks.shapes import SHAPES
from benchmarks.single_trials import single
from models.base import Base
from models.cost import Costs
from models.recomputation import recomputed

LIBRARIES = ("torch", "transformers", "peft")
ROUNDS = 2  # packs' worth of trials at least, so that places are refilled


@dataclass(frozen=True)
class Switch:
    """How a pack runs: the base's dtype, its layers, what share of a pack is scored together.

    `without` is a measure that is taken away.
    """

    dtype: str | None = None  # as given
    layers: Callable[[Base], AbstractContextManager[None]] = lambda base: nullcontext()
    gathered_share: float = 0.25
    without: Measure | None = None


DEFAULT = Switch()
ABLATIONS = {
    "float32": Switch(dtype="float32"),
    "layers-recomputed": Switch(layers=recomputed),
    "scored-as-each-ends": Switch(gathered_share=0.0),
    **{name: Switch(without=measure) for name, measure in {**ON_A_GPU, **ANYWHERE}.items()},
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _parser()
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device: expected a GPU that torch can use, got none; --device cpu runs too")
    peak = matrix_peak(device, getattr(torch, given.dtype))
    bases: list[dict[str, Any]] = []
    found = {
        "device": name_of(device),
        "dtype": given.dtype,
        "matrix_peak_tflops": peak / 1e12,
        **{name: version(name) for name in LIBRARIES},
        "bases": bases,
    }
    for family in given.family:
        for size in given.base_shape:
            bases.append({"family": family, "shape": size})
            for figures in _measured(given, family, size, peak):
                bases[-1].update(figures)
                if given.out is not None:  # what is known so far outlives an interruption
                    given.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(json.dumps(found, indent=1))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--family", nargs="+", choices=SHAPES, default=["llama"])
    parser.add_argument("--base-shape", nargs="+", choices=SHAPES["llama"], default=["1b", "7b"])
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--memories", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--ablation", nargs="*", choices=ABLATIONS, default=[*ABLATIONS])
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--trials", type=int, default=16, help="different; PEFT does each once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    return parser


def _measured(
    given: argparse.Namespace, family: str, size: str, peak: float
) -> Iterator[dict[str, Any]]:
    """Figures of one base as they come: PEFT, packs of every size, the largest with a switch."""
    setup = _setup(given, family, size, given.dtype)
    peft = _alone(setup, peak)
    yield {
        "weights": sum(p.numel() for p in setup.base.model.parameters()),
        "trained_tokens_per_trial": statistics.fmean(w.trained_tokens for w in setup.work),
        "peft": peft,
    }
    costs, packs, turned = Costs.measure(setup.base), [], []
    for memories in sorted(given.memories):
        trials = _packed(setup, memories, DEFAULT)
        ours = rates(setup, trials, peak)
        packs.append(ours | times(peft, ours) | held(setup, trials, costs))
        yield {"packed": packs}
    for name in given.ablation:
        switch, changed = ABLATIONS[name], setup
        if switch.dtype is not None:
            changed = _setup(given, family, size, switch.dtype)
        row = rates(changed, _packed(changed, max(given.memories), switch), peak)
        turned.append({"switch": name, "default_times_this": gain(packs[-1], row), **row})
        yield {"ablation": turned}


def _alone(setup: Setup, peak: float) -> Figures:
    trials, patience = setup.workload.trials, short_users.BUDGET.patience_epochs
    single(setup.base, setup.workload, trials[:1], patience)  # a device's first use takes longer
    done = single(setup.base, setup.workload, trials, patience)
    bytes_held = {"padded_tokens": done.padded_tokens, "peak_bytes": done.peak_bytes}
    return rates(setup, done, peak) | bytes_held


def _setup(given: argparse.Namespace, family: str, size: str, dtype: str) -> Setup:
    return Setup.of(family, size, given.device, dtype, given.users, given.trials, given.seed)


def _packed(setup: Setup, memories: int, switch: Switch) -> Trials:
    """Whole rounds of the different trials, in a pack of so many memories."""
    tasks = short_users.repeated(setup.tasks, ROUNDS * memories)
    gathered = max(1, math.ceil(switch.gathered_share * memories))
    taken = replaced(switch.without) if switch.without else nullcontext()
    with switch.layers(setup.base), taken:
        return packed(setup.base, setup.users, tasks, memories, gathered)


if __name__ == "__main__":
    main()
