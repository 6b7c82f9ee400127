"""How often one method's answers win against another's, by a judge, with an interval over users.

A user's score is the mean over the user's duels: 1 for a win, a half for a tie, 0 for a loss. So
0.5 is even, and a user with many duels weighs no more than one with few. The interval is a 95 %
bootstrap interval over users.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from cluster.judge import Duel, Endpoint, Judgement, judge
from cluster.judgements import Judgements
from models.gain import paired_interval
from models.history import Interaction

_SCORES = {"first": 1.0, "tie": 0.5, "second": 0.0}


@dataclass(frozen=True)
class WinRate:
    """The first method against the second.

    `rate` is the mean score over users, in [0, 1]; `low` and `high` are None for a single user.
    `contradictions` are ties because the judge chose a place, `unreadable` counts replies, two of
    which belong to a duel that was asked about. It names nobody and quotes nothing.
    """

    wins: int
    ties: int
    losses: int
    contradictions: int
    replies: int
    unreadable: int
    users: int
    rate: float
    low: float | None
    high: float | None


def duels_of(
    user: str, items: Sequence[Interaction], first: Sequence[str], second: Sequence[str]
) -> list[Duel]:
    """A user's duels: the answers of two methods to the same items, which have queries."""
    return [
        Duel(user, item.query or "", item.response, one, other)
        for item, one, other in zip(items, first, second, strict=True)
    ]


def win_rate(
    endpoint: Endpoint,
    duels: Sequence[Duel],
    seed: int,
    progress: Callable[[int], None] = lambda judged: None,
    kept: Judgements | None = None,
) -> WinRate:
    """Has a judge decide all duels: how often the first answers win. Sends users' text to it.

    Args:
        endpoint: the judge.
        duels: of all users; at least one.
        seed: of the bootstrap.
        progress: told how many duels are judged.
        kept: as for `judge`.

    Raises:
        ValueError: no duels, no client, or the endpoint refuses.
        OSError: the endpoint isn't there, or keeps failing.
    """
    if not duels:
        raise ValueError("expected at least one answered item to judge, got none")
    return counted(duels, judge(endpoint, duels, progress, kept), seed)


def counted(duels: Sequence[Duel], judgements: Sequence[Judgement], seed: int) -> WinRate:
    """Judgements of these duels as counts, a rate and its interval over users."""
    winners = [judgement.winner for judgement in judgements]
    scores = _scores_of_users(duels, judgements)
    interval = paired_interval(list(scores.values()), seed)
    return WinRate(
        wins=winners.count("first"),
        ties=winners.count("tie"),
        losses=winners.count("second"),
        contradictions=sum(judgement.contradicts for judgement in judgements),
        replies=sum(judgement.replies for judgement in judgements),
        unreadable=sum(judgement.unreadable for judgement in judgements),
        users=len(scores),
        rate=interval.mean,
        low=None if math.isnan(interval.low) else interval.low,
        high=None if math.isnan(interval.high) else interval.high,
    )


def _scores_of_users(duels: Sequence[Duel], judgements: Sequence[Judgement]) -> Mapping[str, float]:
    found: dict[str, list[float]] = {}
    for duel, judgement in zip(duels, judgements, strict=True):
        found.setdefault(duel.user, []).append(_SCORES[judgement.winner])
    return {user: fmean(scores) for user, scores in found.items()}
