"""The loss of hidden states, without ever holding their logits.

Logits are the largest tensor of a language model: 32,768 tokens of a 150,000-word vocabulary take
18 GiB in float32, and their gradient as much again. So hidden states pass the head a few at a time:
each chunk's loss is computed and, where a gradient will be asked for, differentiated at once, where
its probabilities lie; only its gradient for the hidden states, the size of the hidden states
themselves, is kept. The head is frozen, so nothing else needs one.

It works on whatever head a base has (`Base.logits`), since autograd differentiates each chunk.

Notation: N tokens, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.base import Base

CHUNK_BYTES = {
    "cpu": 1 << 23,
    "cuda": 1 << 29,
}  # of float32 logits: a core's cache, or a launch's worth


def token_nll(base: Base, hidden_ND: Tensor, target_N: Tensor) -> Tensor:
    """Negative log-likelihood `[N]` (nats) of the tokens after these hidden states.

    Differentiable once, for the hidden states; float64 on such a base, else float32.
    """
    return _TokenNll.apply(hidden_ND, target_N, base)  # type: ignore[no-any-return,no-untyped-call]


class _TokenNll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, target_N: Tensor, base: Base) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        size = _chunk_tokens(base)
        parts = zip(torch.split(hidden_ND, size), torch.split(target_N, size), strict=True)
        chunks = [_chunk(base, hidden, target, wanted) for hidden, target in parts]
        if wanted:
            ctx.save_for_backward(torch.cat([gradient for _, gradient in chunks]))
        return torch.cat([nll for nll, _ in chunks])

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor, None, None]:
        (gradient_ND,) = ctx.saved_tensors
        return gradient_ND * grad_N[:, None].to(gradient_ND.dtype), None, None


def _chunk(base: Base, hidden_ND: Tensor, target_N: Tensor, wanted: bool) -> tuple[Tensor, Tensor]:
    """Loss of each token and its gradient for its own hidden state; that is empty unless wanted."""
    with torch.set_grad_enabled(wanted):
        hidden = hidden_ND.detach().requires_grad_(wanted)
        logits_NV = base.logits(hidden)
    kind = torch.promote_types(logits_NV.dtype, torch.float32)
    log_p_NV = nn.functional.log_softmax(logits_NV.detach(), -1, dtype=kind)
    nll_N = -log_p_NV.gather(1, target_N[:, None])[:, 0]
    if not wanted:
        return nll_N, hidden_ND[:0]
    # The gradient of the loss for the logits: probabilities, less one where the target is.
    gradient_NV = log_p_NV.exp_()
    gradient_NV[torch.arange(len(target_N), device=target_N.device), target_N] -= 1
    given = gradient_NV.to(logits_NV.dtype)
    return nll_N, torch.autograd.grad(logits_NV, hidden, given)[0]


def _chunk_tokens(base: Base) -> int:
    vocabulary: int = base.model.config.get_text_config().vocab_size
    return max(1, CHUNK_BYTES[base.device.type] // (4 * vocabulary))
