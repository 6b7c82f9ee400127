"""A small network from vectors that describe a user to soft tokens that the base can read.

Linear - GELU - Linear, as in PPlug and E2P. What comes out is brought to the length of the base's
own token embeddings: root mean square normalised, times their mean norm, times a learned gain that
begins at 1. PPlug multiplies by a constant that fits one model; this fits every base.

Plain tensors in float32 (float64 on such a base), without a user or a file: a method keeps them in
its `Shared` under names.

Notation: E features in, D width of the base.

References: Liu et al., LLMs + Persona-Plug = Personalized LLMs, arXiv 2409.11901; Huber et al.,
Embedding-to-Prefix, arXiv 2505.17051.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from models.base import Base
from models.soft import embedded

CHUNK_TOKENS = 8192  # embeddings measured at once

_norms: WeakKeyDictionary[nn.Module, float] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Projection:
    """The weights, by name, and the length of what comes out at a gain of 1.

    `input.weight` is `[D, E]`, `output.weight` `[D, D]`, their biases `[D]`, `gain` a number.
    """

    norm: float
    weights: Mapping[str, Tensor]

    @classmethod
    def initialise(cls, base: Base, features_in: int, generator: torch.Generator) -> Projection:
        """Fresh weights that take a gradient: Kaiming-uniform, biases zero.

        So at first only what goes in says what comes out. Inputs are best about 1 in root mean
        square.

        Args:
            base: whose soft tokens come out.
            features_in: E.
            generator: on the CPU, so that the draw is the same on every device.
        """
        kind = parameter_kind(base)
        weights = {}
        for name, shape in _shapes(base, features_in).items():
            tensor = torch.zeros(shape, dtype=kind)
            if name.endswith("weight"):
                nn.init.kaiming_uniform_(tensor, a=math.sqrt(5), generator=generator)
            elif name == "gain":
                tensor.fill_(1.0)
            weights[name] = tensor.to(base.device).requires_grad_()
        return cls(embedding_norm(base), weights)

    @classmethod
    def from_tensors(
        cls, base: Base, tensors: Mapping[str, Tensor], name: str, features_in: int
    ) -> Projection:
        """The projection that `tensors` hold under `name`, on the base's device.

        Raises:
            ValueError: a tensor is missing or has another shape.
        """
        shapes = {f"{name}.{part}": s for part, s in _shapes(base, features_in).items()}
        found = checked(tensors, shapes)
        weights = {part.removeprefix(f"{name}."): t.to(base.device) for part, t in found.items()}
        return cls(embedding_norm(base), weights)

    def __call__(self, features: Tensor) -> Tensor:
        """Soft tokens `[..., D]` of features `[..., E]`."""
        return self.read_out(self.inner(features))

    def inner(self, features: Tensor) -> Tensor:
        """What lies between the two layers, `[..., D]`, of features `[..., E]`."""
        weight = self.weights["input.weight"]
        linear = nn.functional.linear(features.to(weight.dtype), weight, self.weights["input.bias"])
        return nn.functional.gelu(linear)

    def read_out(self, inner: Tensor) -> Tensor:
        """Soft tokens `[..., D]` of what lies between the layers, or of a mean of it, `[..., D]`.

        The second layer is linear: a weighted mean may be taken before it.
        """
        made = nn.functional.linear(
            inner, self.weights["output.weight"], self.weights["output.bias"]
        )
        length = self.norm / math.sqrt(made.shape[-1])
        return nn.functional.rms_norm(made, made.shape[-1:]) * length * self.weights["gain"]

    def parameters(self) -> list[Tensor]:
        """All weights, in a stable order."""
        return [self.weights[name] for name in sorted(self.weights)]

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Detached copies on the CPU, as `<name>.<weight>`."""
        return {
            f"{name}.{part}": tensor.detach().cpu().clone() for part, tensor in self.weights.items()
        }


def parameter_kind(base: Base) -> torch.dtype:
    """What is trained on a base lies in float32, whatever it computes in (float64 in float64)."""
    return torch.promote_types(base.dtype, torch.float32)


def checked(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """The tensors of these names.

    Raises:
        ValueError: one is missing or has another shape.
    """
    for name, shape in shapes.items():
        got = tuple(tensors[name].shape) if name in tensors else "none"
        if got != shape:
            raise ValueError(f"expected a tensor {name} of shape {shape}, got {got}")
    return {name: tensors[name] for name in shapes}


@torch.no_grad()
def embedding_norm(base: Base) -> float:
    """Mean norm of the base's token embeddings, measured once."""
    if base.model not in _norms:
        count = int(base.model.get_input_embeddings().weight.shape[0])
        starts = range(0, count, CHUNK_TOKENS)
        sums = [
            embedded(base, range(start, min(start + CHUNK_TOKENS, count))).double().norm(dim=1)
            for start in starts
        ]
        _norms[base.model] = float(torch.cat(sums).mean())
    return _norms[base.model]


def _shapes(base: Base, features_in: int) -> dict[str, tuple[int, ...]]:
    width = base.width
    return {
        "input.weight": (width, features_in),
        "input.bias": (width,),
        "output.weight": (width, width),
        "output.bias": (width,),
        "gain": (),
    }
