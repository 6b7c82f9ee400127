"""The low-rank product in bfloat16 on a CPU: what it is filled up with reaches no gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.lowrank import Product, add_products

IN, OUT, RANK = 24, 40, 4


def run(dtype: torch.dtype, tokens: int) -> list[Tensor]:
    """Result and gradients of two memories with two rows each, of `tokens` tokens."""
    generator = torch.Generator().manual_seed(tokens)
    shapes = [(4, tokens, OUT), (4, tokens, IN), *[(RANK, IN), (OUT, RANK)] * 2]
    y, x, *weights = (torch.randn(*shape, generator=generator) for shape in shapes)
    grad = torch.randn(4, tokens, OUT, generator=generator)
    # What is the same in both precisions: else only the rounding of inputs would be compared.
    x, *weights = (t.bfloat16().float().requires_grad_() for t in (x, *weights))
    alone = tuple(Product(slice(2 * i, 2 * i + 2), None, 1) for i in range(2))
    product = Product(slice(0, 4), None, 2, alone)
    found = add_products(y.to(dtype), x.to(dtype), 4, [product], weights)
    found.backward(grad.bfloat16().to(dtype))
    gradients = [t.grad for t in (x, *weights)]
    assert all(t is not None for t in gradients)
    return [found.detach().float(), *(t.float() for t in gradients if t is not None)]


@pytest.mark.parametrize("tokens", [1, 7, 9, 33])  # two rows of nine are filled up; 7 are few
def test_bfloat16_differs_from_float32_by_its_rounding_alone(tokens: int) -> None:
    for exact, found in zip(run(torch.float32, tokens), run(torch.bfloat16, tokens), strict=True):
        assert (found - exact).norm() <= 0.02 * exact.norm()
