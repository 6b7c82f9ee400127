"""What keeping the frozen base's activations would save at most.

The base's hidden states up to a memory's lowest adapted layer depend on the text alone, so they
could be kept across epochs and trials. A cache can save no more than the time of computing them:
this measures that time as a share of training steps, memory by memory, for the configurations of a
run's studies (as searched) or for random ones.

    python -m benchmarks.frozen_share --base BASE [--run RUN] [--tokens 64] [--rows 8]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models.bank import Bank, Memory
from models.base import Base
from models.loss import row_nll
from models.prompt import Row
from search.census import study_names
from search.space import MemoryConfig, SearchSpace
from search.storage import open_storage, sqlite_url
from search.study import Study


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", required=True)
    parser.add_argument("--run", type=Path, help="a run whose studies give the configurations")
    parser.add_argument("--tokens", type=int, default=64, help="in each row")
    parser.add_argument("--rows", type=int, default=8, help="of an optimiser step")
    parser.add_argument("--configurations", type=int, default=64)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    base = Base.load(given.base, "cpu")
    configurations = _searched(given.run) if given.run else _random(base)
    chosen = list(islice(configurations, given.configurations))
    rows = [Row(tuple(range(1, given.tokens + 1)), 1)] * given.rows
    spent = saved = 0.0
    for configuration in chosen:
        step, frozen = _seconds(base, rows, configuration)
        spent, saved = spent + step, saved + frozen
    print(
        f"{len(chosen)} configurations, {given.rows} rows of {given.tokens} tokens: the layers "
        f"below the lowest adapted one take {saved / spent:.1%} of a training step"
    )


def _searched(run: Path) -> Iterator[MemoryConfig]:
    storage = open_storage(sqlite_url(run / "studies.db"))
    for name in study_names(storage):
        for trial in Study(storage, name).trials:
            if trial.config.layers:
                yield trial.config


def _random(base: Base) -> Iterator[MemoryConfig]:
    space, _ = SearchSpace.for_base(base.layer_count, base.smallest_dimension)
    generator = np.random.default_rng(0)
    while True:
        yield space.sample(generator)


def _seconds(base: Base, rows: Sequence[Row], configuration: MemoryConfig) -> tuple[float, float]:
    """CPU seconds of a training step, and of its forward below the memory: the best of three."""
    return min(_step(base, rows, configuration) for _ in range(3))


def _step(base: Base, rows: Sequence[Row], configuration: MemoryConfig) -> tuple[float, float]:
    memory = Memory.initialise(base, configuration, 0)
    marks: list[float] = []

    def mark(_module: nn.Module, _inputs: object) -> None:
        marks.append(time.thread_time())

    edges = [base.layers[0], base.layers[configuration.layers[0]]]
    handles = [layer.register_forward_pre_hook(mark) for layer in edges]
    began = time.thread_time()
    with Bank.of(base).rows([memory] * len(rows)):
        torch.autograd.backward(row_nll(base, rows).sum())
    spent = time.thread_time() - began
    for handle in handles:
        handle.remove()
    return spent, marks[1] - marks[0]


if __name__ == "__main__":
    main()
