"""Layers that keep nothing but their input for the backward pass, and compute the rest again.

Gradient checkpointing, as an exchange: of a layer only its input is kept (two bytes a feature),
for one more forward pass. It pays where memory is short of filling the device: a large base, long
rows. Nothing else changes: a frozen base drops nothing at random, so what is computed again is what
was computed.

Inside `recomputed(base)`, whatever hooks the layers' matrices (`models/bank.py`) runs again in the
backward pass, so that has to end inside the same `Bank.rows`, as `models/trainer.py` does.

This file is not transformers' own switch, since that one acts in training mode, where some
families drop features at random.

Reference: Chen et al., Training Deep Nets with Sublinear Memory Cost, arXiv 1604.06174.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from models.base import Base


@contextmanager
def recomputed(base: Base) -> Iterator[None]:
    """Inside, every pass with gradients keeps only the inputs of the base's layers."""
    layers = list(base.layers)
    for layer in layers:
        layer.forward = partial(_forward, layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the class's own is found again


def _forward(forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **named)
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, **named)
