"""How right a model's picks among options were, as it is kept: numbers, and no label's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Chosen:
    """One model's picks on one user's items with options; `accuracy` and `chance` in [0, 1].

    `label_counts` are there where options are labels, and no numbers: of each, by its place in
    their order, how often it was picked rightly, was true, and was picked. `mae` and `mse` are
    there where they are numbers, in steps of the rating and their squares.
    """

    items: int
    accuracy: float
    chance: float
    label_counts: tuple[tuple[int, int, int], ...] | None = None
    mae: float | None = None
    mse: float | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Chosen:
        """The inverse of `dataclasses.asdict` after a way through JSON."""
        counts = value["label_counts"]
        counts = None if counts is None else tuple((h, t, p) for h, t, p in counts)
        return cls(**{**value, "label_counts": counts})
