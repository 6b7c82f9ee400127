"""What a search's driver and its controllers hold and spend, sampled while they work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Self

import psutil  # type: ignore[import-untyped]

from benchmarks.driver_figures import Sample

PERIOD_SECONDS = 1.0
CONTROLLER = "ray::TimedController"


class Watch:
    """Samples this process and the controllers below it; its own cost is not counted."""

    def __init__(self, told: Callable[[], int]) -> None:
        self.samples: list[Sample] = []
        self._told, self._spent = told, dict[int, float]()
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._left.wait(PERIOD_SECONDS):
            self.samples.append(self._sample())

    def _sample(self) -> Sample:
        driver = psutil.Process()
        below = driver.children(recursive=True)
        held, workers = [0], 0
        for process in (driver, *below):
            try:
                title = title_of(process)
                workers += title.startswith("ray::") and "Agent" not in title
                if process.pid != driver.pid and CONTROLLER not in title:
                    continue
                times = process.cpu_times()
                self._spent[process.pid] = times.user + times.system
                if process.pid != driver.pid:
                    held.append(process.memory_info().rss)
            except psutil.Error:  # it has ended
                continue
        spent = sum(self._spent.values()) - time.thread_time()
        return Sample(self._told(), max(held), spent, len(below), workers)


def title_of(process: psutil.Process) -> str:
    """What a process calls itself; nothing when it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
