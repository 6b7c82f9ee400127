"""Gated cross-attention: vectors that a row's hidden states attend to, after chosen layers.

After such a layer, h becomes `h + tanh(g) CrossAttention(h, Z W_k, Z W_v)`: row i attends to the
keys and values of its own Z, rows without any pass through untouched. A gate begins at zero, where
the base answers as if nothing were there. No token is added, so prompts and caches are the base's;
but what a layer adds, the keys above it see: the same vectors are needed in the prefill and at
every token after it.

What is added does not depend on a row's neighbours. Hidden states are normalised before they ask,
since a base's grow from layer to layer.

Notation: B rows, T tokens, D width of the base, L layers that attend, K vectors of a row, S width
of such a vector, E width of all heads together, H heads.

References: Ning et al., User-LLM, arXiv 2402.13598; the gate is that of Alayrac et al., Flamingo,
arXiv 2204.14198, equation 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from models.base import Base


class CrossAttention(nn.Module):
    """The weights of all layers that attend: shared by the rows that attend through them."""

    def __init__(self, layers: Sequence[int], width: int, source: int, heads: int) -> None:
        """Fresh weights, from torch's own generator.

        Args:
            layers: numbers of the base's layers.
            width: D.
            source: S, which is E too.
            heads: H.

        Raises:
            ValueError: the heads don't divide the width, or there are no layers.
        """
        super().__init__()
        if not layers or source % heads:
            raise ValueError(
                f"expected layers, and heads that divide a width of {source}, got "
                f"{len(layers)} layers and {heads} heads"
            )
        self.layers, self.heads = tuple(layers), heads
        count = len(layers)
        self.query_LDE = nn.Parameter(torch.randn(count, width, source) * width**-0.5)
        self.key_LSE = nn.Parameter(torch.randn(count, source, source) * source**-0.5)
        self.value_LSE = nn.Parameter(torch.randn(count, source, source) * source**-0.5)
        self.out_LED = nn.Parameter(torch.randn(count, source, width) * source**-0.5)
        self.gate_L = nn.Parameter(torch.zeros(count))

    def attended(self, vectors_BKS: Tensor) -> list[Attended]:
        """What each of B rows attends to, of its own vectors."""
        keys_BLKE = torch.einsum("bks,lse->blke", vectors_BKS, self.key_LSE)
        values_BLKE = torch.einsum("bks,lse->blke", vectors_BKS, self.value_LSE)
        return [Attended(self, *pair) for pair in zip(keys_BLKE, values_BLKE, strict=True)]

    def forward(self, hidden_BTD: Tensor, keys_BKE: Tensor, values_BKE: Tensor, at: int) -> Tensor:
        """What the layer at place `at` adds to hidden states, `[B, T, D]`."""
        normal_BTD = nn.functional.layer_norm(hidden_BTD, hidden_BTD.shape[-1:])
        mixed_BHTE = nn.functional.scaled_dot_product_attention(
            self._of_heads(normal_BTD @ self.query_LDE[at]),
            self._of_heads(keys_BKE),
            self._of_heads(values_BKE),
        )
        mixed_BTE = mixed_BHTE.transpose(1, 2).flatten(2)
        return torch.tanh(self.gate_L[at]) * (mixed_BTE @ self.out_LED[at])

    def _of_heads(self, wide: Tensor) -> Tensor:
        return wide.reshape(*wide.shape[:2], self.heads, -1).transpose(1, 2)


@dataclass(frozen=True, eq=False)
class Attended:
    """What one row attends to: keys and values `[L, K, E]`, and through which weights."""

    network: CrossAttention
    keys: Tensor
    values: Tensor


@dataclass(frozen=True, eq=False)
class _Group:
    """Rows of a batch that attend through the same weights; keys and values `[B, L, K, E]`."""

    network: CrossAttention
    rows: Tensor
    keys: Tensor
    values: Tensor

    def add(self, hidden_BTD: Tensor, layer: int) -> Tensor:
        """The hidden states of the whole batch after a layer, with what these rows attend to."""
        if layer not in self.network.layers:
            return hidden_BTD
        at = self.network.layers.index(layer)
        own_BTD = hidden_BTD.index_select(0, self.rows).to(self.keys.dtype)
        added_BTD = self.network(own_BTD, self.keys[:, at], self.values[:, at], at)
        return hidden_BTD.index_add(0, self.rows, added_BTD.to(hidden_BTD.dtype))


class Attending:
    """The hooks on a base's layers. Use `Attending.of(base)`: a base carries one."""

    _made: ClassVar[WeakKeyDictionary[nn.Module, Attending]] = WeakKeyDictionary()

    def __init__(self, base: Base) -> None:
        self._device = base.device
        self._groups: list[_Group] = []
        for number, layer in enumerate(base.layers):
            layer.register_forward_hook(self._hook(number))

    @classmethod
    def of(cls, base: Base) -> Attending:
        """The cross-attention of a base, hooked at first use."""
        if base.model not in cls._made:
            cls._made[base.model] = cls(base)
        return cls._made[base.model]

    @contextmanager
    def rows(self, attended: Sequence[Attended | None]) -> Iterator[None]:
        """Inside, row i of every batch attends to `attended[i]`; None is the base alone."""
        rows_of: dict[CrossAttention, list[int]] = {}
        for row, one in enumerate(attended):
            if one is not None:
                rows_of.setdefault(one.network, []).append(row)
        self._groups = [
            self._group(network, rows, [one for row in rows if (one := attended[row])])
            for network, rows in rows_of.items()
        ]
        try:
            yield
        finally:
            self._groups = []

    def _group(
        self, network: CrossAttention, rows: Sequence[int], of_rows: Sequence[Attended]
    ) -> _Group:
        keys_BLKE = torch.stack([one.keys for one in of_rows])
        values_BLKE = torch.stack([one.values for one in of_rows])
        return _Group(network, torch.tensor(rows, device=self._device), keys_BLKE, values_BLKE)

    def _hook(self, layer: int):  # type: ignore[no-untyped-def]
        def attend(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            if not self._groups:
                return None
            # Some families' layers give a tuple that begins with the hidden states.
            hidden_BTD: Tensor = output[0] if isinstance(output, tuple) else output
            for group in self._groups:
                hidden_BTD = group.add(hidden_BTD, layer)
            return (hidden_BTD, *output[1:]) if isinstance(output, tuple) else hidden_BTD

        return attend
