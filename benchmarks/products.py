"""Float32 matrix products on this processor: torch's own against oneDNN's, which Milpa takes.

Prints how many times faster `models.products.product` is, for the shapes of a small base: its
layers, its head, and LoRAs. One thread, CPU time, the best of several; at least the same within
float32 where a figure is 1.

    python -m benchmarks.products
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch

from models.products import product

SHAPES = {  # positions, features in, features out
    "layer, up": (2048, 192, 512),
    "layer, down": (2048, 512, 192),
    "head": (2048, 192, 8192),
    "LoRA A, rank 96": (2048, 192, 96),
    "LoRA A, rank 8": (2048, 192, 8),
    "LoRA B, rank 96": (2048, 96, 512),
}


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
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
