"""Soft tokens: vectors that stand where the embeddings of a prompt's first tokens would.

A row that has K of them begins with the token ids -1 .. -K, which no vocabulary holds; where it is
read, row i's get the vectors of row i. So positions, lengths, caches and batches treat them as any
other tokens, and the rest of the code knows only ids. The vectors may carry a gradient.

Notation: B rows, T tokens, K soft tokens of a row, D width.

Reference: Lester et al., The Power of Scale for Parameter-Efficient Prompt Tuning, arXiv
2104.08691.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from models.base import Base
from models.prompt import Row


class SoftTokens:
    """The hooks on a base's token embedding. Use `SoftTokens.of(base)`: a base carries one."""

    _made: ClassVar[WeakKeyDictionary[nn.Module, SoftTokens]] = WeakKeyDictionary()

    def __init__(self, base: Base) -> None:
        self._vectors_ND: Tensor | None = None
        self._mask_BT: Tensor | None = None
        embedding: nn.Module = base.model.get_input_embeddings()
        embedding.register_forward_pre_hook(self._hide)
        embedding.register_forward_hook(self._show)

    @classmethod
    def of(cls, base: Base) -> SoftTokens:
        """The soft tokens of a base, hooked at first use."""
        if base.model not in cls._made:
            cls._made[base.model] = cls(base)
        return cls._made[base.model]

    @contextmanager
    def rows(self, vectors: Sequence[Tensor | None]) -> Iterator[None]:
        """Inside, the soft tokens of row i of a batch are the rows of `vectors[i]`, `[K, D]`.

        Every batch inside must hold all of them.
        """
        present = [soft_KD for soft_KD in vectors if soft_KD is not None]
        self._vectors_ND = torch.cat(present) if present else None
        try:
            yield
        finally:
            self._vectors_ND = self._mask_BT = None

    def _hide(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if self._vectors_ND is None:
            return None
        tokens_BT, *rest = inputs
        self._mask_BT = tokens_BT < 0
        return (tokens_BT.clamp(min=0), *rest)

    def _show(self, _module: nn.Module, _inputs: Any, output_BTD: Tensor) -> Tensor | None:
        if self._vectors_ND is None or self._mask_BT is None:
            return None
        mask_BT, self._mask_BT = self._mask_BT, None
        vectors_ND = self._vectors_ND.to(output_BTD.dtype)
        # Row after row and from left to right, which is the order of the vectors.
        return output_BTD.masked_scatter(mask_BT[..., None].expand_as(output_BTD), vectors_ND)


def soft_ids(count: int) -> tuple[int, ...]:
    """The token ids of `count` soft tokens."""
    return tuple(range(-1, -count - 1, -1))


def with_soft(row: Row, count: int, begin: Sequence[int], context: int) -> Row:
    """The row with `count` soft tokens in front, after the tokens that begin every prompt.

    What no longer fits goes: the prompt's oldest tokens first, all but one, then the answer's end.

    Raises:
        ValueError: the context has no room for them.
    """
    if not count:
        return row
    if count + 2 > context:
        raise ValueError(f"expected room for {count} soft tokens, got a context of {context}")
    first = len(begin) if row.tokens[: len(begin)] == tuple(begin) else 0
    head = (*row.tokens[:first], *soft_ids(count))
    prompt, answer = row.tokens[first : row.predict_from], row.tokens[row.predict_from :]
    over = max(0, len(head) + len(prompt) + len(answer) - context)
    of_prompt = min(over, max(0, len(prompt) - 1))
    kept = answer[: len(answer) - (over - of_prompt)]
    tokens = (*head, *prompt[of_prompt:], *kept)
    return Row(tokens, len(tokens) - len(kept), row.cut_tokens + over)


def embedded(base: Base, tokens: Sequence[int]) -> Tensor:
    """Embeddings `[n, D]` of real tokens, at the scale at which soft tokens stand for them.

    Calls no hook, so that it may run while another thread reads soft tokens.
    """
    ids = torch.tensor(list(tokens), dtype=torch.long, device=base.device)
    found: Tensor = base.model.get_input_embeddings().forward(ids)
    return found.detach()


def require_room(base: Base, count: int, method: str) -> None:
    """Refuse a base on whose rows soft tokens would leave too little room for words.

    Raises:
        ValueError: they would take more than half of its context.
    """
    if 2 * count > base.context:
        raise ValueError(
            f"{method}: expected a base with a context of at least {2 * count} tokens, so that "
            f"{count} soft tokens take no more than half of it, got {base.context}; choose fewer "
            f"soft tokens or another base"
        )
