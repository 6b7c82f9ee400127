"""A running cache holds what was put in, whoever joins, grows, leaves or is set aside."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from models.cache import SPARE, Layers, RunningCache

HEADS, FEATURES, LAYERS = 2, 3, 2


def drawn(rows: int, positions: int) -> Layers:
    """Keys and values of rows as long as each other."""
    shape = (rows, HEADS, positions, FEATURES)
    return [(torch.randn(shape), torch.randn(shape)) for _ in range(LAYERS)]


def own(layers: Layers, row: int, length: int) -> list[Tensor]:
    return [each[row, :, :length] for layer in layers for each in layer]


class Rows:
    """The same rows by themselves, and the cache that is to hold them."""

    def __init__(self) -> None:
        self.cache = RunningCache()
        self.kept: list[list[Tensor]] = []

    @property
    def width(self) -> int:
        return max((row[0].shape[1] for row in self.kept), default=0)

    def join(self, lengths: list[int]) -> None:
        arriving = drawn(len(lengths), max(lengths))
        self.kept += [own(arriving, row, length) for row, length in enumerate(lengths)]
        self.cache.join(self.width, [(arriving, lengths)])

    def step(self) -> None:
        new = drawn(len(self.kept), 1)
        read = self.cache.opened()
        for layer, states in enumerate(new):
            read.update(*states, layer)
        self.cache.grown()
        for row, tensors in enumerate(self.kept):
            last = own(new, row, 1)
            self.kept[row] = [torch.cat(pair, 1) for pair in zip(tensors, last, strict=True)]

    def leave(self, gone: set[int]) -> None:
        width = max((r[0].shape[1] for i, r in enumerate(self.kept) if i not in gone), default=0)
        order = self.cache.leave(gone, width)
        assert sorted(order) == [row for row in range(len(self.kept)) if row not in gone]
        self.kept = [self.kept[row] for row in order]

    def check(self) -> None:
        """Own positions on the right, zeros before them; and the same ones set aside."""
        assert self.cache.width == self.width
        read = self.cache.opened()
        for row, tensors in enumerate(self.kept):
            length = tensors[0].shape[1]
            aside = [each[0] for layer in self.cache.aside(row, length) for each in layer]
            held = [each[row] for layer in read.layers for each in (layer.keys, layer.values)]
            for expected, found, whole in zip(tensors, aside, held, strict=True):
                assert torch.equal(found, expected)
                assert torch.equal(whole[:, self.width - length :], expected)
                assert not whole[:, : self.width - length].any()


@pytest.mark.parametrize("seed", range(5))
def test_holds_rows_that_join_grow_and_leave(seed: int) -> None:
    torch.manual_seed(seed)
    rng, rows = random.Random(seed), Rows()
    rows.join([rng.randint(1, 9) for _ in range(4)])
    for _ in range(2 * SPARE + 20):
        rows.step()
        if rng.random() < 0.1:
            rows.leave({i for i in range(len(rows.kept)) if rng.random() < 0.4})
        if len(rows.kept) < 2 or rng.random() < 0.05:
            rows.join([rng.randint(1, 90) for _ in range(rng.randint(1, 3))])
        rows.check()


def test_grows_in_place() -> None:
    rows = Rows()
    rows.join([3, 5])
    places = set()
    for _ in range(SPARE):
        rows.step()
        places.add(rows.cache.opened().layers[0].keys.untyped_storage().data_ptr())
    assert len(places) == 2  # the last look needed room for one more
    rows.check()


def test_a_step_that_came_to_nothing_leaves_nothing() -> None:
    rows = Rows()
    rows.join([3, 5])
    read = rows.cache.opened()
    read.update(*drawn(2, 1)[0], 0)  # the second layer never gets there
    rows.check()
    rows.step()
    rows.check()


def test_the_last_to_leave_takes_all_with_it() -> None:
    rows = Rows()
    rows.join([3, 5])
    rows.leave({0, 1})
    assert rows.cache.width == 0
    rows.join([2])
    rows.step()
    rows.check()
