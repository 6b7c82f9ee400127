"""Fittings: how a method's tasks run, for those that train and for those that only read.

A method says what a task trains and what becomes of it (`Recipe`); the trainer does the rest, for
all tasks at once. A method without training answers each task at the next step (`ReadFitting`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from models.personalizer import Finished, Task, UserState
from models.prompt import Row
from models.trainer import Trainer
from models.training import Checkpoint, Learner, Stage, Training


@dataclass(frozen=True)
class Course:
    """What a task trains, on which rows, and what its text lost on the way."""

    learner: Learner
    stages: tuple[Stage, ...]
    validation: tuple[Row, ...]
    learning_rate: float
    counts: Mapping[str, int] = field(default_factory=dict)


class Recipe(Protocol):
    """How a method trains a task."""

    def course(self, task: Task) -> Course | None:
        """What to train; None where there is nothing to, so that the task is finished at once.

        Raises:
            ValueError: nothing to learn or to validate on.
        """

    def state(self, task: Task, learner: Learner | None) -> UserState:
        """The user's state, of what was trained."""


class TrainedFitting:
    """Tasks in training on one base."""

    def __init__(self, recipe: Recipe, trainer: Trainer) -> None:
        self._recipe, self._trainer = recipe, trainer
        self._tasks: dict[str, tuple[Task, Mapping[str, int]]] = {}
        self._done: list[Finished] = []

    @property
    def running(self) -> int:
        """Number of tasks that have not been reported as finished."""
        return len(self._tasks) + len(self._done)

    def add(self, task: Task) -> None:
        """Take a task in from the next step on; one without a course is finished at once.

        Raises:
            ValueError: nothing to learn or to validate on.
        """
        course = self._recipe.course(task)
        if course is None:
            self._done.append(Finished(task.key, self._recipe.state(task, None)))
            return
        self._trainer.add(
            Training(
                key=task.key,
                learner=course.learner,
                stages=course.stages,
                validation=course.validation,
                learning_rate=course.learning_rate,
                seed=task.seed,
                patience_epochs=task.budget.patience_epochs,
            )
        )
        self._tasks[task.key] = (task, course.counts)

    def step(self) -> tuple[list[Checkpoint], list[Finished]]:
        """One optimiser step of every running task."""
        finished, self._done = self._done, []
        checkpoints, outcomes = self._trainer.step() if self._tasks else ([], [])
        for outcome in outcomes:
            task, counts = self._tasks.pop(outcome.key)
            state = None if outcome.error else self._recipe.state(task, outcome.learner)
            loss = outcome.loss_nats if math.isfinite(outcome.loss_nats) else None
            finished.append(Finished(task.key, state, outcome.error, loss, outcome.steps, counts))
        return checkpoints, finished

    def stop(self, key: str) -> None:
        """Drop a task: it is neither reported nor finished."""
        self._trainer.stop(key)
        self._tasks.pop(key, None)


class Read(NamedTuple):
    """A state that was read off a task's text, and what the text lost on the way."""

    state: UserState
    counts: Mapping[str, int]


class ReadFitting:
    """Finishes each task at the next step, without training; an error is its own task's."""

    def __init__(self, read: Callable[[Task], UserState | Read]) -> None:
        self._read = read
        self._tasks: dict[str, Task] = {}

    @property
    def running(self) -> int:
        """Number of tasks not yet reported as finished."""
        return len(self._tasks)

    def add(self, task: Task) -> None:
        """Take a task in."""
        self._tasks[task.key] = task

    def step(self) -> tuple[list[Checkpoint], list[Finished]]:
        """Finish all tasks."""
        tasks, self._tasks = list(self._tasks.values()), {}
        return [], [self._finished(task) for task in tasks]

    def stop(self, key: str) -> None:
        """Drop a task."""
        self._tasks.pop(key, None)

    def _finished(self, task: Task) -> Finished:
        try:
            found = self._read(task)
            state, counts = found if isinstance(found, Read) else Read(found, {})
            return Finished(task.key, state, counts=counts)
        except ValueError as error:
            return Finished(task.key, None, str(error))
