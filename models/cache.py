"""Keys and values of running rows: put together, moved to the right, set aside.

Rows of different lengths lie in one tensor with their newest positions last, so that one masked
step serves all; what stands before a row's first position is padding. It knows no model.

Notation: B rows, T positions, H heads, E head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Layers = list[tuple[Tensor, Tensor]]  # keys and values [B, H, T, E] of each layer


def layers_of(cache: Any) -> Layers:
    """The keys and values in a cache of transformers."""
    return [(layer.keys, layer.values) for layer in cache.layers]


def joined(
    running: Layers,
    running_lengths: Sequence[int],
    arriving: Sequence[tuple[Layers, Sequence[int]]],
) -> Layers:
    """All batches' keys and values in one, every row's newest position last.

    Args:
        running: rows that lie on the right already.
        running_lengths: their lengths.
        arriving: rows that lie on the left, and their lengths.
    """
    width = max([*running_lengths, *(n for _, lengths in arriving for n in lengths)])

    def whole(layer: int, kind: int) -> Tensor:
        parts = [_wide(running[layer][kind], width)] if running else []
        parts += [_right(layers[layer][kind], lengths, width) for layers, lengths in arriving]
        return torch.cat(parts)

    return [(whole(layer, 0), whole(layer, 1)) for layer in range(len(arriving[0][0]))]


def set_aside(running: Layers, row: int, length: int) -> Layers:
    """One row's own positions, copied to the processor's memory."""

    def own(tensor_BHTE: Tensor) -> Tensor:
        first = tensor_BHTE.shape[2] - length
        return tensor_BHTE[row : row + 1, :, first:].to("cpu", copy=True)

    return [(own(keys), own(values)) for keys, values in running]


def moved(layers: Layers, device: torch.device) -> Layers:
    """Keys and values on a device."""
    return [(keys.to(device), values.to(device)) for keys, values in layers]


def _wide(tensor_BHTE: Tensor, width: int) -> Tensor:
    """Right-aligned rows in `width` positions."""
    return torch.nn.functional.pad(tensor_BHTE, (0, 0, width - tensor_BHTE.shape[2], 0))


def _right(tensor_BHTE: Tensor, lengths: Sequence[int], width: int) -> Tensor:
    """Rows padded on the right, moved to the right end of `width` positions."""
    aligned = [_wide(row[None, :, :n], width) for row, n in zip(tensor_BHTE, lengths, strict=True)]
    return torch.cat(aligned)
