"""Matrix products as fast as the processor allows: x wᵀ, for memories and for the frozen base.

torch multiplies float32 matrices on a CPU with MKL, which takes a path half as wide as the
processor on those not made by Intel; oneDNN, which torch carries too, does not
(`benchmarks/products.py` measures both). So float32 products on a CPU go to oneDNN, in true
float32. All others are torch's own.

Notation: N products, P positions, I and O features in and out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def takes(tensor: Tensor) -> bool:
    """Whether oneDNN is to multiply it."""
    on_cpu = tensor.dtype == torch.float32 and tensor.device.type == "cpu"
    return on_cpu and torch._C._has_mkldnn


def product(x: Tensor, weight: Tensor) -> Tensor:
    """`x wᵀ`: `[..., P, I]` and `[..., O, I]` to `[..., P, O]`, not differentiable.

    Either may be a transposed view.
    """
    if not takes(x):
        return x @ weight.mT
    if weight.dim() == 2:
        return _onednn(x, weight)
    if len(weight) == 1:
        return _onednn(x[0], weight[0])[None]
    return torch.stack([_onednn(*pair) for pair in zip(x, weight, strict=True)])


def _onednn(x: Tensor, weight_OI: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight_OI, None, "none", [], "")  # type: ignore[no-any-return]


class FrozenLinear(nn.Linear):
    """A linear layer whose weight is never trained: `product` forward and backward."""

    def __init__(self, trained: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.out_features, self.in_features = trained.weight.shape
        self.weight, self.bias = trained.weight, trained.bias

    def forward(self, input: Tensor) -> Tensor:
        """`x wᵀ + bias`."""
        # Flat, since oneDNN's results for more dimensions are views, which refuse changes in place.
        y_PO: Tensor = _Frozen.apply(input.flatten(0, -2), self.weight)  # type: ignore[no-untyped-call]
        y = y_PO.view(*input.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias


class _Frozen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return product(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return product(grad, weight.T), None


def freeze_linears(model: nn.Module) -> None:
    """Put a `FrozenLinear` in the place of each linear layer that gains by it; same parameters."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear and takes(child.weight):
                setattr(parent, name, FrozenLinear(child))
