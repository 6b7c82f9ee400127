"""How long a method tunes that learns from pairs alone, behind soft tokens: as long as others.

The main method reads a user's words twice, as running text and as answers. A method with one stage
goes through the answers as often as brings it to the same number of tokens, so that none wins or
loses by having seen more. Soft tokens are not counted: they are no text. A least number of steps is
asked of the main method alone, and the others follow.
"""

from __future__ import annotations

from collections.abc import Sequence

from models.base import Base
from models.milp import newest, pair_rows, stages_of
from models.personalizer import Task
from models.prompt import Row, newlines
from models.soft import with_soft
from models.training import Stage


def behind(base: Base, rows: Sequence[Row], count: int) -> tuple[Row, ...]:
    """The rows, each behind so many soft tokens."""
    return tuple(with_soft(row, count, base.prompt.begin, base.context) for row in rows)


def tuning_of(base: Base, task: Task, soft_tokens: int) -> tuple[tuple[Stage, ...], dict[str, int]]:
    """The one stage of a method that learns from pairs alone, and what its text lost on the way.

    Its epochs make up for the main method's injection: the same number of tokens is seen, soft
    ones not counted.

    Raises:
        ValueError: no pair to learn from.
    """
    budget = task.budget
    every = pair_rows(base, task.train)
    if not every:
        raise ValueError("expected answers to learn from, got none in the training part")
    rows, unread = newest(every, budget.epoch_tokens)
    theirs = stages_of(base, task)[0]
    seen = sum(stage.epochs * _tokens(stage.rows) for stage in theirs)
    soft_rows = behind(base, rows, soft_tokens)
    counts = {
        "tokens_cut": sum(row.cut_tokens for row in soft_rows),
        "tokens_beyond_epoch": unread,
        "newlines_replaced": sum(
            newlines(i.query) + newlines(i.response) for i in task.train if i.query is not None
        ),
    }
    epochs = max(1, round(seen / _tokens(rows)))
    return (Stage("tuning", soft_rows, epochs),), counts


def _tokens(rows: Sequence[Row]) -> int:
    return sum(len(row.tokens) for row in rows)
