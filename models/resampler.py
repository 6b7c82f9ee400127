"""Any number of vectors to a fixed few: learned latents attend to them once.

One block of a Perceiver resampler: cross-attention from K latents to the vectors, then a
feed-forward network, both behind layer norms and beside a residual. A vector may be added to the
latents, so that what is read depends on what is asked.

Notation: P people, n vectors of the longest, S width, K latents.

Reference: Jaegle et al., Perceiver, arXiv 2103.03206; as a resampler, Alayrac et al., Flamingo,
arXiv 2204.14198, section 3.1.1.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

HEADS = 4


class Resampler(nn.Module):
    """The latents, and what they read with."""

    def __init__(self, latents: int, width: int) -> None:
        """Fresh weights, from torch's own generator; `width` must be a multiple of the heads."""
        super().__init__()
        self.latents = nn.Parameter(torch.randn(latents, width))
        self.norm_latents, self.norm_read = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.norm_out = nn.LayerNorm(width)

    def forward(
        self, read_PnS: Tensor, empty_Pn: Tensor | None = None, asked_PS: Tensor | None = None
    ) -> Tensor:
        """`[P, K, S]`, of about unit scale, of what is not empty in `read_PnS`."""
        latents_PKS = self._latents(len(read_PnS), asked_PS)
        found_PKS, _ = self._attend(latents_PKS, read_PnS, empty_Pn, weights=False)
        mixed_PKS = latents_PKS + found_PKS
        return self.norm_out(mixed_PKS + self.feed_forward(mixed_PKS))  # type: ignore[no-any-return]

    def masses(self, read_PnS: Tensor, asked_PS: Tensor | None = None) -> Tensor:
        """`[P, n]`: which share of the attention each vector gets, over latents and heads."""
        latents_PKS = self._latents(len(read_PnS), asked_PS)
        _, weights_PKn = self._attend(latents_PKS, read_PnS, None, weights=True)
        return cast(Tensor, weights_PKn).mean(1)

    def _latents(self, people: int, asked_PS: Tensor | None) -> Tensor:
        latents_PKS = self.latents.expand(people, -1, -1)
        return latents_PKS if asked_PS is None else latents_PKS + asked_PS[:, None]

    def _attend(
        self, latents_PKS: Tensor, read_PnS: Tensor, empty_Pn: Tensor | None, weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        read_PnS = self.norm_read(read_PnS)
        return self.attention(  # type: ignore[no-any-return]
            self.norm_latents(latents_PKS),
            read_PnS,
            read_PnS,
            key_padding_mask=empty_Pn,
            need_weights=weights,
        )
