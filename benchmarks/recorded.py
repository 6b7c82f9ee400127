"""A run's users as a workload: exactly the tokens that Milpa trains and scores them on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks.workload import Person, PlannedTrial, Row, Stage, Workload
from cluster.experiment import Experiment
from cluster.subjects import Subject
from models import prompt
from models.base import Base
from models.milp import pair_rows, stages_of
from models.personalizer import Budget, Task
from search.space import MemoryConfig


def workload(
    base: Base,
    dtype: str,
    people: Iterable[Person],
    trials: Iterable[PlannedTrial],
) -> Workload:
    """People and trials on a base, computed in a dtype."""
    family = base.family
    matrices = [f"{family.layers}.{{}}.{matrix}" for matrix in family.matrices]
    ends = [i for i in range(len(base.tokenizer)) if base.prompt.ends_answer(i)]
    # A hub's name is no folder; a folder's must hold wherever Ray runs a trial.
    source = str(Path(base.name).resolve()) if Path(base.name).is_dir() else base.name
    return Workload(source, dtype, matrices, ends, tuple(people), tuple(trials))


def person(base: Base, user: Subject, experiment: Experiment) -> Person:
    """One user as a trial of this experiment reads them."""
    e = experiment
    budget = Budget(
        e.injection_epochs, e.tuning_epochs, epoch_tokens=e.epoch_tokens, rehearse=e.rehearse
    )
    any_memory = MemoryConfig((0,), 1, 1e-3)
    task = Task("", user.user_id, user.train, user.validation, any_memory, 0, e.user_said, budget)
    stages, _ = stages_of(base, task)
    return Person(
        stages=[Stage([_row(row) for row in stage.rows], stage.epochs) for stage in stages],
        validation=[_row(row) for row in pair_rows(base, user.validation)],
        prompts=[_prompt(base, item.query or "", user.answer_tokens) for item in user.items],
        references=[item.response for item in user.items],
        answer_tokens=user.answer_tokens,
    )


def _prompt(base: Base, query: str, answer_tokens: int) -> tuple[int, ...]:
    row = prompt.fit(base.prompt.prompt(query), [0] * answer_tokens, base.context)
    return row.tokens[: row.predict_from]


def _row(row: prompt.Row) -> Row:
    return row.tokens, row.predict_from
