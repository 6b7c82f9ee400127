"""What is better: objectives, the front, its hypervolume, the reference point, the winner.

It knows neither configurations nor models: a trial is a tuple of objective values in their own
units. "Bigger is better" is applied here once, in `Objective`; every function takes natural values
with their objectives, so that the two frames can't be mixed. numpy alone: reports read it.

The hypervolume is exact, by slicing along the last objective (While et al. 2006): two or three
objectives and a few hundred points, where nothing cleverer pays.

Notation: n trials, m objectives, `Y` is `n x m` in the bigger-is-better frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MARGIN = 0.1  # of the range seen, between the nadir and the reference point
NEAR_BEST = 0.1  # of the gain: how far from the best loss a winner may lie
FEWEST_ITEMS = 8  # validation items below which ROUGE-L decides nothing

Array = NDArray[np.float64]
Values = Sequence[float]


@dataclass(frozen=True)
class Objective:
    """A measured number with a direction and a unit."""

    name: str
    maximise: bool
    unit: str

    def oriented(self, value: float) -> float:
        """The value where bigger is better. Its own inverse."""
        return value if self.maximise else -value


LOSS = Objective("loss", maximise=False, unit="nats per token")
ROUGE_L = Objective("rouge_l", maximise=True, unit="fraction")
PARAMETERS = Objective("parameters", maximise=False, unit="parameters")


def oriented(objectives: Sequence[Objective], rows: Sequence[Values]) -> Array:
    """`n x m` values where bigger is better.

    Raises:
        ValueError: a row doesn't hold one value for each objective.
    """
    if any(len(row) != len(objectives) for row in rows):
        names = ", ".join(objective.name for objective in objectives)
        raise ValueError(f"expected a value for each of {names}, got {list(rows)!r:.200}")
    signs: Array = np.array([objective.oriented(1.0) for objective in objectives])
    values: Array = np.array(rows, dtype=np.float64).reshape(len(rows), len(objectives))
    return values * signs


def front(objectives: Sequence[Objective], rows: Sequence[Values]) -> list[int]:
    """Positions of the rows that no other row dominates; equal rows stay together."""
    Y = oriented(objectives, rows)
    return [i for i, y in enumerate(Y) if not _dominated(y, Y)]


def hypervolume(
    objectives: Sequence[Objective], rows: Sequence[Values], reference: Values
) -> float:
    """The volume that the rows dominate beyond the reference point."""
    corner = oriented(objectives, [reference])[0]
    return _volume(oriented(objectives, rows), corner)


def hypervolume_trace(
    objectives: Sequence[Objective], rows: Sequence[Values], reference: Values
) -> list[float]:
    """The hypervolume after the first row, the first two, and so on."""
    return [hypervolume(objectives, rows[: n + 1], reference) for n in range(len(rows))]


def reference_point(
    objectives: Sequence[Objective], rows: Sequence[Values], base: Values | None = None
) -> tuple[float, ...]:
    """The corner from which hypervolume counts, in natural units.

    Per objective the worst value seen, less a tenth of the range seen, but never worse than the
    base's own: what is worse than the base is worth nothing, and a far-off corner rewards extremes.

    Args:
        objectives: their directions.
        rows: what was seen, at least one row.
        base: the base's own values.

    Raises:
        ValueError: nothing was seen.
    """
    if not rows:
        raise ValueError("expected at least one completed trial to set a reference point from")
    Y = oriented(objectives, rows)
    corner = Y.min(0) - MARGIN * (Y.max(0) - Y.min(0))
    if base is not None:
        corner = np.maximum(corner, oriented(objectives, [base])[0])
    return tuple(o.oriented(float(y)) for o, y in zip(objectives, corner, strict=True))


@dataclass(frozen=True)
class Candidate:
    """What the winner rule reads of a trial on the front."""

    loss_nats: float
    rouge_l: float
    rouge_l_error: float = 0.0  # standard error over the items
    parameters: int = 0


def winner(candidates: Sequence[Candidate], base_loss: float, item_count: int) -> int | None:
    """The position of the candidate to publish, or None: the base itself.

    Of those whose loss lies within a tenth of the gain (the base's loss less the best) of the best,
    the one with the highest ROUGE-L; of those within its standard error, the one with the fewest
    parameters. With fewer than 8 validation items the lowest loss wins.

    Args:
        candidates: the trials on the front.
        base_loss: the base's own loss, in nats per token.
        item_count: validation items that ROUGE-L was measured on.
    """
    best = min((candidate.loss_nats for candidate in candidates), default=np.inf)
    if not best < base_loss:
        return None
    slack = NEAR_BEST * (base_loss - best) if item_count >= FEWEST_ITEMS else 0.0
    near = [i for i, c in enumerate(candidates) if c.loss_nats <= best + slack]
    if item_count >= FEWEST_ITEMS:
        top = max((candidates[i] for i in near), key=lambda c: (c.rouge_l, -c.loss_nats))
        near = [i for i in near if candidates[i].rouge_l >= top.rouge_l - top.rouge_l_error]
    return min(near, key=lambda i: _preference(candidates[i]))


def _preference(candidate: Candidate) -> tuple[float, float, float]:
    return (candidate.parameters, -candidate.rouge_l, candidate.loss_nats)


def _dominated(y: Array, Y: Array) -> bool:
    return bool(((y <= Y).all(1) & (y < Y).any(1)).any())


def _volume(Y: Array, corner: Array) -> float:
    """Slices of constant last objective, each the volume of the points that reach it."""
    Y = Y[(corner < Y).all(1)]
    if not len(Y):
        return 0.0
    if Y.shape[1] == 1:
        return float(Y.max() - corner[0])
    heights = np.unique(Y[:, -1])
    floors = np.concatenate([corner[-1:], heights[:-1]])
    slices = (_volume(Y[Y[:, -1] >= h][:, :-1], corner[:-1]) for h in heights)
    return float(sum(v * (h - f) for v, h, f in zip(slices, heights, floors, strict=True)))
