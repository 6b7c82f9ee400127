"""A bench whose device fails when it is told to, for as long as its process lives."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from cluster.bench import Events
from cluster.packer import Packer
from search.space import MemoryConfig

CONFIG = MemoryConfig((0, 1), 4, 1e-3)
WORDS = "CUDA error: an illegal memory access was encountered"
OUTLIVED = 7


class Frail:
    """A bench whose tasks take one step; its device fails at one `place` of the work, for good."""

    def __init__(self) -> None:
        self.place = ""
        self.training: list[str] = []
        self.waiting: list[str] = []

    def pid(self) -> int:
        """Its process."""
        return os.getpid()

    def fail_at(self, place: str) -> None:
        """The device fails when it is next used for that."""
        self.place = place

    def fail(self, place: str) -> None:
        """As CUDA does: once an access was illegal, every call raises."""
        if self.place in (place, "every"):
            self.place = "every"
            raise RuntimeError(WORDS)

    def add(self, name: str, digest: str, configuration: MemoryConfig, seed: int) -> None:
        self.fail("add")
        self.training.append(name)

    def train(self) -> Events:
        self.fail("train")
        self.waiting, self.training = self.waiting + self.training, []
        at = {"stage": "tuning", "epoch": 1, "steps": 1, "loss_nats": 1.0, "done": False}
        return [(name, dict(at)) for name in self.waiting]

    def ready(self) -> list[str]:
        return list(self.waiting)

    def score(self, names: Sequence[str]) -> Events:
        self.fail("score")
        self.waiting = []
        return [(name, {"rouge_l": 0.5, "done": True}) for name in names]

    def stop(self, name: str) -> None:
        self.fail("stop")

    def give_up(self) -> list[str]:
        self.fail("give up")
        return self.training

    def busy(self) -> bool:
        return bool(self.training or self.waiting)

    def is_alive(self) -> bool:
        return self.place != "every"


def outlive(log: Path, place: str) -> None:
    """Ends this process with `OUTLIVED` if a trial on a device that fails does not end it."""
    bench = Frail()
    bench.fail_at(place)

    async def follow() -> None:
        async for _ in Packer(lambda: bench, str(log)).evaluate("aaaa", CONFIG.to_json(), 0):
            pass

    asyncio.run(asyncio.wait_for(follow(), 60))
    os._exit(OUTLIVED)
