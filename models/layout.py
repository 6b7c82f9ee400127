"""Rows that lie behind one another, as one: nothing is padded, and each attends to itself only.

What a model computes of single tokens it computes once for all of them; attention alone has to know
where rows begin and end. It takes rows of like length together, padded to the longest of them, and
puts what it found back in place. Positions count from each row's own beginning.

Notation: N tokens of all rows, S places of padded groups, B rows of a group, T places of its rows,
H heads, D features of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.batching import of_like_length

START_TOKENS = 256  # that a group's start takes, in tokens that could have been attended to


@dataclass(frozen=True)
class Layout:
    """Where tokens stand.

    Attributes:
        positions: `[N]`, each token's in its own row.
        groups: (B, T) of those that are attended to together.
        sources: `[S]`, the token at each place of the padded groups; at one that is left over the
            first of its row, since not even what is thrown away may come from another row.
        places: `[N]`, each token's place there.
        in_place: whether these are the tokens as they lie, so that none has to be moved: rows of
            one length, as windows of a history are.
    """

    positions: Tensor
    groups: tuple[tuple[int, int], ...]
    sources: Tensor
    places: Tensor
    in_place: bool

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Layout:
        """Rows of so many tokens each, in this order."""
        lengths_B = torch.tensor(lengths)
        starts_B = lengths_B.cumsum(0) - lengths_B
        row_of = torch.arange(len(lengths)).repeat_interleave(lengths_B)
        positions = torch.arange(len(row_of)) - starts_B[row_of]
        groups, sources, begin = [], [], 0
        begins_B = torch.empty_like(starts_B)
        for rows in of_like_length(lengths, START_TOKENS):
            width = lengths[rows[-1]]
            in_row = torch.arange(width).expand(len(rows), width)
            real = in_row < lengths_B[rows, None]
            sources.append((starts_B[rows, None] + in_row * real).flatten())
            begins_B[rows] = begin + width * torch.arange(len(rows))
            groups.append((len(rows), width))
            begin += len(rows) * width
        places = begins_B[row_of] + positions
        source = torch.cat(sources)
        in_place = torch.equal(source, torch.arange(len(row_of)))
        moved = (source.to(device), places.to(device), in_place)
        return cls(positions.to(device), tuple(groups), *moved)

    def attended(
        self,
        attend: Callable[[Tensor, Tensor, Tensor], Tensor],
        query: Tensor,
        key: Tensor,
        value: Tensor,
    ) -> Tensor:
        """What each row's queries find in its own keys and values, as `[1, N, H, D]`.

        Args:
            attend: from `[B, H, T, D]` thrice to `[B, T, H, D]`, causal.
            query: `[1, H, N, D]`.
            key: the same, perhaps with fewer heads.
            value: the same.
        """
        grouped = zip(*(self._grouped(x) for x in (query, key, value)), strict=True)
        found = [attend(*group).flatten(0, 1) for group in grouped]
        together = found[0] if len(found) == 1 else torch.cat(found)
        if self.in_place:
            return together[None]
        return _Back.apply(together, self.places)[None]  # type: ignore[no-any-return,no-untyped-call]

    def _grouped(self, x: Tensor) -> list[Tensor]:
        """`[1, H, N, D]` as `[B, H, T, D]` of each group."""
        x_SHD: Tensor = x[0].transpose(0, 1)
        if not self.in_place:
            x_SHD = _Padded.apply(x_SHD, self.sources, self.places)  # type: ignore[no-untyped-call]
        sizes = [rows * width for rows, width in self.groups]
        parts = x_SHD.split(sizes)  # type: ignore[no-untyped-call]
        return [
            part.unflatten(0, shape).transpose(1, 2)
            for part, shape in zip(parts, self.groups, strict=True)
        ]


class _Padded(torch.autograd.Function):
    """Tokens to places. What is left over passes no gradient: what was found there is not read."""

    @staticmethod
    def forward(ctx: Any, x_NHD: Tensor, sources: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return x_NHD.index_select(0, sources)

    @staticmethod
    def backward(ctx: Any, grad_SHD: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return grad_SHD.index_select(0, places), None, None


class _Back(torch.autograd.Function):
    """Places to tokens."""

    @staticmethod
    def forward(ctx: Any, x_SHD: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.shape = x_SHD.shape
        return x_SHD.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, grad_NHD: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        return grad_NHD.new_zeros(ctx.shape).index_copy_(0, places, grad_NHD), None
