"""The low-rank product of many memories, added to a frozen layer's output: B A x, row by row.

A product is one batched multiplication: the memories of one rank with about as many rows each.
Where their row counts differ, the places that are left over hold another row's copy, whose part is
thrown away; ranks are never padded. What multiplies is in the layer's own precision (bfloat16 on
most bases); weights and their gradients are float32. On a CPU, where a batched product of many
tokens is no faster than its parts, every memory's rows are multiplied where they lie; and few
bfloat16 tokens in float32, rounded as if they were not: every number of them would be compiled
(`models/products.py`).

The backward is written out, because autograd would keep what is cheap to make again: copies of the
chosen rows and the stacked weights. Kept are the layer's input, the weights, and A x, which is
small (R wide) and would be a sixth of a training's low-rank products to compute again.

Notation: B rows, T tokens, I and O features in and out, R rank, N memories of a product, K rows
each, P = K T positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.products import add_product, compiles, filled
from models.products import product as multiplied

MANY = 64  # positions of a memory; below, as in generation, a call costs more than its products


@dataclass(frozen=True)
class Product:
    """Rows `[N*K]` of a batch, and how many memories share them.

    Attributes:
        rows: memory by memory; a slice where they lie together and none is left over.
        real: places in `rows` that are no left-over copies; None where all are real.
        memories: N.
        alone: the same as a product for each memory; empty where N is 1.
    """

    rows: Tensor | slice
    real: Tensor | None
    memories: int
    alone: tuple[Product, ...] = ()

    @property
    def width(self) -> int:
        """K: rows of each memory, left-over places among them."""
        rows = self.rows
        return (rows.stop - rows.start if isinstance(rows, slice) else len(rows)) // self.memories


def add_products(
    y: Tensor, x: Tensor, row_count: int, products: Sequence[Product], weights: Sequence[Tensor]
) -> Tensor:
    """`y` with every product added, in place: a frozen linear layer's backward never reads it.

    Args:
        y: the layer's output, `[B, T, O]` or `[B*T, O]`.
        x: its input, likewise.
        row_count: B; a row may be a single token.
        products: which rows go together; a row occurs in at most one.
        weights: A `[R, I]` and B `[O, R]` of each memory of each product, in turn.
    """
    if x.device.type == "cpu":
        tokens = x.shape[:-1].numel() // row_count
        products = [
            one
            for product in products
            for one in (product.alone if product.width * tokens >= MANY else ()) or (product,)
        ]
    return _Products.apply(y, x, row_count, products, *weights)  # type: ignore[no-any-return,no-untyped-call]


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        x: Tensor,
        row_count: int,
        products: Sequence[Product],
        *weights: Tensor,
    ) -> Tensor:
        ctx.products, ctx.row_count = products, row_count
        ctx.mark_dirty(y)
        x_BTI, y_BTO = _by_row(x, row_count), _by_row(y, row_count)
        hidden: list[Tensor] = []
        for product, pairs in _with_pairs(products, weights):
            kind = _kind(x_BTI, product)
            a_NRI, b_NOR = _stacked(pairs, x.dtype)
            hidden.append(_times(_chosen(x_BTI, product), a_NRI, kind))
            _add(y_BTO, hidden[-1], b_NOR, kind, product)
        ctx.save_for_backward(x, *hidden, *weights)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        hidden, weights = saved[: len(ctx.products)], saved[len(ctx.products) :]
        x_BTI, grad_BTO = _by_row(x, ctx.row_count), _by_row(grad_y, ctx.row_count)
        grad_x = torch.zeros_like(x) if ctx.needs_input_grad[1] else None
        grads: list[Tensor] = []
        for (product, pairs), h_NPR in zip(_with_pairs(ctx.products, weights), hidden, strict=True):
            kind = _kind(x_BTI, product)
            a_NRI, b_NOR = _stacked(pairs, x.dtype)
            x_NPI, grad_NPO = _chosen(x_BTI, product), _chosen(grad_BTO, product, blank=True)
            grad_NPR = _times(grad_NPO, b_NOR.mT, kind)
            grad_a_NRI = _times(grad_NPR.mT, x_NPI.mT, kind)
            # Its transpose: a tall transposed left side is slow in bfloat16 on a CPU.
            grad_b_NRO = _times(h_NPR.mT, grad_NPO.mT, kind)
            for (a_RI, b_OR), grad_a, grad_b in zip(pairs, grad_a_NRI, grad_b_NRO, strict=True):
                grads += [grad_a.to(a_RI.dtype), grad_b.T.to(b_OR.dtype).contiguous()]
            if grad_x is not None:
                grad_x_BTI = _by_row(grad_x, ctx.row_count)
                _add(grad_x_BTI, grad_NPR, a_NRI.mT, kind, product)
        return (grad_y, grad_x, None, None, *grads)


Pair = tuple[Tensor, Tensor]


def _kind(x_BTI: Tensor, product: Product) -> torch.dtype:
    """What is multiplied in: for few positions in bfloat16, float32."""
    few = product.width * x_BTI.shape[1] < MANY
    return torch.float32 if few and compiles(x_BTI) else x_BTI.dtype


def _times(x: Tensor, weight: Tensor, kind: torch.dtype) -> Tensor:
    """`x wᵀ` of numbers of one precision, multiplied in another."""
    return multiplied(x.to(kind), weight.to(kind)).to(x.dtype)


def _with_pairs(
    products: Sequence[Product], weights: Sequence[Tensor]
) -> list[tuple[Product, list[Pair]]]:
    pairs = list(zip(weights[::2], weights[1::2], strict=True))
    result = []
    for product in products:
        result.append((product, pairs[: product.memories]))
        pairs = pairs[product.memories :]
    return result


def _by_row(tensor: Tensor, row_count: int) -> Tensor:
    """`[B, T, features]`; OPT flattens rows and tokens before its feed-forward layers."""
    return tensor.view(row_count, -1, tensor.shape[-1])


def _stacked(pairs: Sequence[Pair], dtype: torch.dtype) -> Pair:
    """A `[N, R, I]` and B `[N, O, R]` in the layer's precision. One memory needs no copy."""
    if len(pairs) == 1:
        a_RI, b_OR = pairs[0]
        return a_RI.to(dtype)[None], b_OR.to(dtype)[None]
    return (
        torch.stack([a for a, _ in pairs]).to(dtype),
        torch.stack([b for _, b in pairs]).to(dtype),
    )


def _chosen(tensor_BTF: Tensor, product: Product, blank: bool = False) -> Tensor:
    """`[N, P, features]` of a product's rows, filled; `blank` zeroes left-over places."""
    chosen = tensor_BTF[product.rows]
    if blank and product.real is not None:
        kept = torch.zeros_like(chosen)
        kept[product.real] = chosen[product.real]
        chosen = kept
    return filled(chosen.reshape(product.memories, -1, tensor_BTF.shape[-1]))


def _add(
    into_BTF: Tensor, x_NPI: Tensor, weight_NFI: Tensor, kind: torch.dtype, product: Product
) -> None:
    """Add `x wᵀ` to a product's rows, in place; not what it was filled up with."""
    rows, positions = product.rows, product.width * into_BTF.shape[1]
    if isinstance(rows, slice) and x_NPI.dtype == kind and x_NPI.shape[1] == positions:
        into_NPF = into_BTF[rows].view(product.memories, positions, -1)
        add_product(into_NPF, x_NPI, weight_NFI)
        return
    part_NPF = _times(x_NPI, weight_NFI, kind)
    part = part_NPF[:, :positions].reshape(-1, *into_BTF.shape[1:])
    if isinstance(rows, slice):
        into_BTF[rows] += part
        return
    if product.real is not None:
        rows, part = rows[product.real], part[product.real]
    into_BTF.index_add_(0, rows, part)
