"""What both sides of the packing benchmark share: a base, its users, their trials, their work."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from benchmarks import recorded, short_users
from benchmarks.shapes import random_base
from benchmarks.useful_work import Work
from benchmarks.workload import PlannedTrial, Workload
from cluster.experiment import Experiment
from cluster.subjects import Subject
from models.base import Base
from models.milp import lora_of
from models.personalizer import Task

EXPERIMENT = Experiment("made up", "random")


@dataclass(frozen=True)
class Setup:
    """`tasks`, the workload's trials and `work` are the same trials in the same order."""

    base: Base
    users: dict[str, Subject]
    tasks: list[Task]
    workload: Workload
    work: list[Work]

    @classmethod
    def of(
        cls, family: str, size: str, device: str, dtype: str, users: int, trials: int, seed: int
    ) -> Setup:
        """A random base, and so many different trials of so many users."""
        made = short_users.histories(users, seed)
        texts = short_users.texts(made)
        base = random_base(family, size, device, getattr(torch, dtype), texts)
        subjects = [short_users.subject(base, history, EXPERIMENT.items) for history in made]
        tasks = short_users.tasks(base, subjects, trials, seed)
        people = [recorded.person(base, user, EXPERIMENT) for user in subjects]
        places = {user.user_id: place for place, user in enumerate(subjects)}
        planned = [_planned(task, places[task.user_id]) for task in tasks]
        work = [Work.of(base, people[trial.person], trial) for trial in planned]
        workload = recorded.workload(base, dtype, people, planned)
        return cls(base, {user.user_id: user for user in subjects}, tasks, workload, work)

    def work_of(self, count: int) -> list[Work]:
        """Of so many trials: the different ones, round after round."""
        return [self.work[i % len(self.work)] for i in range(count)]


def _planned(task: Task, person: int) -> PlannedTrial:
    config = lora_of(task)
    return PlannedTrial(person, config.layers, config.rank, config.learning_rate, task.seed)
