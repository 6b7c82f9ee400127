"""What a packer drives: tasks go in by name, and events come out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cluster.trial import Event
from search.space import MemoryConfig

Events = list[tuple[str, Event]]
"""(task, what happened to it)"""


class Bench(Protocol):
    """One device's work; `cluster.workbench.Workbench`. One thread alone calls it."""

    def add(self, name: str, digest: str, configuration: MemoryConfig, seed: int) -> None:
        """Takes a trial in."""

    def add_winner(
        self, name: str, digest: str, configuration: MemoryConfig, seed: int, reason: str | None
    ) -> None:
        """Takes a winner in: trained at full budget and published."""

    def train(self) -> Events:
        """One step of the pack: its checkpoints and failures."""

    def ready(self) -> Sequence[str]:
        """Tasks to be scored now; none while more are worth waiting for."""

    def score(self, names: Sequence[str]) -> Events:
        """The ends of these tasks, scored together."""

    def stop(self, name: str) -> None:
        """Drops a task."""

    def give_up(self) -> Sequence[str]:
        """Drops all that trains; returns what that was."""

    def busy(self) -> bool:
        """Whether there is anything to do."""

    def is_alive(self) -> bool:
        """Whether its device still works; asked after a failure."""
