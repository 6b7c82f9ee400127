"""What is personal in a personal gain: every memory on its own user's words and on strangers'.

Beating the base proves little, since most of a memory's gain may be format and domain, which a
stranger's memory gives as well. So a user's own memory is held against the mean over the memories
of strangers, on the same held-out words. `paired_interval` says how sure a mean difference is.

This file measures; it knows neither the search nor who may see the numbers.

Notation: row i of a matrix is the memory of `users[i]`, column j are the words of `users[j]`.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap

from models.base import Base
from models.history import Interaction
from models.personalizer import Attach, Frame, UserState
from models.scoring import Recall, answers, losses, recall

STRANGERS = 4
RESAMPLES = 9999

Matrix = tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class GainMatrix:
    """Memory i on user j's words; None where it was not tried.

    `loss` is in nats per token; `recall` is the share of facts found, None without facts. A user
    whose winner is the base has the base's numbers on the diagonal, and is nobody's stranger.
    """

    users: tuple[str, ...]
    loss: Matrix
    recall: Matrix | None = None

    def own_losses(self) -> list[float]:
        """Each user's loss under the own memory."""
        return [_known(self.loss[j][j]) for j in range(len(self.users))]

    def stranger_losses(self) -> list[float | None]:
        """Each user's mean loss under strangers' memories; None where there is no stranger."""
        return [self._strangers(self.loss, j) for j in range(len(self.users))]

    def own_recall(self) -> list[float | None]:
        """Each user's recall under the own memory; None without facts."""
        return [self.recall[j][j] if self.recall else None for j in range(len(self.users))]

    def stranger_recall(self) -> list[float | None]:
        """Each user's mean recall under strangers' memories; None without strangers or facts."""
        users = range(len(self.users))
        return [self._strangers(self.recall, j) if self.recall else None for j in users]

    def _strangers(self, matrix: Matrix, j: int) -> float | None:
        found = [row[j] for i, row in enumerate(matrix) if i != j]
        known = [value for value in found if value is not None]
        return statistics.fmean(known) if known else None


def strangers_of(
    users: Sequence[str], states: Mapping[str, UserState | None], count: int, seed: int
) -> dict[str, tuple[str, ...]]:
    """For each user, `count` others who have a memory, drawn at random; all of them when fewer.

    A user's draw depends on the seed and the order of `users` alone.
    """
    generator = random.Random(seed)
    drawn = {}
    for user in users:
        state_of = [(other, states[other]) for other in users if other != user]
        others = [other for other, state in state_of if state is not None and not state.is_base]
        drawn[user] = tuple(generator.sample(others, min(count, len(others))))
    return drawn


def gain_matrix(
    base: Base,
    attach: Attach,
    states: Mapping[str, UserState | None],
    items: Mapping[str, Sequence[Interaction]],
    seed: int,
    strangers: int = STRANGERS,
    answer_limits: Mapping[str, int] | None = None,
    frame: Frame | None = None,
) -> GainMatrix:
    """Every user's own memory and `strangers` others on that user's held-out items.

    Args:
        states: each user's memory; None or an empty state is the base.
        items: each user's evaluation items, at least one; the same users as `states`.
        seed: draws the strangers.
        answer_limits: each user's limit of new tokens. None leaves recall out: it needs answers,
            which cost far more than losses.
        frame: puts before a query what a method adds to it.
    """
    users = tuple(items)
    drawn = strangers_of(users, states, strangers, seed)
    tried = [(owner, user) for user in users for owner in (user, *drawn[user])]
    memories = [states[owner] for owner, _ in tried]
    items_of = [items[user] for _, user in tried]
    loss = [found.nats for found in losses(base, attach, memories, items_of, frame)]
    shares = None
    if answer_limits is not None and any(i.fact for part in items.values() for i in part):
        limits = [answer_limits[user] for _, user in tried]
        texts_of = answers(base, attach, memories, items_of, limits, frame)
        shares = [_share(recall(i, t)) for i, t in zip(items_of, texts_of, strict=True)]
    return GainMatrix(
        users,
        _matrix(users, tried, loss),
        None if shares is None else _matrix(users, tried, shares),
    )


class Interval(NamedTuple):
    """A mean with its 95 % interval; the ends are NaN where there is only one value."""

    mean: float
    low: float
    high: float


def paired_interval(differences: Sequence[float], seed: int) -> Interval:
    """The mean of per-user differences with its 95 % bootstrap interval over users.

    BCa, since few users make for skewed means; differences that are all alike have no width.

    Raises:
        ValueError: no differences.
    """
    if not differences:
        raise ValueError("expected at least one user's difference, got none")
    centre = statistics.fmean(differences)
    if len(differences) == 1:
        return Interval(centre, math.nan, math.nan)
    if max(differences) == min(differences):
        return Interval(centre, centre, centre)
    found = bootstrap(
        (np.asarray(differences),), np.mean, n_resamples=RESAMPLES, rng=np.random.default_rng(seed)
    ).confidence_interval
    return Interval(centre, float(found.low), float(found.high))


def _matrix(
    users: Sequence[str], tried: Sequence[tuple[str, str]], values: Sequence[float | None]
) -> Matrix:
    value_of = dict(zip(tried, values, strict=True))
    return tuple(tuple(value_of.get((i, j)) for j in users) for i in users)


def _share(counts: Mapping[str, Recall]) -> float | None:
    every = counts.get("all")
    return None if every is None else every.hits / every.asked


def _known(value: float | None) -> float:
    if value is None:
        raise ValueError("expected every user's own memory to be measured, got one that was not")
    return value
