"""The bank computes what PEFT's own layers compute, for every family, row by row."""

from __future__ import annotations

import peft
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from models.bank import Bank, Memory
from models.base import Base
from models.personalizer import UserState
from search.space import MemoryConfig
from tests.tiny import ALL_FAMILIES, tiny_base, tiny_model

TOKENS = torch.arange(6, 6 + 3 * 11).reshape(3, 11)


def random_memory(
    base: Base, layers: tuple[int, ...], rank: int, seed: int, on_attention: bool = False
) -> Memory:
    """A memory that does something: B is not zero."""
    memory = Memory.initialise(base, MemoryConfig(layers, rank, 1e-3), seed, on_attention)
    generator = torch.Generator().manual_seed(seed + 100)
    with torch.no_grad():
        for _, b_OR in memory.pairs.values():
            b_OR.copy_(torch.randn(b_OR.shape, generator=generator, dtype=b_OR.dtype) * 0.1)
    return memory


def peft_logits(family: str, memory: Memory, tokens: Tensor) -> Tensor:
    """Logits of a fresh model wrapped by PEFT with the memory's weights."""
    model = tiny_model(family, torch.float64)
    config = peft.LoraConfig(
        r=memory.rank,
        lora_alpha=memory.rank,
        target_modules=list(memory.pairs),
        fan_in_fan_out=family == "gpt2",
    )
    wrapped = peft.get_peft_model(model, config, autocast_adapter_dtype=False).double().eval()
    state = {f"base_model.model.{name}": tensor for name, tensor in memory.tensors().items()}
    loaded = peft.set_peft_model_state_dict(wrapped, state)
    assert not loaded.unexpected_keys
    with torch.no_grad():
        return wrapped(tokens).logits


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_each_row_runs_under_its_own_memory_as_peft_computes_it(family: str) -> None:
    base = tiny_base(family, torch.float64)
    first = random_memory(base, (0, 2), 4, 1)
    second = random_memory(base, (1, 3), 7, 2, on_attention=True)
    with torch.no_grad(), Bank.of(base).rows([first, None, second]):
        got = base.logits(base.hidden(TOKENS))
    with torch.no_grad():
        plain = tiny_model(family, torch.float64).eval()(TOKENS[1:2]).logits
    assert_close(got[0:1], peft_logits(family, first, TOKENS[0:1]), rtol=0, atol=1e-9)
    assert_close(got[1:2], plain, rtol=0, atol=1e-9)
    assert_close(got[2:3], peft_logits(family, second, TOKENS[2:3]), rtol=0, atol=1e-9)
    assert (got[0] - got[1]).abs().max() > 1e-3


@pytest.mark.parametrize("order", [[0, 1, 0, 1, 2], [1, 1, 2, 0, 0], [2, 2, 2, 2, 2]])
def test_rows_of_equal_rank_in_any_order(order: list[int]) -> None:
    base = tiny_base(dtype=torch.float64)
    memories = [random_memory(base, (0, 1), 4, 1), random_memory(base, (1, 3), 4, 2), None]
    tokens = torch.arange(4, 4 + 5 * 9).reshape(5, 9)
    with torch.no_grad(), Bank.of(base).rows([memories[i] for i in order]):
        together = base.hidden(tokens)
    for row, i in enumerate(order):
        with torch.no_grad(), Bank.of(base).rows([memories[i]]):
            alone = base.hidden(tokens[row : row + 1])
        assert_close(together[row : row + 1], alone, rtol=0, atol=1e-10)


def test_a_fresh_memory_is_the_base() -> None:
    base = tiny_base()
    memory = Memory.initialise(base, MemoryConfig((0, 1, 2, 3), 8, 1e-3), 0)
    with torch.no_grad():
        plain = base.hidden(TOKENS)
        with Bank.of(base).rows([memory] * 3):
            assert_close(base.hidden(TOKENS), plain, rtol=0, atol=0)


def test_initialisation_depends_on_the_seed_alone() -> None:
    base = tiny_base()
    config = MemoryConfig((1, 3), 8, 1e-3)
    first, again = (Memory.initialise(base, config, 5) for _ in range(2))
    other = Memory.initialise(base, config, 6)
    for a, b, c in zip(first.parameters(), again.parameters(), other.parameters(), strict=True):
        assert_close(a, b, rtol=0, atol=0)
        assert a.shape == c.shape
    assert not torch.equal(first.parameters()[0], other.parameters()[0])


@pytest.mark.parametrize("on_attention", [False, True])
def test_gradients_reach_memories_only_and_nothing_below_the_lowest_layer(
    on_attention: bool,
) -> None:
    base = tiny_base()
    memory = random_memory(base, (2,), 4, 0, on_attention)
    seen: dict[int, bool] = {}
    layers = base.model.model.layers
    for i, layer in enumerate(layers):
        layer.register_forward_hook(
            lambda _m, _a, out, i=i: seen.update(
                {i: (out[0] if isinstance(out, tuple) else out).requires_grad}
            )
        )
    with Bank.of(base).rows([memory] * 3):
        base.hidden(TOKENS).sum().backward()
    assert seen == {0: False, 1: False, 2: True, 3: True}
    assert all(p.grad is None for p in base.model.parameters())
    assert all(p.grad is not None for p in memory.parameters())


def test_state_round_trip_and_refusals() -> None:
    base = tiny_base()
    memory = random_memory(base, (1,), 4, 0)
    state = UserState("milp", "ann", {}, memory.tensors())
    again = Memory.from_state(base, state)
    with torch.no_grad(), Bank.of(base).rows([memory, again, None]):
        hidden = base.hidden(TOKENS[:1].expand(3, -1))
    assert_close(hidden[0], hidden[1], rtol=0, atol=0)
    alien = {name.replace("mlp", "attn"): tensor for name, tensor in state.tensors.items()}
    with pytest.raises(ValueError, match="attn"):
        Memory.from_state(base, UserState("milp", "ann", {}, alien))
    wrong = {name: torch.cat([tensor, tensor], 1) for name, tensor in state.tensors.items()}
    with pytest.raises(ValueError, match=r"expected .* to map"):
        Memory.from_state(base, UserState("milp", "ann", {}, wrong))


def test_refuses_nested_use() -> None:
    base = tiny_base()
    with Bank.of(base).rows([None]), pytest.raises(RuntimeError, match="nested"):
        Bank.of(base).rows([None]).__enter__()
