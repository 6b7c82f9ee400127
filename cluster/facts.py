"""Facts recalled: how many answers hold the fact they were asked for, by kind, beside chance.

Kinds come from the data: `asked` (asked about in training), `unasked` (told, never asked about),
`inferred` (one step away), and `all` together. Counts of several users are added before dividing,
so that every question weighs the same. Where recall is a mean over users, so is what chance would
give (`chance_of_users`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from cluster.results import Measured, Recall

ORDER = ("all", "asked", "unasked", "inferred")


@dataclass(frozen=True)
class Shares:
    """Of the questions of one kind: the shares that base, winner and chance get right."""

    asked: int
    base: float
    winner: float
    chance: float


def shares(measured: Sequence[tuple[Measured, Measured]]) -> dict[str, Shares]:
    """By kind, over (base, winner) of one or many users; empty where nobody was asked a fact."""
    base = pooled(before.recall for before, _ in measured)
    winner = pooled(after.recall for _, after in measured)
    return {
        kind: Shares(
            asked=counts.asked,
            base=counts.hits / counts.asked,
            winner=winner[kind].hits / winner[kind].asked,
            chance=counts.chance_sum / counts.asked,
        )
        for kind, counts in base.items()
        if kind in winner
    }


def chance_of_users(recalls: Sequence[Mapping[str, Recall]]) -> dict[str, float]:
    """By kind, the share that chance would give: the mean over the users who were asked."""
    return {
        kind: fmean(
            own.chance_sum / own.asked
            for recall in recalls
            if (own := recall.get(kind)) is not None and own.asked
        )
        for kind in pooled(recalls)
    }


def pooled(recalls: Iterable[Mapping[str, Recall]]) -> dict[str, Recall]:
    """Counts added over users, by kind, `all` first; kinds nobody was asked are left out."""
    sums: dict[str, Recall] = {}
    for recall in recalls:
        for kind, (hits, asked, chance_sum) in recall.items():
            so_far = sums.get(kind, Recall(0, 0, 0.0))
            sums[kind] = Recall(
                so_far.hits + hits, so_far.asked + asked, so_far.chance_sum + chance_sum
            )
    kinds = sorted(
        sums, key=lambda kind: (ORDER.index(kind) if kind in ORDER else len(ORDER), kind)
    )
    return {kind: sums[kind] for kind in kinds if sums[kind].asked}
