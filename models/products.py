"""Matrix products as fast as the processor allows: x wᵀ, for memories and for the frozen base.

oneDNN compiles a product for every new shape, which takes longer than a product of a small base,
and rows of text have a great many shapes. On a CPU that matters twice:

    bfloat16    torch has no other way. So positions are filled up with zeros to one of few numbers
                (`filled`), and shapes come again.
    float32     torch multiplies with MKL, which takes a path half as wide as the registers of
                processors not made by Intel. Some of them are as fast on that path; others compute
                twice as much with oneDNN. So a process measures both once, and takes oneDNN only
                where it is clearly faster.

`python -m benchmarks.products` shows by how much. All other products are torch's own.

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
_FEW = 16  # positions


def takes(tensor: Tensor) -> bool:
    """Whether it is to be multiplied otherwise than torch does."""
    return compiles(tensor) or (_on_cpu(tensor, torch.float32) and onednn_pays())


def compiles(tensor: Tensor) -> bool:
    """Whether torch compiles a product of it for every new shape."""
    return _on_cpu(tensor, torch.bfloat16) and torch._C._has_mkldnn


def _on_cpu(tensor: Tensor, dtype: torch.dtype) -> bool:
    return tensor.dtype == dtype and tensor.device.type == "cpu"


def filled(x: Tensor) -> Tensor:
    """`[..., P, I]` with zeros for more positions, where their number would be compiled anew."""
    positions = x.shape[-2]
    room = _room(positions) if compiles(x) else positions
    if room == positions:
        return x
    made = x.new_empty(*x.shape[:-2], room, x.shape[-1])
    made[..., :positions, :] = x
    made[..., positions:, :] = 0
    return made


def _room(positions: int) -> int:
    """The next of few numbers, at most a quarter larger; small ones, generation's, come again."""
    if positions <= _FEW:
        return positions
    step = max(_FEW, 1 << (positions - 1).bit_length() - 3)
    return -(-positions // step) * step


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
    if weight.dim() == 3 and len(weight) == 1:  # a batched product takes longer over one
        return product(x[0], weight[0])[None]
    if not _on_cpu(x, torch.float32) or not onednn_pays():
        return x @ weight.mT
    if weight.dim() == 2:
        return _onednn(x, weight)
    return torch.stack([_onednn(*pair) for pair in zip(x, weight, strict=True)])


def add_product(into: Tensor, x: Tensor, weight: Tensor) -> None:
    """Adds `x wᵀ` to `[N, P, O]` in place: `[N, P, I]` and `[N, O, I]`, not differentiable."""
    if takes(x):
        into += product(x, weight)  # oneDNN adds no faster
    elif len(weight) == 1:
        into[0].addmm_(x[0], weight[0].T)
    else:
        into.baddbmm_(x, weight.mT)


def _onednn(x: Tensor, weight_OI: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight_OI, None, "none", [], "")  # type: ignore[no-any-return]


class FrozenLinear(nn.Linear):
    """A linear layer whose weight is never trained: `product` forward and backward, filled."""

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
        return _of_filled(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return _of_filled(grad, weight.T), None


def _of_filled(x: Tensor, weight: Tensor) -> Tensor:
    """`x wᵀ` by way of more positions. What is left of them is no view: a hook may change it."""
    return product(filled(x), weight).resize_(len(x), len(weight))


def freeze_linears(model: nn.Module) -> None:
    """Put a `FrozenLinear` in the place of each linear layer that gains by it; same parameters."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear and takes(child.weight):
                setattr(parent, name, FrozenLinear(child))
