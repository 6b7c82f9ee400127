"""Made-up users with 30 to 200 short items, and trials of theirs drawn from the search space.

Speed depends on how long texts are and how many, so that alone is like real chat (14 words a line
in annotated IRC): what the words are says nothing. Users' sizes are spread evenly over the range,
so that a few users are like many.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cluster.subjects import Subject
from models.base import Base
from models.history import History, Interaction, split
from models.personalizer import Budget, Task
from models.scoring import answer_limit, evaluation_items
from search.space import SearchSpace

FEWEST, MOST = 30, 200
QUERY_WORDS, RESPONSE_WORDS = (4, 16), (4, 20)
SYLLABLES = [first + second for first in "bdfgklmnprst" for second in "aio"]
WORDS = [a + b for a in SYLLABLES for b in SYLLABLES]
BUDGET = Budget(patience_epochs=1000)  # no stage ends early: the same steps on every side


def histories(count: int, seed: int) -> list[History]:
    """So many users."""
    draw = random.Random(seed)
    sizes = [FEWEST + (MOST - FEWEST) * (2 * i + 1) // (2 * count) for i in range(count)]
    draw.shuffle(sizes)
    return [_history(f"user {i}", size, draw) for i, size in enumerate(sizes)]


def texts(users: Sequence[History]) -> list[str]:
    """All that they said and were asked."""
    return [f"{i.query} {i.response}" for user in users for i in user.interactions]


def subject(base: Base, history: History, items: int) -> Subject:
    """A user as a packer holds one."""
    parts = split(history)
    return Subject(
        history.user_id,
        "",
        parts.train,
        parts.validation,
        evaluation_items(parts.validation, items),
        answer_limit(base, parts.train),
        parts.by_session,
        len(history.interactions),
        None,
    )


def tasks(base: Base, users: Sequence[Subject], count: int, seed: int) -> list[Task]:
    """So many trials, users in turn, each with a random configuration."""
    space, _ = SearchSpace.for_base(base.layer_count, base.smallest_dimension)
    generator = np.random.default_rng(seed)
    found = []
    for number in range(count):
        user = users[number % len(users)]
        config = space.sample(generator)
        parts = (user.train, user.validation)
        key = f"{number}"
        found.append(Task(key, user.user_id, *parts, config, number, budget=BUDGET))
    return found


def repeated(found: Sequence[Task], count: int) -> list[Task]:
    """At least so many trials: the same users and configurations again, with other seeds."""
    rounds = -(-count // len(found))
    return [
        replace(task, key=f"{task.key}, round {i}", seed=task.seed + i * 1000)
        for i in range(rounds)
        for task in found
    ]


def _history(user_id: str, size: int, draw: random.Random) -> History:
    return History(
        user_id,
        tuple(
            Interaction(user_id, float(i), _text(draw, QUERY_WORDS), _text(draw, RESPONSE_WORDS))
            for i in range(size)
        ),
    )


def _text(draw: random.Random, length: tuple[int, int]) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(*length)))
