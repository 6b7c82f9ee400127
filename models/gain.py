"""What is personal in a personal gain: every memory on its own user's words and on strangers'.

Beating the base proves little, since most of a memory's gain may be format and domain, which a
stranger's memory gives as well. So a user's own memory is held against the mean over the memories
of strangers, on the same held-out words. `paired_interval` says how sure a mean difference is.

However many users there are, each is tried with a few memories, and nothing is kept for pairs that
were not tried. Who is tried with whom is drawn for all at once (`strangers_of`); measured are as
many users at a time as memory holds (`gain_matrix`).

This file measures; it knows neither the search nor who may see the numbers.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
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
_ROUNDING = 1e-12  # BCa of differences that lie closer together is no number

Entries = Mapping[str, Mapping[str, float]]
"""For each user, what each memory that was tried gave on their words, by the memory's owner."""


@dataclass(frozen=True)
class GainMatrix:
    """Every user's own memory and strangers' on that user's words; only what was tried.

    `loss` is in nats per token; `recall` is the share of facts found, None without facts. A user
    whose winner is the base has the base's numbers as own ones, and is nobody's stranger.
    """

    loss: Entries
    recall: Entries | None = None

    @property
    def users(self) -> tuple[str, ...]:
        """On whose words memories were tried."""
        return tuple(self.loss)


def joined(parts: Iterable[GainMatrix]) -> GainMatrix:
    """What was measured of different users, together."""
    loss: dict[str, Mapping[str, float]] = {}
    recalled: dict[str, Mapping[str, float]] = {}
    for part in parts:
        loss.update(part.loss)
        recalled.update(part.recall or {})
    return GainMatrix(loss, recalled or None)


def strangers_of(
    users: Sequence[str], owners: Sequence[str], count: int, seed: int
) -> dict[str, tuple[str, ...]]:
    """For each user, `count` others who have a memory, drawn at random; all of them when fewer.

    A user's draw depends on the seed and the order of both alone.

    Args:
        users: who is to be tried.
        owners: who has a memory.
        count: of strangers.
        seed: of the draw.
    """
    generator, places = random.Random(seed), {owner: i for i, owner in enumerate(owners)}
    drawn = {}
    for user in users:
        own = places.get(user, len(owners))
        others = len(owners) - (user in places)
        picked = generator.sample(range(others), min(count, others))
        drawn[user] = tuple(owners[place + (place >= own)] for place in picked)
    return drawn


def gain_matrix(
    base: Base,
    attach: Attach,
    states: Mapping[str, UserState | None],
    items: Mapping[str, Sequence[Interaction]],
    drawn: Mapping[str, Sequence[str]],
    answer_limits: Mapping[str, int] | None = None,
    frame: Frame | None = None,
) -> GainMatrix:
    """Some users' own memories and those drawn for them, on each user's held-out items.

    Args:
        states: the memories of these users and of those drawn; None or an empty state is the base.
        items: each user's evaluation items, at least one.
        drawn: for each user, whose memories are tried beside the own one.
        answer_limits: each user's limit of new tokens. None leaves recall out: it needs answers,
            which cost far more than losses.
        frame: puts before a query what a method adds to it.
    """
    tried = [(owner, user) for user in items for owner in (user, *drawn[user])]
    memories = [states[owner] for owner, _ in tried]
    items_of = [items[user] for _, user in tried]
    loss = [found.nats for found in losses(base, attach, memories, items_of, frame)]
    shares = None
    if answer_limits is not None and any(i.fact for part in items.values() for i in part):
        limits = [answer_limits[user] for _, user in tried]
        texts_of = answers(base, attach, memories, items_of, limits, frame)
        shares = [_share(recall(i, t)) for i, t in zip(items_of, texts_of, strict=True)]
    return GainMatrix(
        entries(tried, loss),
        None if shares is None else entries(tried, shares),
    )


def entries(tried: Sequence[tuple[str, str]], values: Sequence[float | None]) -> Entries:
    """What was measured, by user and owner; `tried` are (owner, user)."""
    found: dict[str, dict[str, float]] = {user: {} for _, user in tried}
    for (owner, user), value in zip(tried, values, strict=True):
        if value is not None:
            found[user][owner] = value
    return found


class Interval(NamedTuple):
    """A mean with its 95 % interval; the ends are NaN where there is only one value."""

    mean: float
    low: float
    high: float


def paired_interval(differences: Sequence[float], seed: int) -> Interval:
    """The mean of per-user differences with its 95 % bootstrap interval over users.

    BCa, since few users make for skewed means; differences that are all alike but for rounding have
    no width.

    Raises:
        ValueError: no differences.
    """
    if not differences:
        raise ValueError("expected at least one user's difference, got none")
    centre = statistics.fmean(differences)
    if len(differences) == 1:
        return Interval(centre, math.nan, math.nan)
    if math.isclose(max(differences), min(differences), rel_tol=_ROUNDING, abs_tol=_ROUNDING):
        return Interval(centre, centre, centre)
    found = bootstrap(
        (np.asarray(differences),), np.mean, n_resamples=RESAMPLES, rng=np.random.default_rng(seed)
    ).confidence_interval
    return Interval(centre, float(found.low), float(found.high))


def _share(counts: Mapping[str, Recall]) -> float | None:
    every = counts.get("all")
    return None if every is None else every.hits / every.asked
