"""Bytes that a pack in training holds, beside what it can't do without; on any device, no Ray.

A random base of a real model's shape, made-up users and random configurations, all memories in the
first steps of one trainer. Beside the peak stand its parts: the base; every memory's weights,
gradients and AdamW's two moments, in float32; and the activations of a batch, counted where
autograd keeps them for the backward pass (the largest batch's; weights are not counted again).
On a CPU the peak is counted tensor by tensor; beside it stands the growth of the whole process, in
which is what libraries take for themselves, too.

    python -m benchmarks.pack_bytes [--device cpu] [--base-shape 1b] [--memories 64]
"""

from __future__ import annotations

import argparse
import json
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil  # type: ignore[import-untyped]
import torch
from torch import Tensor

from benchmarks.device import name_of
from benchmarks.packing_figures import LEAN_BYTES
from benchmarks.packing_setup import Setup
from benchmarks.shapes import SHAPES
from models.base import Base
from models.milp import Milp, lora_of
from models.peak import peak


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    setup = Setup.of(
        given.family, given.base_shape, given.device, given.dtype, given.users, given.memories,
        given.seed,
    )  # fmt: skip
    print(json.dumps(measured(setup, given.steps), indent=1))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--family", choices=SHAPES, default="llama")
    parser.add_argument("--base-shape", choices=SHAPES["llama"], default="1b")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--memories", type=int, default=64)
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3, help="2 are an epoch, which keeps weights")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def measured(setup: Setup, steps: int) -> dict[str, float | int | str | None]:
    """All memories of a setup in so many steps of one trainer.

    Raises:
        RuntimeError: fewer train than were given, or one ended.
    """
    base = setup.base
    per_rank = base.per_rank
    weights = sum(lora_of(task).parameter_count(per_rank) for task in setup.tasks)
    of_base = [*base.model.parameters(), *base.model.buffers()]
    kept = Kept({t.untyped_storage()._cdata for t in of_base})
    before = psutil.Process().memory_info().rss
    with peak(base.device) as found:
        fitting = Milp().start(base)
        for task in setup.tasks:
            fitting.add(task)
        with kept.counted(base):
            for _ in range(steps):
                ended = fitting.step()[1]
                if ended or fitting.running != len(setup.tasks):
                    raise RuntimeError(f"expected all memories in training, got {ended}")
    base_bytes = sum(t.nbytes for t in of_base)
    lean = base_bytes + LEAN_BYTES * weights + kept.most
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    on_cpu = base.device.type == "cpu"
    return {
        "device": name_of(base.device),
        "base": base.name,
        "dtype": str(base.dtype).removeprefix("torch."),
        "memories": len(setup.tasks),
        "weights": weights,
        "steps": steps,
        "largest_batch_tokens": kept.tokens,
        "base_bytes": base_bytes,
        "memory_bytes": LEAN_BYTES * weights,
        "activation_bytes": kept.most,
        "peak_bytes": base_bytes + found.bytes,
        "peak_over_lean": (base_bytes + found.bytes) / lean,
        "process_bytes": base_bytes + grown if on_cpu else None,
        "process_over_lean": (base_bytes + grown) / lean if on_cpu else None,
    }


@dataclass
class Kept:
    """What autograd keeps of a batch, weights left out; the most, and the most tokens.

    `known` are the storages of the base's.
    """

    known: set[int]
    most: int = 0
    tokens: int = 0
    _now: dict[int, int] = field(default_factory=dict)

    @contextmanager
    def counted(self, base: Base) -> Iterator[None]:
        """Inside, every batch with gradients is counted."""
        hook = base.model.base_model.register_forward_pre_hook(self._begin, with_kwargs=True)
        try:
            with torch.autograd.graph.saved_tensors_hooks(self.see, lambda tensor: tensor):
                yield
        finally:
            hook.remove()

    def _begin(self, _module: object, _inputs: object, named: dict[str, Tensor]) -> None:
        self._now.clear()
        if torch.is_grad_enabled():
            self.tokens = max(self.tokens, named["input_ids"].numel())

    def see(self, tensor: Tensor) -> Tensor:
        """Counts what is kept, as it is."""
        storage = tensor.untyped_storage()
        whole = tensor if tensor._base is None else tensor._base
        is_memory = whole.is_leaf and whole.requires_grad
        if not is_memory and storage._cdata not in self.known:
            self._now[storage._cdata] = storage.nbytes()
            self.most = max(self.most, sum(self._now.values()))
        return tensor


if __name__ == "__main__":
    main()
