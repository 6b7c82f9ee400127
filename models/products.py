"""Matrix products as fast as the processor allows: x wᵀ, for memories and for the frozen base.

torch multiplies float32 matrices on a CPU with MKL, which takes a path half as wide as the
registers of processors not made by Intel. Some of them are as fast on that path; others compute
twice as much with oneDNN, which torch carries too, in true float32. But oneDNN compiles a product
for every new shape, and rows of text have a great many shapes. So a process measures both once, and
takes oneDNN only where it is clearly faster (`benchmarks/products.py` shows by how much). All
other products are torch's own.

Notation: N products, P positions, I and O features in and out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

CLEARLY = 1.4  # times as fast; less is lost again on new shapes, and might be chance
_SIDE = 256  # of the matrices that tell


def takes(tensor: Tensor) -> bool:
    """Whether oneDNN is to multiply it."""
    on_cpu = tensor.dtype == torch.float32 and tensor.device.type == "cpu"
    return on_cpu and onednn_pays()


@cache
def onednn_pays() -> bool:
    """Whether oneDNN is clearly faster than torch on this processor: measured once a process."""
    if not torch._C._has_mkldnn:
        return False
    x, weight = torch.ones(_SIDE, _SIDE), torch.ones(_SIDE, _SIDE)
    return _seconds(lambda: x @ weight.T) > CLEARLY * _seconds(lambda: _onednn(x, weight))


def _seconds(multiply: Callable[[], Tensor]) -> float:
    """CPU-seconds of the best of many: the first ones are slow."""
    spent = []
    for _ in range(64):
        began = time.thread_time()
        multiply()
        spent.append(time.thread_time() - began)
    return min(spent)


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
