"""How rows are cut into batches: little padding, few starts, no backward through layers in vain.

Rows of a batch are padded to its longest. Sorted by length, the cuts that cost least are found
exactly, by dynamic programming: every batch costs what it takes to start one, and its padded
tokens. So are the cuts between trainings whose memories begin at different layers: a batch's
backward runs down to its lowest adapted layer for all of its rows.

How rows are cut changes no result, since a memory's gradient is a sum over its rows.

Notation: B rows of a batch, T tokens of its longest row, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from models.prompt import Row

# What starting a batch takes, in tokens that could have been computed meanwhile.
START_TOKENS = {"cpu": 64, "cuda": 2048}
PADDED_TOKENS = {"cpu": 2048, "cuda": 32768}

Array = NDArray[np.float64]


def default_padded_tokens(device: torch.device) -> int:
    """How many padded tokens run at once: enough to fill the device, no more."""
    return PADDED_TOKENS[device.type]


def batches(rows: Sequence[Row], padded_tokens: int, device: torch.device) -> list[list[int]]:
    """Indices of rows in batches of like length, each of at most `padded_tokens` (or one row)."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].tokens))
    lengths = np.array([len(rows[i].tokens) for i in order], dtype=np.float64)

    def cost(end: int) -> Array:
        padded: Array = np.arange(end, 0, -1) * lengths[end - 1]
        padded[:-1][padded[:-1] > padded_tokens] = np.inf
        padded += START_TOKENS[device.type]
        return padded

    return [order[start:end] for start, end in _cheapest(len(order), cost)]


def by_lowest_layer(
    lowest: Sequence[int], tokens: Sequence[int], layers: int, device: torch.device
) -> list[list[int]]:
    """Indices of trainings that run their backward together.

    Args:
        lowest: each one's lowest adapted layer.
        tokens: how many tokens each one has in this step.
        layers: L.
        device: where they run.
    """
    order = sorted(range(len(lowest)), key=lambda i: -lowest[i])
    total = np.cumsum([0, *(tokens[i] for i in order)]).astype(np.float64)

    def cost(end: int) -> Array:
        # A forward through all layers; a backward, as dear, down to the lowest.
        share = 1 - lowest[order[end - 1]] / (2 * layers)
        weighed: Array = (total[end] - total[:end]) * share
        return weighed + START_TOKENS[device.type]

    return [sorted(order[start:end]) for start, end in _cheapest(len(order), cost)]


def _cheapest(count: int, cost: Callable[[int], Array]) -> list[tuple[int, int]]:
    """The cuts of a sequence into pieces that cost least in all.

    Args:
        count: length of the sequence.
        cost: for an end, the cost of the piece from each start before it up to that end.
    """
    best = np.zeros(count + 1)
    start_of = np.zeros(count + 1, dtype=np.int64)
    for end in range(1, count + 1):
        totals = best[:end] + cost(end)
        start_of[end] = int(np.argmin(totals))
        best[end] = totals[start_of[end]]
    pieces: list[tuple[int, int]] = []
    end = count
    while end:
        pieces.append((int(start_of[end]), end))
        end = pieces[-1][0]
    return pieces[::-1]
