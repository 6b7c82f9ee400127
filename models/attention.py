"""Attention as fast as a CPU allows in bfloat16, where it is trained.

torch's fused attention saves memory, and on a CPU its backward in bfloat16 takes several times as
long as the products that it consists of (`python -m benchmarks.products`). So where a gradient is
asked for, rows short enough for their scores to lie in the cache go through plain products. All
others are torch's own.

Notation: B rows, H heads, T tokens, S tokens attended to, D features of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "milpa"
LONGEST = 256  # tokens of a row
_KNOWN = {"position_ids", "cache_position", "use_cache", "sliding_window", "output_attentions"}


def take_attention(model: Any) -> None:
    """Gives a model this attention, if it lies on a CPU in bfloat16 and has torch's own."""
    own = model.config._attn_implementation == "sdpa"
    if own and model.dtype == torch.bfloat16 and model.device.type == "cpu":
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
    **others: Any,
) -> tuple[Tensor, None]:
    """What queries `[B, H, T, D]` attend to in `[B, h, S, D]`, as `[B, T, H, D]`.

    The arguments are those of transformers' attention functions.
    """
    takes = query.requires_grad and query.dtype == torch.bfloat16 and key.shape[2] <= LONGEST
    if not takes or dropout or others.keys() - _KNOWN:
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            *(module, query, key, value, attention_mask),
            dropout=dropout,
            scaling=scaling,
            is_causal=is_causal,
            **others,
        )
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores_BHTS = (query * scale) @ key.mT
    mask = _causal(query, key) if attention_mask is None and is_causal else attention_mask
    if mask is not None:
        scores_BHTS = scores_BHTS + _added(mask, scores_BHTS.dtype)
    return (scores_BHTS.softmax(-1) @ value).transpose(1, 2).contiguous(), None


def _causal(query: Tensor, key: Tensor) -> Tensor:
    """Which of S tokens each of the T last ones may see."""
    t, s = query.shape[2], key.shape[2]
    return torch.ones(t, s, dtype=torch.bool, device=query.device).tril(s - t)


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as a number to add."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
