"""No personalisation: the base for everybody. A peer like any other, and the control."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from models.base import Base
from models.personalizer import Finished, Report, Task, UserState


class Nothing:
    """Personalizer that learns nothing."""

    name = "none"

    def start(self, base: Base) -> NothingFitting:
        """An empty fitting."""
        return NothingFitting()

    def attached(
        self, base: Base, states: Sequence[UserState | None]
    ) -> AbstractContextManager[None]:
        """Every row runs under the base."""
        return nullcontext()

    def prompt(self, state: UserState | None, query: str) -> str:
        """The query alone."""
        return query


class NothingFitting:
    """Finishes each task at the next step with an empty state."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}

    @property
    def running(self) -> int:
        """Number of tasks not yet reported as finished."""
        return len(self._tasks)

    def add(self, task: Task) -> None:
        """Take a task in."""
        self._tasks[task.key] = task

    def step(self) -> tuple[list[Report], list[Finished]]:
        """Finish all tasks."""
        tasks, self._tasks = list(self._tasks.values()), {}
        states = [
            UserState("none", task.user_id, task.configuration.to_json(), {}) for task in tasks
        ]
        done = [Finished(t.key, s) for t, s in zip(tasks, states, strict=True)]
        return [], done

    def stop(self, key: str) -> None:
        """Drop a task."""
        self._tasks.pop(key, None)
