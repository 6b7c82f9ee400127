"""How rows are cut into batches: little padding, few starts, no backward through layers in vain.

Rows of a batch are padded to its longest. Sorted by length, the cuts that cost least are found
exactly, by dynamic programming: every batch costs what it takes to start one, and its padded
tokens. So are the cuts between trainings whose memories begin at different layers: a batch's
backward runs down to its lowest adapted layer for all of its rows.

How rows are cut changes no result, since a memory's gradient is a sum over its rows.

Notation: B rows of a batch, T tokens of its longest row, L layers.
"""

from __future__ import annotations

import math
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
    lengths = [len(row.tokens) for row in rows]
    return of_like_length(lengths, START_TOKENS[device.type], padded_tokens)


def of_like_length(
    lengths: Sequence[int], start_tokens: int, padded_tokens: float = np.inf
) -> list[list[int]]:
    """Indices of rows of so many tokens in groups, shorter rows first, padded to their longest.

    Args:
        lengths: tokens of each row.
        start_tokens: what a group costs besides its padded tokens.
        padded_tokens: of a group, at most; one row may have more.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    sorted_lengths = np.array([lengths[i] for i in order], dtype=np.float64)

    def cost(end: int) -> Array:
        padded: Array = np.arange(end, 0, -1) * sorted_lengths[end - 1]
        padded[:-1][padded[:-1] > padded_tokens] = np.inf
        padded += start_tokens
        return padded

    return [order[start:end] for start, end in _cheapest(len(order), cost)]


def in_turn(tokens: Sequence[int], most: int) -> list[list[int]]:
    """Indices of rows, in order, in pieces of about equally many tokens: `most` or one row."""
    enough = sum(tokens) / max(1, -(-sum(tokens) // most))
    pieces: list[list[int]] = []
    held = math.inf
    for i, count in enumerate(tokens):
        if held >= enough or held + count > most:
            pieces.append([])
            held = 0
        pieces[-1].append(i)
        held += count
    return pieces


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
