"""Gated cross-attention: nothing at a gate of zero, each row's own otherwise, in every family."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch.testing import assert_close

from models.attended import Attended, Attending, CrossAttention
from models.base import Base
from models.decoding import generate
from models.loss import row_nll
from models.parts import Parts, running
from models.personalizer import Framed, Personalizer, UserState, attach_each
from models.prompt import Row
from models.recomputation import recomputed
from models.soft import soft_ids
from tests.tiny import ALL_FAMILIES, tiny_base

TOKENS = torch.tensor([[5, 9, 40, 77, 12], [8, 3, 60, 21, 33], [5, 9, 40, 77, 12]])
ROWS = [Row((5, 9, 40, 77, 12), 2), Row((8, 3, 60), 1), Row((7, 7, 21, 30), 1)]
SOURCE = 8


def network(base: Base, layers: tuple[int, ...] = (1, 3), seed: int = 0) -> CrossAttention:
    torch.manual_seed(seed)
    return CrossAttention(layers, base.hidden_width, SOURCE, heads=2).to(base.dtype)


def opened(base: Base, layers: tuple[int, ...] = (1, 3), seed: int = 0) -> CrossAttention:
    made = network(base, layers, seed)
    with torch.no_grad():
        made.gate_L.fill_(0.7)
    return made


def attended(made: CrossAttention, count: int, vectors: int = 3, seed: int = 1) -> list[Attended]:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(count, vectors, SOURCE, generator=generator, dtype=torch.float64)
    return made.attended(drawn.to(made.gate_L.dtype))


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_a_gate_of_zero_is_the_base_exactly_and_an_open_one_is_not(family: str) -> None:
    base = tiny_base(family)
    with torch.no_grad():
        expected = base.hidden(TOKENS)
        with running(base, [Parts(attended=one) for one in attended(network(base), 3)]):
            assert torch.equal(base.hidden(TOKENS), expected)
        (one,) = attended(opened(base), 1)
        with running(base, [Parts(), Parts(attended=one), Parts()]):
            found = base.hidden(TOKENS)
        assert torch.equal(base.hidden(TOKENS), expected)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[2], expected[2])
    assert (found[1] - expected[1]).abs().max() > 1e-2


def test_what_is_added_is_the_equation() -> None:
    base = tiny_base(dtype=torch.float64)
    made = opened(base, (3,))
    (one,) = attended(made, 1)
    Attending.of(base)  # hooks run in the order that they came in
    seen: list[torch.Tensor] = []
    handle = base.layers[3].register_forward_hook(lambda m, i, output: seen.append(output))
    with torch.no_grad():
        base.hidden(TOKENS[:1])
        with running(base, [Parts(attended=one)]):
            base.hidden(TOKENS[:1])
    handle.remove()
    before, after = seen[0], seen[1]
    h = before[0]
    normal = (h - h.mean(1, keepdim=True)) / (h.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    asked = normal @ made.query_LDE[0]
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        keys, values = one.keys[0][:, part], one.values[0][:, part]
        heads.append((asked[:, part] @ keys.T / 2).softmax(1) @ values)
    expected = h + torch.tanh(torch.tensor(0.7)) * (torch.cat(heads, 1) @ made.out_LED[0])
    assert_close(after[0], expected.detach(), rtol=0, atol=1e-6)


def test_rows_of_any_networks_and_soft_tokens_together_equal_each_alone() -> None:
    base = tiny_base(dtype=torch.float64)
    first, second = opened(base, (1, 3), 0), opened(base, (0, 1, 2, 3), 5)
    soft = torch.randn(2, base.width, dtype=torch.float64)
    own = [*attended(first, 2), *attended(second, 1, vectors=5)]
    rows = [*ROWS, Row((*soft_ids(2), 5, 6), 3), Row((4, 5, 6), 1)]
    parts = [*[Parts(attended=one) for one in own], Parts(soft=soft, attended=own[0]), Parts()]
    with torch.no_grad():
        with running(base, parts):
            together = row_nll(base, rows)
        for row, part, nll in zip(rows, parts, together, strict=True):
            with running(base, [part]):
                assert_close(row_nll(base, [row])[0], nll, rtol=0, atol=1e-12)


def gradients(base: Base, made: CrossAttention) -> list[torch.Tensor]:
    with running(base, [Parts(attended=one) for one in attended(made, 3)]):
        loss = row_nll(base, ROWS).sum()
        return list(torch.autograd.grad(loss, list(made.parameters())))


def test_every_weight_takes_a_gradient_also_where_layers_are_computed_again() -> None:
    base = tiny_base(dtype=torch.float64)
    made = opened(base)
    found = gradients(base, made)
    assert all((gradient != 0).flatten(1).any(1).all() for gradient in found[:-1])
    assert (found[-1] != 0).all()
    with recomputed(base):
        again = gradients(base, made)
    for one, other in zip(found, again, strict=True):
        assert_close(one, other, rtol=0, atol=1e-12)


def test_a_gate_of_zero_takes_a_gradient_so_that_it_opens() -> None:
    base = tiny_base(dtype=torch.float64)
    assert (gradients(base, network(base))[-1] != 0).all()


def test_layers_and_heads_that_can_not_be_are_refused() -> None:
    with pytest.raises(ValueError, match="3 heads"):
        CrossAttention((0,), 32, 8, heads=3)
    with pytest.raises(ValueError, match="0 layers"):
        CrossAttention((), 32, 8, heads=2)


class _Fixed:
    """A method whose rows attend to a state's own vectors."""

    name = "fixed"

    def __init__(self, made: CrossAttention) -> None:
        self._made = made

    def parts(self, base: Base, states: list[UserState], prompts: object) -> list[Parts]:
        vectors = torch.stack([state.tensors["vectors"] for state in states])
        return [Parts(attended=one) for one in self._made.attended(vectors)]

    def frame(self, base: Base, state: UserState, query: str) -> Framed:
        return Framed(query)


@pytest.mark.parametrize("family", ["llama", "gpt2", "roberta"])
def test_answers_one_token_at_a_time_are_those_of_a_whole_pass(family: str) -> None:
    base = tiny_base(family)
    made = opened(base).requires_grad_(False)
    methods = {"fixed": cast(Personalizer, _Fixed(made))}
    drawn = [torch.randn(3, SOURCE, generator=torch.Generator().manual_seed(i)) for i in (1, 2)]
    states = [
        UserState("fixed", "ann", {}, {"vectors": drawn[0]}),
        None,
        UserState("fixed", "bob", {}, {"vectors": drawn[1]}),
    ]
    prompts = [tuple(base.prompt.prompt(q)) for q in ("Where is my dog?", "Rex", "What to cook?")]
    answers = generate(base, prompts, states, attach_each(methods, base), 6)
    assert sum(map(len, answers)) >= 6
    for prompt, state, answer in zip(prompts, states, answers, strict=True):
        whole = torch.tensor([[*prompt, *answer]])
        with torch.no_grad(), attach_each(methods, base)([state]):
            likeliest = base.logits(base.hidden(whole))[0].argmax(-1)
        assert likeliest[len(prompt) - 1 : -1].tolist() == answer
