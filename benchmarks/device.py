"""A device's clock and its ceiling: seconds of phases, and the products it can do in one."""

from __future__ import annotations

import platform
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

WARM_UPS, REPEATS = 3, 10


@dataclass
class Stopwatch:
    """Wall-clock seconds of phases, all of the device's work in them done."""

    device: torch.device
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What runs inside counts as this phase."""
        began = self._now()
        yield
        self.seconds[name] += self._now() - began

    def _now(self) -> float:
        wait(self.device)
        return time.perf_counter()


def wait(device: torch.device) -> None:
    """Returns when the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def name_of(device: torch.device) -> str:
    """What the device is sold as."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return platform.processor() or platform.machine()


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of one large matrix product of random numbers."""
    size = 8192 if device.type == "cuda" else 512
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    watch = Stopwatch(device)
    for _ in range(WARM_UPS):
        left @ right
    with watch.phase("products"):
        for _ in range(REPEATS):
            left @ right
    return REPEATS * 2 * size**3 / watch.seconds["products"]
