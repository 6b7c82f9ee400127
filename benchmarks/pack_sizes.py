"""How trials get cheaper, or not, as more memories train together: one workbench, no Ray.

The same trials in packs of 1, 2, 4, 8 and 16, refilled as memories end, as the packer does. Each
size runs in a process of its own, so that peak memory is its own.

    python -m benchmarks.pack_sizes --data DATA --base BASE [--dtype float32] [--users 4]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.packed_search import TimedWorkbench, experiment_of
from cluster.experiment import seed_of
from cluster.folder import RunFolder
from cluster.preparation import held, prepared
from cluster.workbench import BenchSettings
from search.space import MemoryConfig, SearchSpace

SIZES = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Waiting:
    """A trial that waits for its place."""

    name: str
    digest: str
    configuration: MemoryConfig
    seed: int


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    if given.size:
        print(json.dumps(measured(given)))
        return
    print("| pack | CPU-s/trial | wall s/trial | train | score | peak GB | mean loss |")
    print("|---|---|---|---|---|---|---|")
    for size in SIZES:
        words = [*(arguments or sys.argv[1:]), "--size", str(size)]
        command = [sys.executable, "-m", "benchmarks.pack_sizes", *words]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found = json.loads(out)
        print(
            f"| {size} | {found['cpu']:.2f} | {found['wall']:.2f} | {found['train']:.2f} | "
            f"{found['score']:.2f} | {found['peak_bytes'] / 1e9:.2f} | {found['loss']:.6f} |",
            flush=True,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add_work(parser, trials=4, epoch_tokens=8192)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--size", type=int, help="of one pack, as JSON; else all of them")
    return parser


def add_work(parser: argparse.ArgumentParser, trials: int, epoch_tokens: int) -> None:
    """Words that say which trials are run; numbers are defaults."""
    parser.add_argument("--data", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--user-said", default="response")
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--trials", type=int, default=trials, help="of each user")
    parser.add_argument("--epoch-tokens", type=int, default=epoch_tokens)
    parser.add_argument("--threads", type=int, default=1)


def measured(given: argparse.Namespace) -> dict[str, float]:
    """Seconds a trial, the process' peak memory, and the mean loss, in packs of one size."""
    experiment = experiment_of(
        given.data, given.base, given.users, given.trials, given.user_said, given.dtype
    )
    experiment = replace(experiment, epoch_tokens=given.epoch_tokens)
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place) / "run")
        with held(folder, resume=False):
            run = prepared(experiment, folder, False, None, False)
        bench = TimedWorkbench(
            BenchSettings(folder.path, given.base, experiment, "cpu", given.threads)
        )
        seeds = {user.digest: user.seed for user in run.choice.searched}
        waiting = list(drawn(bench, seeds, given.trials))
        cpu, wall = time.process_time(), time.monotonic()
        losses = worked(bench, waiting, given.size)
    return {
        "cpu": (time.process_time() - cpu) / len(waiting),
        "wall": (time.monotonic() - wall) / len(waiting),
        "train": bench.cpu_seconds["train"] / len(waiting),
        "score": bench.cpu_seconds["score"] / len(waiting),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "loss": sum(losses) / len(losses),
    }


def drawn(bench: TimedWorkbench, seeds: dict[str, int], trials: int) -> Iterator[Waiting]:
    """Random configurations of every user, users in turn."""
    base = bench.describe()
    space, _ = SearchSpace.for_base(base["layer_count"], base["smallest_dimension"])
    generator = np.random.default_rng(0)
    for _ in range(trials):
        for digest, seed in seeds.items():
            config = space.sample(generator)
            yield Waiting(f"{digest}/{config.key}", digest, config, seed_of(seed, config.key))


def worked(bench: TimedWorkbench, waiting: Sequence[Waiting], size: int) -> list[float]:
    """Runs all trials, at most `size` in training together; their losses.

    Raises:
        RuntimeError: a trial failed.
    """
    queue, running, losses = deque(waiting), 0, []
    while queue or bench.busy():
        while queue and running < size:
            one = queue.popleft()
            bench.add(one.name, one.digest, one.configuration, one.seed)
            running += 1
        events = bench.train()
        events += bench.score(bench.ready()) if bench.ready() else []
        for name, event in events:
            if event.get("error"):
                raise RuntimeError(f"{name} failed: {event['error']}")
            if event["done"]:
                running -= 1
                losses.append(float(event["loss_nats"]))
    return losses


if __name__ == "__main__":
    main()
