"""Attention in bfloat16 on a CPU: as near to float64 as torch's own, in every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from models import attention
from models.base import Base
from models.loss import row_nll
from models.prompt import Row
from tests.tiny import ALL_FAMILIES, tiny_base, tiny_model, tiny_tokenizer

ROWS = [Row(tuple(range(5, 5 + n)), 1) for n in (3, 17, 60)]


def grouped(dtype: torch.dtype) -> Base:
    """Two heads that share keys and values, as large models have them."""
    model = tiny_model("llama", dtype)
    config = model.config
    config.num_key_value_heads = 1
    torch.manual_seed(1)
    return Base.wrap("grouped", type(model)(config).to(dtype), tiny_tokenizer())


def input_gradient(base: Base) -> tuple[Tensor, Tensor]:
    """Loss of each row, and its gradient for the embedded tokens."""
    held: list[Tensor] = []

    def hold(_module: torch.nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        held.append(output.detach().requires_grad_())
        return held[-1]

    hook = base.model.get_input_embeddings().register_forward_hook(hold)
    nll_B = row_nll(base, ROWS)
    hook.remove()
    torch.autograd.backward(nll_B.sum())
    gradient = held[0].grad
    assert gradient is not None
    return nll_B.detach().double(), gradient.double()


@pytest.mark.parametrize("family", [*ALL_FAMILIES, "grouped"])
def test_gradients_are_as_near_to_float64_as_those_of_torch(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = grouped if family == "grouped" else lambda dtype: tiny_base(family, dtype)
    true_nll, true_gradient = input_gradient(make(torch.float64))
    errors = []
    for longest in (attention.LONGEST, 0):  # 0: torch's own for every row
        monkeypatch.setattr(attention, "LONGEST", longest)
        nll, gradient = input_gradient(make(torch.bfloat16))
        torch.testing.assert_close(nll, true_nll, rtol=0.03, atol=0.1)
        errors.append(float((gradient - true_gradient).norm() / true_gradient.norm()))
    assert errors[0] <= 1.3 * errors[1]


def test_float32_is_taken_where_a_gradient_of_bfloat16_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = tiny_base(dtype=torch.bfloat16)
    assert base.model.config._attn_implementation == attention.NAME
    assert attention.NAME not in base.model.config.to_json_string()

    seen: list[torch.dtype] = []
    own = attention.sdpa_attention_forward

    def watched(module: torch.nn.Module, query: Tensor, *others: Any, **more: Any) -> Any:
        seen.append(query.dtype)
        return own(module, query, *others, **more)

    monkeypatch.setattr(attention, "sdpa_attention_forward", watched)
    with torch.no_grad():
        row_nll(base, ROWS)
    assert set(seen) == {torch.bfloat16}
    seen.clear()
    input_gradient(base)
    assert set(seen) == {torch.float32}
