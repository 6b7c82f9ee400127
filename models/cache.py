"""Keys and values of running rows: put together, grown in place, set aside.

Rows of different lengths lie in one tensor with their newest positions last, so that one masked
step serves all; what stands before a row's first position is padding, and zero. Places are kept
free for positions to come, so that no token costs a copy of all before it. Whoever leaves is
replaced by the last row. It knows no model.

Notation: B rows, T positions, H heads, E head width.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

Layers = list[tuple[Tensor, Tensor]]  # keys and values [B, H, T, E] of each layer
SPARE = 64  # positions that are kept free


def layers_of(cache: Any) -> Layers:
    """The keys and values in a cache of transformers."""
    return [(layer.keys, layer.values) for layer in cache.layers]


def moved(layers: Layers, device: torch.device) -> Layers:
    """Keys and values on a device."""
    return [(keys.to(device), values.to(device)) for keys, values in layers]


class RunningCache:
    """Keys and values of all running rows, in tensors larger than they are.

    The first rows are in use, and positions from `begin` to `end`.
    """

    def __init__(self) -> None:
        self._rooms: Layers = []
        self._rows = self._begin = self._end = 0

    @property
    def width(self) -> int:
        """T: positions of the longest row."""
        return self._end - self._begin

    def join(self, width: int, arriving: Sequence[tuple[Layers, Sequence[int]]]) -> None:
        """Takes rows in behind those that run.

        Args:
            width: T from now on, of the longest row of all.
            arriving: rows that lie on the left, and their lengths.
        """
        rows = self._rows + sum(len(lengths) for _, lengths in arriving)
        self._rooms = [
            (
                self._joined(layer, 0, rows, width, arriving),
                self._joined(layer, 1, rows, width, arriving),
            )
            for layer in range(len(arriving[0][0]))
        ]
        self._rows, self._begin, self._end = rows, 0, width

    def opened(self) -> Cache:
        """What a model takes that computes one more position of each row.

        It is there for the next step once `grown` was said; before, for this one only.
        """
        if self._end == self._rooms[0][0].shape[2]:
            self._make_room()
        layers = [_Layer(self._rows, self._begin, self._end, *room) for room in self._rooms]
        return Cache(layers=layers)

    def grown(self) -> None:
        """Every row is longer by the position that was computed."""
        self._end += 1

    def leave(self, gone: Collection[int], width: int) -> list[int]:
        """Drops rows; returns the old number of each row that is left, in its new order.

        Args:
            gone: numbers of rows.
            width: T of those that stay.
        """
        staying = [row for row in range(self._rows) if row not in gone]
        self._rows, self._begin = len(staying), self._end - width
        holes = [row for row in range(self._rows) if row in gone]
        movers = staying[len(staying) - len(holes) :]
        for room in (each for layer in self._rooms for each in layer):
            used = room[:, :, self._begin : self._end]
            if holes:
                used[holes] = used[movers]
        if not staying:
            self._rooms, self._begin, self._end = [], 0, 0
        came_from = dict(zip(holes, movers, strict=True))
        return [came_from.get(row, row) for row in range(self._rows)]

    def aside(self, row: int, length: int) -> Layers:
        """One row's own positions, copied to the processor's memory."""

        def own(room: Tensor) -> Tensor:
            return room[row : row + 1, :, self._end - length : self._end].to("cpu", copy=True)

        return [(own(keys), own(values)) for keys, values in self._rooms]

    def _joined(
        self,
        layer: int,
        kind: int,
        rows: int,
        width: int,
        arriving: Sequence[tuple[Layers, Sequence[int]]],
    ) -> Tensor:
        """Room for all rows, whatever ran and what arrives in it."""
        _, heads, _, features = arriving[0][0][layer][kind].shape
        room = arriving[0][0][layer][kind].new_zeros(rows, heads, width + SPARE, features)
        if self._rooms:
            used = self._rooms[layer][kind][: self._rows, :, self._begin : self._end]
            room[: self._rows, :, width - self.width : width] = used
        places = iter(room[self._rows :])
        for layers, lengths in arriving:
            for row, length in zip(layers[layer][kind], lengths, strict=True):
                next(places)[:, width - length : width] = row[:, :length]
        return room

    def _make_room(self) -> None:
        """Lets go of what is not in use any more, and keeps places free again."""

        def larger(room: Tensor) -> Tensor:
            _, heads, _, features = room.shape
            new = room.new_empty(self._rows, heads, self.width + SPARE, features)
            new[:, :, : self.width] = room[: self._rows, :, self._begin : self._end]
            return new

        # One layer after the other: two whole caches may not fit.
        for i, (keys, values) in enumerate(self._rooms):
            self._rooms[i] = (larger(keys), values)
            self._rooms[i] = (self._rooms[i][0], larger(values))
        self._begin, self._end = 0, self.width


class _Layer(DynamicLayer):  # type: ignore[misc]  # transformers' is untyped
    """One layer's part of the room, as a model fills it: in place."""

    def __init__(self, rows: int, begin: int, end: int, *room: Tensor) -> None:
        super().__init__()
        self._room, self._begin, self._end = [each[:rows] for each in room], begin, end
        self.is_initialized = True
        self._look()

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Writes positions behind the last one; all that are there, with them."""
        begin, self._end = self._end, self._end + key_states.shape[2]
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, begin : self._end] = states
        return self._look()

    def _look(self) -> tuple[Tensor, Tensor]:
        keys, values = (room[:, :, self._begin : self._end] for room in self._room)
        self.keys, self.values = keys, values
        return keys, values
