"""What Milpa computes otherwise than torch on this processor: how many times faster that is.

Float32 matrix products (`models.products.product`), for the shapes of a small base: its layers, its
head, and LoRAs; a frozen layer's products in bfloat16 (`models.products.FrozenLinear`) for numbers
of positions that hardly come again, as rows of text have them; and attention in bfloat16 with its
backward (`models.attention.attention`), for short rows and long ones. One thread, CPU time, the
best of several, but for what is compiled: once. Results are the same within the numbers' precision.

    python -m benchmarks.products
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from models.attention import attention
from models.products import freeze_linears, product

SHAPES = {  # positions, features in, features out
    "layer, up": (2048, 192, 512),
    "layer, down": (2048, 512, 192),
    "head": (2048, 192, 8192),
    "LoRA A, rank 96": (2048, 192, 96),
    "LoRA A, rank 8": (2048, 192, 8),
    "LoRA B, rank 96": (2048, 96, 512),
}
PASSES = 2000
ROWS = ((64, 20), (32, 40), (16, 100), (8, 256))  # rows and their tokens; 3 heads of 64 features


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print_products()
    print_new_shapes()
    print_attention()


def print_products() -> None:
    """Forward `x wᵀ`, and backward for x."""
    print("| product | positions x in x out | forward | backward |\n| --- | --- | ---: | ---: |")
    for name, (positions, features_in, features_out) in SHAPES.items():
        x, weight = torch.randn(positions, features_in), torch.randn(features_out, features_in)
        grad = torch.randn(positions, features_out)
        torch.testing.assert_close(product(x, weight), x @ weight.T, rtol=1e-4, atol=1e-3)
        forward = _ratio(partial(torch.matmul, x, weight.T), partial(product, x, weight))
        backward = _ratio(partial(torch.matmul, grad, weight), partial(product, grad, weight.T))
        print(
            f"| {name} | {positions} x {features_in} x {features_out} "
            f"| {forward:.2f} | {backward:.2f} |"
        )


def print_new_shapes() -> None:
    """A frozen layer, forward and backward, over positions that seldom come again."""
    plain = torch.nn.Linear(192, 512, bias=False).bfloat16().requires_grad_(False)
    model = torch.nn.Sequential(torch.nn.Linear(192, 512, bias=False)).bfloat16()
    model.load_state_dict({"0.weight": plain.weight})
    freeze_linears(model.requires_grad_(False))
    drawn = torch.randint(32, 2048, (PASSES,), generator=torch.Generator().manual_seed(0)).tolist()
    spent = []
    for layer in (plain, model):
        began = time.thread_time()
        for positions in drawn:
            x = torch.zeros(positions, 192, dtype=torch.bfloat16, requires_grad=True)
            layer(x).sum().backward()
        spent.append(time.thread_time() - began)
    print("\n| a frozen layer in bfloat16, positions | forward and backward |\n| --- | ---: |")
    print(f"| {PASSES} times drawn from 32 to 2,047 | {spent[0] / spent[1]:.2f} |")


def print_attention() -> None:
    """Forward and backward together, causal."""
    print("\n| attention in bfloat16, rows x tokens | forward and backward |\n| --- | ---: |")
    for rows, tokens in ROWS:
        made = [torch.randn(rows, 3, tokens, 64, dtype=torch.bfloat16) for _ in range(3)]
        query, key, value = (tensor.requires_grad_() for tensor in made)
        module = torch.nn.Module()

        def attend(of: Callable[..., Any], inputs: tuple[Any, ...]) -> Tensor:
            out: Tensor = of(*inputs, None, is_causal=True)[0]
            out.sum().backward()  # type: ignore[no-untyped-call]
            return out

        inputs = (module, query, key, value)
        run = [partial(attend, of, inputs) for of in (sdpa_attention_forward, attention)]
        torch.testing.assert_close(run[1](), run[0](), rtol=0.05, atol=0.05)
        print(f"| {rows} x {tokens} | {_ratio(*run):.2f} |")


def _ratio(of_torch: Callable[[], object], of_ours: Callable[[], object]) -> float:
    return _seconds(of_torch) / _seconds(of_ours)


def _seconds(run: Callable[[], object]) -> float:
    """CPU seconds of the best of 20."""
    best = float("inf")
    for _ in range(20):
        began = time.thread_time()
        run()
        best = min(best, time.thread_time() - began)
    return best


if __name__ == "__main__":
    main()
