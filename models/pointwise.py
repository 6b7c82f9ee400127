"""A base's norms and rotations of positions in few passes over memory, on a CPU.

transformers writes both as one small operation after another, and autograd their backward as more
of them. Each goes through all tokens in memory, so on a small base they take longer than their
arithmetic. Here each has its forward and its backward written out: the same numbers but for the
last bits, in any precision; norms are computed in float32 as there.

Norms take their modules' places. What rotates queries and keys is a function of transformers'
modelling file and is replaced there, for all models of the process.

Notation: D features of a token or of a head; "..." whatever stands before them.

References: Zhang & Sennrich, Root Mean Square Layer Normalization, arXiv 1910.07467; Su et al.,
RoFormer, arXiv 2104.09864.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_NORMS = {"LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm"}
_ROTATES = "apply_rotary_pos_emb"

Rotate = Callable[..., tuple[Tensor, Tensor]]


def take_pointwise(model: Any) -> None:
    """Gives a frozen model on a CPU these norms and rotations, where it has their like."""
    if model.device.type != "cpu":
        return
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child).__name__ in _NORMS and child.weight.dtype != torch.float64:
                setattr(parent, name, FrozenNorm(child))
    modelling = sys.modules[type(model).__module__]
    theirs = getattr(modelling, _ROTATES, None)
    if theirs not in (None, rotated) and _is_alike(theirs):
        setattr(modelling, _ROTATES, rotated)


class FrozenNorm(nn.Module):
    """Root mean square normalisation whose weight is never trained."""

    def __init__(self, trained: Any) -> None:
        """The same norm as a module of transformers', with its parameter."""
        super().__init__()
        self.weight, self.variance_epsilon = trained.weight, trained.variance_epsilon

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`[..., D]` of a mean square of 1, times the weight `[D]`."""
        return _Norm.apply(hidden_states, self.weight, self.variance_epsilon)  # type: ignore[no-any-return,no-untyped-call]


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
        wide = x.float()
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight_D, scale)
        normal: Tensor = (wide * scale).to(x.dtype)
        return normal.mul_(weight_D)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, weight_D, scale = ctx.saved_tensors
        wide, weighed = x.float(), (grad * weight_D).float()
        along = torch.linalg.vecdot(weighed, wide)[..., None]
        along *= scale.pow(3).div_(-x.shape[-1])
        return weighed.mul_(scale).addcmul_(wide, along).to(x.dtype), None, None


def rotated(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1
) -> tuple[Tensor, Tensor]:
    """Queries and keys `[..., D]`, their features turned by position, pair by pair.

    A pair is a feature of the first half and its like of the second. Arguments are those of
    transformers' function; where cos and sin have fewer features than D, only these are turned.
    """
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    return turned(q, cos, sin), turned(k, cos, sin)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """One of both; cos and sin have x's dimensions."""
    count = cos.shape[-1]
    if x.shape[-1] == count:
        return _Rotation.apply(x, cos, sin)  # type: ignore[no-any-return,no-untyped-call]
    return torch.cat([turned(x[..., :count], cos, sin), x[..., count:]], dim=-1)


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        (sin_1, sin_2), (x_1, x_2) = sin.chunk(2, -1), x.chunk(2, -1)
        return _with_halves(x * cos, (x_2, sin_1, -1), (x_1, sin_2, 1))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        (sin_1, sin_2), (grad_1, grad_2) = sin.chunk(2, -1), grad.chunk(2, -1)
        return _with_halves(grad * cos, (grad_2, sin_2, 1), (grad_1, sin_1, -1)), None, None


def _with_halves(y: Tensor, *products: tuple[Tensor, Tensor, int]) -> Tensor:
    """`y` with a signed product added to each half of its features, in place."""
    for half, (x, factor, sign) in zip(y.chunk(2, -1), products, strict=True):
        half.addcmul_(x, factor, value=sign)
    return y


def _is_alike(theirs: Rotate) -> bool:
    """Whether a function turns drawn numbers as `rotated` does."""
    generator = torch.Generator().manual_seed(0)
    q, k, cos, sin = (torch.randn(1, 2, 3, 8, generator=generator) for _ in range(4))
    given = (q, k, cos[:, 0], sin[:, 0])
    pairs = zip(theirs(*given), rotated(*given), strict=True)
    return all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)
