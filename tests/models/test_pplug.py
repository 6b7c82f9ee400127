"""PPlug: attention by hand, its two soft tokens, and what they know of a style that others share.

Planted: people of two groups answer in two styles, which their history foretells. Behind the items
of a newcomer's own group the loss of what the newcomer says later must be lower than behind the
other group's, and lower than the base's. That holds on a tiny random base, at a rate of 0.003 and a
temperature of 1; at 0.1 it holds for one of the groups only, since few items then speak for a user.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import BertConfig, BertModel

from models import jointly
from models.base import Base
from models.decoding import generate
from models.encoder import BaseEncoder
from models.history import Interaction
from models.jointly import person_rows, rows_under
from models.loss import row_nll
from models.options import Options
from models.personalizer import Framed, Person, Shared, UserState, attach, fit
from models.plug import Plug, attention, centred
from models.pplug import ITEMS, MOST_ITEMS, PlugLearner, Pplug
from models.prompt import Row
from models.scoring import losses
from models.soft import with_soft
from tests.groups import STYLES, crowd, later_losses, newcomer, reloaded, said, states_of
from tests.tiny import tiny_base, tiny_tokenizer

FLAT = Options.of(temperature=1.0, learning_rate=3e-3)
SHARP = Options.of(temperature=0.1, learning_rate=3e-3)
METHOD = Pplug()


@cache
def base() -> Base:
    return tiny_base()


@cache
def exact() -> Base:
    return tiny_base(dtype=torch.float64)


@cache
def learned() -> Shared:
    return METHOD.learn(base(), crowd(), FLAT, seed=1)


@cache
def states() -> dict[str, UserState]:
    return states_of(METHOD, base(), FLAT, learned())


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning of few steps, where what is learned doesn't matter."""
    monkeypatch.setattr(jointly, "FEWEST_STEPS", 8)


def unit(*shape: int, seed: int = 4) -> Tensor:
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=-1)


def a_plug(on: Base, temperature: float = 1.0) -> Plug:
    width = on.hidden_width
    return Plug.initialise(on, unit(9, width), unit(5, width, seed=5), temperature, seed=1)


def prompt_of(query: str) -> tuple[int, ...]:
    tokens = tuple(base().prompt.prompt(query))
    row = with_soft(Row(tokens, len(tokens)), 2, base().prompt.begin, base().context)
    return row.tokens


def test_attention_by_hand() -> None:
    items = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.6, 0.8]])
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    mask = torch.tensor([[True, True, True, False], [False, True, False, True]])
    for temperature in (1.0, 0.1):
        one, none, minus, most = (math.exp(s / temperature) for s in (1.0, 0.0, -1.0, 0.8))
        first, second = one + none + minus, one + most
        expected = torch.tensor(
            [
                [one / first, none / first, minus / first, 0.0],
                [0.0, one / second, 0.0, most / second],
            ]
        )
        assert_close(attention(queries, items, mask, temperature), expected, rtol=1e-5, atol=0)


def test_the_instruction_stands_first_and_the_persona_is_a_projected_mean() -> None:
    plug, width = a_plug(exact(), 0.1), exact().hidden_width
    items, query = unit(3, width, seed=6), unit(1, width, seed=7)
    (found,) = plug.soft(query, [items], [0])
    assert_close(found[0], plug.instruct(plug.instruction), rtol=0, atol=1e-12)
    own = centred(items, plug.item_centre).double()
    asked = centred(query, plug.query_centre).double()[0]
    scores = [math.exp(float(own[i] @ asked) / 0.1) for i in range(3)]
    shares = [score / sum(scores) for score in scores]
    weights = plug.persona.weights
    each = [plug.persona.inner(own[i] * math.sqrt(width)) for i in range(3)]
    made = [inner @ weights["output.weight"].T + weights["output.bias"] for inner in each]
    mean = sum(share * one for share, one in zip(shares, made, strict=True))
    assert isinstance(mean, Tensor)
    assert_close(found[1], mean / mean.norm() * plug.persona.norm, rtol=0, atol=1e-6)


def test_rows_of_several_users_in_a_batch_are_as_each_alone() -> None:
    plug, width = a_plug(exact(), 0.1), exact().hidden_width
    items, queries = [unit(n, width, seed=n) for n in (3, 7, 1)], unit(4, width, seed=9)
    owners = [2, 0, 1, 0]
    together = plug.soft(queries, items, owners)
    for i, owner in enumerate(owners):
        alone = plug.soft(queries[i : i + 1], [items[owner]], [0])
        assert_close(together[i], alone[0], rtol=0, atol=1e-12)
    assert not torch.equal(together[1], together[3])  # one user, two queries


def test_a_newcomers_items_know_the_style_of_the_newcomers_group(tmp_path: Path) -> None:
    loaded = dict(zip(STYLES, reloaded([*states().values()], base(), tmp_path), strict=True))
    for group in STYLES:
        (other,) = STYLES.keys() - {group}
        three = [states()[group], states()[other], None]
        own, strangers, bases = later_losses(METHOD, base(), three, group)
        assert own < strangers - 0.05
        assert own < bases - 0.3
        alone = later_losses(Pplug(), base(), [states()[group]], group)
        assert later_losses(Pplug(), base(), [loaded[group]], group) == alone


def test_a_newcomer_costs_the_newest_items_of_the_training_part() -> None:
    task = newcomer("poets", FLAT, learned())
    long = tuple(Interaction(task.user_id, float(i), None, f"{i % 9}") for i in range(600))
    (done,) = fit(METHOD, base(), [replace(task, train=long)])
    assert done.state is not None
    assert done.steps == 0
    assert done.state.tensors.keys() == {ITEMS}
    newest = [item.response for item in long[-MOST_ITEMS:]]
    expected = BaseEncoder(base()).encode(newest)
    assert_close(done.state.tensors[ITEMS], expected, rtol=0, atol=1e-6)
    (other,) = fit(METHOD, base(), [replace(task, validation=said("bakers", "x", 0, 4))])
    assert other.state is not None
    assert torch.equal(other.state.tensors[ITEMS], states()["poets"].tensors[ITEMS])


def test_a_query_is_read_when_it_is_asked_and_not_while_its_answer_goes_on() -> None:
    state = states()["poets"]
    one, other = prompt_of("what of the dog?"), prompt_of("a soup at night?")
    first, second, again = METHOD.parts(base(), [state] * 3, [one, other, one])
    assert first.soft is not None
    assert second.soft is not None
    assert torch.equal(first.soft[0], second.soft[0])  # the instruction
    assert not torch.equal(first.soft[1], second.soft[1])
    assert_close(first.soft, again.soft, rtol=0, atol=0)
    assert [part.soft for part in METHOD.parts(base(), [state] * 2, None)] == [None, None]
    assert METHOD.frame(base(), state, "why?") == Framed("why?", 2)
    assert METHOD.frame(base(), None, "why?") == Framed("why?")


@pytest.mark.usefixtures("brief")
def test_a_mixed_batch_scores_and_answers_as_each_alone() -> None:
    several = []
    for options in (FLAT, SHARP):
        shared = METHOD.learn(exact(), crowd(8), options, seed=1)
        several += list(states_of(METHOD, exact(), options, shared).values())
    rows: list[UserState | None] = [None, *several]
    items = said("poets", "new-poets", 20, 3)

    def loss(who: list[UserState | None]) -> list[float]:
        attached, frame = attach(METHOD, exact()), METHOD.frame
        found = losses(
            exact(), attached, who, [items] * len(who), lambda s, q: frame(exact(), s, q)
        )
        return [one.nats for one in found]

    together = loss(rows)
    assert len(set(together)) == len(rows)
    prompts = [prompt_of("what of the dog?")] * len(several)
    written = generate(exact(), prompts, several, attach(METHOD, exact()), 6)
    for i, state in enumerate(rows):
        assert_close(loss([state])[0], together[i], rtol=0, atol=1e-9)
    for prompt, state, tokens in zip(prompts, several, written, strict=True):
        assert generate(exact(), [prompt], [state], attach(METHOD, exact()), 6) == [tokens]


def test_every_weight_takes_a_gradient() -> None:
    plug, people = a_plug(base()), crowd(8)
    rows = person_rows(base(), people, 2)
    asked = {row.tokens[: row.predict_from] for row in rows}
    width = base().hidden_width
    queries = dict(zip(asked, unit(len(asked), width), strict=True))
    items = [unit(4, width, seed=i) for i in range(len(people))]
    learner = PlugLearner(plug, items, queries)
    with rows_under(base(), [learner] * len(rows), rows):
        row_nll(base(), rows).sum().backward()
    assert len(learner.parameters()) == 12
    for tensor in learner.parameters():
        assert tensor.grad is not None
        assert (tensor.grad != 0).any()


@pytest.mark.usefixtures("brief")
def test_the_same_seed_learns_the_same_and_the_network_comes_back() -> None:
    one, same = (METHOD.learn(base(), crowd(8), SHARP, seed=1) for _ in range(2))
    assert all(torch.equal(tensor, same.tensors[name]) for name, tensor in one.tensors.items())
    d, e = base().width, base().hidden_width
    numbers = 2 * (d * e + d + d * d + d + 1) + e * e + 3 * e
    assert sum(tensor.numel() for tensor in one.tensors.values()) == numbers
    back = Plug.from_shared(base(), one)
    assert back.temperature == 0.1
    assert all(torch.equal(tensor, one.tensors[name]) for name, tensor in back.tensors().items())


def test_too_few_people_too_short_a_context_and_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 8 other users .* pplug .* got 7"):
        METHOD.learn(base(), crowd()[:7], FLAT, seed=1)
    with pytest.raises(ValueError, match=r"pplug: .* at least 4 tokens, .* got 3"):
        METHOD.learn(replace(base(), context=3), crowd(), FLAT, seed=1)
    with pytest.raises(ValueError, match="expected a history to read, got an empty one"):
        METHOD.learn(base(), [Person("x", (), crowd()[0].pairs), *crowd()[:8]], FLAT, seed=1)
    state = states()["poets"]
    wrong = replace(state, tensors={ITEMS: torch.ones(5, 31)})
    with pytest.raises(ValueError, match=r"items of shape \(5, 32\), got \(5, 31\)"):
        METHOD.parts(base(), [wrong], [prompt_of("why?")])
    torn = {name: t for name, t in learned().tensors.items() if name != "query"}
    with pytest.raises(ValueError, match=r"query of shape \(32, 32\), got none"):
        METHOD.parts(base(), [replace(state, shared=replace(learned(), tensors=torn))], [[5]])


@pytest.mark.usefixtures("brief")
def test_a_state_is_served_with_the_encoder_it_was_made_with(tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = {"vocab_size": 384, "hidden_size": 24, "intermediate_size": 16}
    config = BertConfig(**settings, num_hidden_layers=1, num_attention_heads=2)
    BertModel(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    method = Pplug(str(tmp_path))
    shared = method.learn(base(), crowd(8), FLAT, seed=1)
    state = states_of(method, base(), FLAT, shared)["poets"]
    assert state.tensors[ITEMS].shape == (12, 24)
    (by_another,) = later_losses(Pplug(), base(), [state], "poets")
    assert [by_another] == later_losses(method, base(), [state], "poets")
