"""Attention inside rows that lie behind one another, and as fast as a CPU allows in bfloat16.

On a CPU a base's attention is this one, where it would be torch's fused one. Given a `Layout`, it
keeps each row to itself. And the backward of torch's takes several times as long on a CPU in
bfloat16 as in float32 where rows are short (`python -m benchmarks.products`). Plain products are no
way out: in bfloat16 each new shape is compiled (`models/products.py`). So where a gradient is asked
for, short rows are attended to in float32. All else is torch's own.

Notation: B rows, H heads, T tokens, S tokens attended to, D features of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from models.layout import Layout

NAME = "milpa"
LONGEST = 192  # tokens of a row; beyond them float32 gains nothing over bfloat16
_KNOWN = {"position_ids", "cache_position", "use_cache", "sliding_window", "output_attentions"}


def take_attention(model: Any) -> None:
    """Gives a model this attention, if it lies on a CPU and has torch's own."""
    if model.config._attn_implementation == "sdpa" and model.device.type == "cpu":
        model.set_attn_implementation(NAME)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    layout: Layout | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """What queries `[B, H, T, D]` attend to in `[B, h, S, D]`, as `[B, T, H, D]`.

    The arguments are those of transformers' attention functions; with a layout, all rows lie in one
    (B is 1), and the mask is not read.
    """
    if layout is not None:

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return attention(
                module, query, key, value, None, scaling=scaling, is_causal=True, **others
            )[0]

        return layout.attended(attend, query, key, value), None
    takes = query.requires_grad and query.dtype == torch.bfloat16 and key.shape[2] <= LONGEST
    if not takes or dropout or others.keys() - _KNOWN:
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            *(module, query, key, value, attention_mask),
            dropout=dropout,
            scaling=scaling,
            is_causal=is_causal,
            **others,
        )
    if attention_mask is not None and attention_mask.dtype != torch.bool:
        attention_mask = attention_mask.float()
    found, _ = sdpa_attention_forward(
        *(module, query.float(), key.float(), value.float(), attention_mask),
        scaling=scaling,
        is_causal=is_causal,
        **others,
    )
    return found.to(query.dtype), None


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
