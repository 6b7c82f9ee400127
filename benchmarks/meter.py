"""What a command costs: wall-clock seconds, CPU-seconds and memory of all its processes.

Ray starts daemons and workers below the command. Each is read ten times a second until it ends, so
what one spends in its last tenth of a second is not counted. Memory is the sum of proportional
shares (pages that several processes map count once), read once a second where the kernel gives it.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped]

PERIOD_SECONDS = 0.1
SELDOM = 10  # periods between two looks at memory and titles


@dataclass(frozen=True)
class Cost:
    """Of one command with all its processes.

    `ready_cpu_seconds` are those before it was ready; `by_process` are all by what processes are,
    `later_by_process` those after it was ready.
    """

    wall_seconds: float
    cpu_seconds: float
    ready_cpu_seconds: float
    peak_bytes: int
    by_process: Mapping[str, float]
    later_by_process: Mapping[str, float] = field(default_factory=dict)


def cost(command: Sequence[str], log: Path, ready: Path) -> Cost:
    """Runs a command to its end.

    Args:
        log: takes its output.
        ready: a file that the command makes once it is ready to work.

    Raises:
        RuntimeError: it failed; its output is in the log.
    """
    tree = _Tree()
    before: dict[psutil.Process, float] = {}
    began = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        while process.poll() is None:
            tree.read(process.pid)
            if not before and ready.exists():
                before = tree.spent()
            time.sleep(PERIOD_SECONDS)
    wall = time.monotonic() - began
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} failed: see {log}")
    total, ready_cpu_seconds = sum(tree.spent().values()), sum(before.values())
    by_process, later = tree.by_process({}), tree.by_process(before)
    return Cost(wall, total, ready_cpu_seconds, tree.peak_bytes, by_process, later)


class _Tree:
    """Processes below one, and those that outlived their parent."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._cpu_seconds: dict[psutil.Process, float] = {}
        self._titles: defaultdict[psutil.Process, str] = defaultdict(str)
        self._reads = 0

    def spent(self) -> dict[psutil.Process, float]:
        """CPU-seconds of each process, of those that have ended too."""
        return dict(self._cpu_seconds)

    def by_process(self, before: Mapping[psutil.Process, float]) -> dict[str, float]:
        """What was spent since then, by what a process called itself last."""
        found: defaultdict[str, float] = defaultdict(float)
        for process, seconds in self._cpu_seconds.items():
            found[self._titles[process] or "short-lived"] += seconds - before.get(process, 0.0)
        return dict(sorted(found.items(), key=lambda pair: -pair[1]))

    def read(self, root: int) -> None:
        """Takes in what every process has spent so far."""
        known = [process for process in self._cpu_seconds if process.is_running()]
        for process in {*known, *_below(root)}:
            try:
                times = process.cpu_times()
            except psutil.Error:  # it has ended
                continue
            self._cpu_seconds[process] = times.user + times.system
        if self._reads % SELDOM == 0:
            self._read_seldom()
        self._reads += 1

    def _read_seldom(self) -> None:
        held = 0
        for process in self._cpu_seconds:
            try:
                held += int(process.memory_full_info().pss)
                self._titles[process] = _title(process) or self._titles[process]
            except psutil.Error:  # it has ended
                continue
        self.peak_bytes = max(self.peak_bytes, held)


def _below(root: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(root)
        return [process, *process.children(recursive=True)]
    except psutil.Error:  # it has ended
        return []


def _title(process: psutil.Process) -> str:
    """A Ray worker's class or task, a script's name, or a program's; empty when it has ended."""
    words = process.cmdline()
    if not words:
        return ""
    if words[0].startswith("ray::"):
        return re.split(r"[./ ]", words[0])[0]
    scripts = [word for word in words if word.endswith(".py")]
    return Path((scripts or words)[0]).name
