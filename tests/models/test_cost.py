"""The cost model foretells packs that it never measured."""

from __future__ import annotations

import random
from contextlib import nullcontext

import pytest
import torch

from models.bank import Bank, Memory
from models.base import Base
from models.cost import STATE_BYTES, Costs, room_bytes
from models.loss import row_nll
from models.peak import peak
from models.prompt import Row
from models.recomputation import recomputed
from search.space import MemoryConfig
from tests.tiny import tiny_base

CONFIGURATIONS = [
    [MemoryConfig((0, 1, 2, 3), 16, 1e-3)],
    [MemoryConfig((2,), 8, 1e-3)],
    [MemoryConfig((1, 3), 4, 1e-3), MemoryConfig((3,), 16, 1e-3), MemoryConfig((2, 3), 4, 1e-3)],
    [MemoryConfig((0, 2), 8, 1e-3), MemoryConfig((1,), 8, 1e-3), MemoryConfig((0, 1, 2), 4, 1e-3)],
]


@pytest.fixture(scope="module")
def costs() -> Costs:
    """Of the tiny Llama in float32."""
    return Costs.measure(tiny_base())


def pack(configurations: list[MemoryConfig], width: int, count: int) -> list[tuple[Row, int]]:
    """Rows with the number of their configuration; some predict much, some little."""
    draw = random.Random(width)
    return [
        (Row((0,) * draw.randint(width // 2, width), draw.randint(1, 6)), i % len(configurations))
        for i in range(count)
    ]


def measured(
    base: Base,
    configurations: list[MemoryConfig],
    rows: list[tuple[Row, int]],
    on_attention: bool = False,
) -> int:
    """Most bytes of a step of fresh memories."""
    memories = [Memory.initialise(base, c, 0, on_attention) for c in configurations]
    for parameter in (p for memory in memories for p in memory.parameters()):
        parameter.grad = torch.zeros_like(parameter)
    with peak(base.device) as found, Bank.of(base).rows([memories[i] for _, i in rows]):
        row_nll(base, [row for row, _ in rows]).sum().backward()
    return found.bytes


def batch_bytes(costs: Costs, batch: list[tuple[Row, MemoryConfig]]) -> float:
    """What rows keep that run together, each under a memory of its configuration."""
    width = max(len(row.tokens) for row, _ in batch)
    lowest = min(configuration.layers[0] for _, configuration in batch)
    layers = sum(width * costs.token_bytes(c, lowest) for _, c in batch)
    return layers + costs.head_bytes(sum(row.predicted for row, _ in batch))


def foretold(
    costs: Costs, configurations: list[MemoryConfig], rows: list[tuple[Row, int]]
) -> float:
    """The same by the model: the batch, and what a step takes beside the memories' states."""
    weights = sum(c.parameter_count(costs.per_rank) for c in configurations)
    batch = [(row, configurations[i]) for row, i in rows]
    return batch_bytes(costs, batch) + weights * (costs.weight - STATE_BYTES)


def as_on_a_gpu(base: Base) -> Base:
    """With torch's own attention, whose bytes go with tokens: costs are asked for there alone."""
    base.model.set_attn_implementation("sdpa")
    return base


@pytest.mark.parametrize(
    ("family", "dtype"),
    [("llama", torch.float32), ("llama", torch.bfloat16), ("gpt2", torch.bfloat16)],
)
@pytest.mark.parametrize("is_recomputed", [False, True])
def test_foretells_the_peak_of_packs_it_did_not_measure(
    family: str, dtype: torch.dtype, is_recomputed: bool
) -> None:
    base = as_on_a_gpu(tiny_base(family, dtype))
    # Recomputed, the highest moment is here the head's, there a layer's: only the bound is close.
    least = 0.5 if is_recomputed else 0.85
    with recomputed(base) if is_recomputed else nullcontext():
        costs = Costs.measure(base)
        for configurations in CONFIGURATIONS:
            for width, count in ((20, 24), (100, 6)):
                rows = pack(configurations, width, count)
                got = measured(base, configurations, rows)
                assert least < got / foretold(costs, configurations, rows) < 1.1


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_memories_on_attention_cost_little_more_than_it_says_at_most(family: str) -> None:
    """Their backward reaches a layer's attention too, but they hold fewer matrices."""
    base = as_on_a_gpu(tiny_base(family, torch.bfloat16))
    costs = Costs.measure(base)
    for configurations in CONFIGURATIONS:
        rows = pack(configurations, 100, 6)
        got = measured(base, configurations, rows, on_attention=True)
        assert 0.8 < got / foretold(costs, configurations, rows) < 1.1


def test_recomputing_layers_makes_them_cheaper(costs: Costs) -> None:
    base = tiny_base()
    with recomputed(base):
        again = Costs.measure(base)
    assert 0 < again.layer < costs.layer / 2


def test_a_memory_costs_its_state_and_little_more(costs: Costs) -> None:
    base, (configuration,) = tiny_base(), CONFIGURATIONS[0]
    memory = Memory.initialise(base, configuration, 0)
    optimizer = torch.optim.AdamW(memory.parameters())
    for parameter in memory.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moments = [t for s in optimizer.state.values() for t in s.values() if t.numel() > 1]
    state = [*memory.parameters(), *[p.grad for p in memory.parameters()], *moments]
    told = configuration.parameter_count(costs.per_rank) * costs.weight
    assert 1 <= told / sum(t.nbytes for t in state) < 1.5
    assert costs.base >= sum(p.nbytes for p in base.model.parameters())


@pytest.mark.parametrize("configurations", CONFIGURATIONS)
def test_as_many_tokens_as_it_says_fit(costs: Costs, configurations: list[MemoryConfig]) -> None:
    base = tiny_base()
    room = 4_000_000
    tokens = costs.padded_tokens(room, configurations)
    rows = [(Row((0,) * 30, 1), i % len(configurations)) for i in range(tokens // 30)]
    weights = foretold(costs, configurations, rows) - batch_bytes(
        costs, [(row, configurations[i]) for row, i in rows]
    )
    assert measured(base, configurations, rows) <= (room + weights) * 1.05
    twice = [(Row((0,) * 30, 1), i % len(configurations)) for i in range(2 * tokens // 30)]
    assert measured(base, configurations, twice) > room


def test_even_without_room_one_token_runs(costs: Costs) -> None:
    assert costs.padded_tokens(0.0, CONFIGURATIONS[0]) == 1
    assert 0 < room_bytes(torch.device("cpu")) < 2**50
