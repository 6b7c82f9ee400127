"""Training what a method shares, on the pairs of many people at once.

Each row knows whose it is, so that a learner can put that person's vectors before it. The trainer
is the one of all memories: batches of like length, its own schedule, the best weights kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, cast

from torch import Tensor

from models.base import Base
from models.parts import Parts, running
from models.personalizer import Person
from models.prompt import Row
from models.soft import with_soft
from models.trainer import Trainer
from models.training import BATCH_ROWS, Learner, Stage, Training

HELD_OUT = 8  # of so many people's rows, one person's are for validation
EPOCHS = 3
FEWEST_STEPS = 100  # few people's rows are gone through more often than `EPOCHS`


@dataclass(frozen=True)
class PersonRow(Row):
    """A row of a person, by that person's number."""

    person: int = 0


class RowLearner(Learner, Protocol):
    """A learner that says what each row runs under."""

    def parts(self, rows: Sequence[Row]) -> Sequence[Parts]:
        """The parts of each row, with a gradient."""


def rows_under(
    base: Base, learners: Sequence[Learner], rows: Sequence[Row]
) -> AbstractContextManager[None]:
    """The trainer's `Under` for row learners: each one's rows are asked for together."""
    parts = [Parts()] * len(rows)
    for learner in dict.fromkeys(cast(Sequence[RowLearner], learners)):
        own = [i for i, of in enumerate(learners) if of is learner]
        for i, part in zip(own, learner.parts([rows[i] for i in own]), strict=True):
            parts[i] = part
    return running(base, parts)


def person_rows(base: Base, people: Sequence[Person], soft_tokens: int) -> list[PersonRow]:
    """A row for every pair of every person, behind so many soft tokens."""
    rows = []
    for number, person in enumerate(people):
        for pair in person.pairs:
            row = base.prompt.pair(pair.query or "", pair.response)
            row = with_soft(row, soft_tokens, base.prompt.begin, base.context)
            rows.append(PersonRow(row.tokens, row.predict_from, row.cut_tokens, number))
    return rows


def epochs_of(rows: Sequence[PersonRow]) -> int:
    """How often to go through rows: three times, or as often as makes for enough steps."""
    return max(EPOCHS, math.ceil(FEWEST_STEPS / math.ceil(len(rows) / BATCH_ROWS)))


def learn(
    base: Base,
    learner: RowLearner,
    rows: Sequence[PersonRow],
    learning_rate: float,
    epochs: int,
    seed: int,
) -> tuple[list[Tensor], float]:
    """Train a learner on the rows of most people; returns its weights and its validation loss.

    The rows of every eighth person, at least of the last one, are for validation: what is shared
    must serve people it has not seen. It ends after a third of the epochs without a better loss.

    Raises:
        ValueError: rows of fewer than two people, or the training failed.
    """
    people = sorted({row.person for row in rows})
    if len(people) < 2:
        raise ValueError(f"expected rows of at least 2 people to learn from, got {len(people)}")
    held_out = set(people[HELD_OUT - 1 :: HELD_OUT] or people[-1:])
    learned = [row for row in rows if row.person not in held_out]
    validation = [row for row in rows if row.person in held_out]
    return trained(base, learner, learned, validation, learning_rate, epochs, seed)


def trained(
    base: Base,
    learner: RowLearner,
    rows: Sequence[PersonRow],
    validation: Sequence[PersonRow],
    learning_rate: float,
    epochs: int,
    seed: int,
) -> tuple[list[Tensor], float]:
    """`learn`, with rows for validation of one's own choice.

    Raises:
        ValueError: nothing to learn or to validate on, or the training failed.
    """
    stage = Stage("shared", tuple(rows), epochs)
    trainer = Trainer(base, under=lambda learners, batch: rows_under(base, learners, batch))
    patience = max(1, epochs // EPOCHS)
    trainer.add(
        Training("shared", learner, (stage,), tuple(validation), learning_rate, seed, patience)
    )
    while True:
        ended = trainer.step()[1]
        if ended:
            break
    if ended[0].error is not None:
        raise ValueError(f"expected the shared part to train, got: {ended[0].error}")
    return [tensor.detach().cpu().clone() for tensor in learner.parameters()], ended[0].loss_nats
