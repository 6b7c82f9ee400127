"""The figures of `driver.py`: from samples of its processes to what is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

WHOLE = "driver and controllers, CPU ms a trial"
PART = 1000  # trials whose cost is compared, the first ones with the last


@dataclass(frozen=True)
class Sample:
    """At one moment: trials told, and what driver and controllers hold and have spent."""

    told: int
    shard_bytes: int  # of the largest controller
    cpu_seconds: float
    processes: int  # below the driver, Ray's own among them
    workers: int  # of these: controllers, askers, packers and trials, at work or idle


def figures(
    samples: Sequence[Sample],
    held_bytes: Sequence[int],
    suggest: Sequence[float],
    trials: int,
    seconds: float,
) -> dict[str, Any]:
    """What is printed: milliseconds of the processor a trial, memory, and the slowest answers."""
    early = [s for s in samples if s.told <= max(PART, samples[0].told)]
    late = [s for s in samples if s.told >= trials - PART]
    return {
        "trials": trials,
        "trials per second": round(trials / seconds, 1),
        WHOLE: _ms(samples[0], samples[-1]),
        f"the same, first {PART}": _ms(early[0], early[-1]),
        f"the same, last {PART}": _ms(late[0], late[-1]),
        "suggest, 99 of 100 within ms": round(1e3 * float(np.quantile(suggest, 0.99)), 1),
        "shards": len(held_bytes),
        "driver MB after the first shard": held_bytes[0] // 10**6,
        "driver MB after any later one, most": max(held_bytes) // 10**6,
        "driver grew after the first shard by %": _percent(held_bytes),
        "largest controller MB": max(s.shard_bytes for s in samples) // 10**6,
        "processes, most": max(s.processes for s in samples),
        "controllers, askers, packers and trial processes, most": max(s.workers for s in samples),
    }


def _percent(held_bytes: Sequence[int]) -> float:
    return round(100 * (max(held_bytes) / held_bytes[0] - 1), 1)


def _ms(first: Sample, last: Sample) -> float:
    done = max(1, last.told - first.told)
    return round(1e3 * (last.cpu_seconds - first.cpu_seconds) / done, 1)
