"""User-LLM: an encoder that foresees events, and both ways of its vectors into a base.

Planted: people of two groups answer in two styles, which their history foretells. With the vectors
of a newcomer's own history, the loss of what the newcomer says later must be lower than with those
of somebody of the other group, and than the base's.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from models import jointly
from models import timeline as timeline_module
from models.attended import CrossAttention
from models.base import Base
from models.catalog import personalizer
from models.decoding import generate
from models.jointly import person_rows, rows_under
from models.loss import row_nll
from models.options import Options, default
from models.personalizer import Personalizer, Shared, UserState, attach, fit, frame_each
from models.projection import Projection
from models.prompt import Row
from models.resampler import Resampler
from models.soft import with_soft
from models.timeline import LONGEST, Timeline, next_event_loss, pretrain
from models.uelp import VECTORS, Uelp, UelpCross, UelpLearner
from models.user_network import AsSoftTokens, Crossed, Network
from tests.groups import STYLES, crowd, later_losses, newcomer, reloaded, states_of
from tests.tiny import tiny_base

OPTIONS = {
    "uelp": Options.of(vectors=4, width=32, learning_rate=1e-2),
    "uelp-cross": Options.of(layers="every", vectors=4, width=32, learning_rate=1e-2),
}
METHODS: dict[str, Personalizer] = {"uelp": Uelp(), "uelp-cross": UelpCross()}
both = pytest.mark.parametrize("name", sorted(METHODS))


@cache
def base() -> Base:
    return tiny_base()


@cache
def exact() -> Base:
    return tiny_base(dtype=torch.float64)


@cache
def learned(name: str) -> Shared:
    found = METHODS[name].learn(base(), crowd(12), OPTIONS[name], seed=1)
    assert found is not None
    return found


@cache
def states(name: str) -> dict[str, UserState]:
    return states_of(METHODS[name], base(), OPTIONS[name], learned(name))


def walks(people: int, seed: int, width: int = 6) -> list[Tensor]:
    """Events that go round a circle, from a place of each person's own."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.rand(people, generator=generator) * 6.28
    found = []
    for start in starts.tolist():
        angles = start + 0.7 * torch.arange(7 + int(start))
        round_ = torch.stack([angles.cos(), angles.sin()], 1)
        found.append(3 + torch.cat([round_, torch.zeros(len(angles), width - 2)], 1))
    return found


def test_an_encoder_learns_to_foresee_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline_module, "PRETRAINING_STEPS", 60)
    torch.manual_seed(0)
    timeline = Timeline(6, 16)
    losses = pretrain(timeline, walks(12, 1), seed=3)
    assert losses[-1] < losses[0] - 0.5
    torch.manual_seed(0)
    again = Timeline(6, 16)
    torch.rand(3)  # what has been drawn elsewhere makes no difference
    assert pretrain(again, walks(12, 1), seed=3) == losses
    for one, other in zip(timeline.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_loss_of_the_next_event_is_the_equation_and_no_repeat_is_a_wrong_answer() -> None:
    timeline, events = Timeline(3, 4).double(), torch.eye(3).double()
    foresee = nn.Linear(4, 3).double()
    repeated = events[[0, 1, 2, 1]]
    found = next_event_loss(timeline, foresee, [repeated, events[:2]])
    states_PnS = timeline(*timeline.scaled([repeated, events[:2]]))
    made = nn.functional.normalize(foresee(states_PnS), dim=-1)
    foreseen = torch.stack([made[0, 0], made[0, 1], made[0, 2], made[1, 2]])
    alike = (foreseen @ events.T / 0.07).exp()  # with each kind of event: they have length 1
    right = alike[torch.arange(4), torch.tensor([1, 2, 1, 1])]
    others = torch.stack([alike[0, 2], alike[1, 1] * 3, alike[2, 2], alike[3, 2]])
    expected = -(right / (right + others)).log().mean()
    assert_close(found, expected, rtol=0, atol=1e-9)


def test_a_person_among_others_and_with_later_events_is_read_as_alone() -> None:
    timeline, resampler = Timeline(6, 16).double(), Resampler(4, 16).double()
    network = Network(timeline, resampler, _soft_way(exact()))
    people = [events.double() for events in walks(3, 5)]
    assert len({len(events) for events in people}) > 1
    together = network.vectors(people)
    for own, vectors_KS in zip(people, together, strict=True):
        assert_close(network.vectors([own])[0], vectors_KS, rtol=0, atol=1e-12)
    long = torch.randn(LONGEST + 30, 6, dtype=torch.float64)
    assert_close(network.vectors([long]), network.vectors([long[-LONGEST:]]), rtol=0, atol=0)
    changed = people[0].clone()
    changed[-1] += 1
    before, after = (timeline(*timeline.scaled([events]))[0] for events in (people[0], changed))
    assert_close(before[:-1], after[:-1], rtol=0, atol=1e-12)
    assert (before[-1] - after[-1]).abs().max() > 1e-3


def _soft_way(on: Base) -> AsSoftTokens:
    return AsSoftTokens(Projection.initialise(on, 16, torch.Generator().manual_seed(1)))


def _crossed(on: Base) -> Crossed:
    attention = CrossAttention((1, 3), on.hidden_width, 16, 4).to(on.dtype)
    with torch.no_grad():
        attention.gate_L.fill_(0.05)
    return Crossed(attention)


@both
def test_a_gradient_reaches_every_weight(name: str) -> None:
    on = exact()
    torch.manual_seed(2)
    timeline, resampler = Timeline(6, 16).double(), Resampler(4, 16).double()
    way_in = _soft_way(on) if name == "uelp" else _crossed(on)
    network = Network(timeline, resampler, way_in)
    rows = person_rows(on, crowd(3), 4 if name == "uelp" else 0)
    events_of = [events.double() for events in walks(3, 5)]
    with rows_under(on, [UelpLearner(network, events_of)] * len(rows), rows):
        torch.autograd.backward(row_nll(on, rows).sum())
    for weight in network.parameters():
        assert weight.grad is not None
        assert (weight.grad != 0).any()


@both
def test_a_newcomers_vectors_know_the_style_of_the_newcomers_group(
    name: str, tmp_path: Path
) -> None:
    method, own_states = METHODS[name], states(name)
    loaded = dict(zip(STYLES, reloaded([*own_states.values()], base(), tmp_path), strict=True))
    for group in STYLES:
        (other,) = STYLES.keys() - {group}
        three = [own_states[group], own_states[other], None]
        own, strangers, bases = later_losses(method, base(), three, group)
        assert own < strangers - 0.05
        assert own < bases - 0.3
        fresh = type(method)()
        assert later_losses(fresh, base(), [loaded[group]], group) == later_losses(
            fresh, base(), [own_states[group]], group
        )


@both
def test_a_newcomer_costs_one_reading_of_the_training_part(name: str) -> None:
    method, task = METHODS[name], newcomer("poets", OPTIONS[name], learned(name))
    (done,) = fit(method, base(), [replace(task, validation=())])
    assert done.state is not None
    assert done.steps == 0
    assert {key: tuple(t.shape) for key, t in done.state.tensors.items()} == {VECTORS: (4, 32)}
    assert torch.equal(done.state.tensors[VECTORS], states(name)["poets"].tensors[VECTORS])
    (empty,) = fit(method, base(), [replace(task, train=())])
    assert empty.state is None
    assert empty.error is not None


@both
def test_learning_again_gives_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline_module, "PRETRAINING_STEPS", 4)
    monkeypatch.setattr(jointly, "FEWEST_STEPS", 4)
    once, again = (METHODS[name].learn(base(), crowd(8), OPTIONS[name], seed=5) for _ in range(2))
    assert once is not None
    assert again is not None
    assert once.tensors.keys() == again.tensors.keys()
    assert all(torch.equal(tensor, again.tensors[key]) for key, tensor in once.tensors.items())


@both
def test_answers_in_a_mixed_batch_are_as_alone_and_as_in_a_whole_pass(name: str) -> None:
    method, on = METHODS[name], base()
    rows_states = [states(name)["bakers"], None, states(name)["poets"]]
    attached, framed = attach(method, on), frame_each({name: method}, on)
    prompts = []
    for state, query in zip(rows_states, ("about the dog?", "Rex", "what soup?"), strict=True):
        one = framed(state, query)
        tokens = tuple(on.prompt.prompt(one.query))
        row = with_soft(Row(tokens, len(tokens)), one.soft_tokens, on.prompt.begin, on.context)
        prompts.append(row.tokens)
    assert [min(prompt) for prompt in prompts] == ([-4, 0, -4] if name == "uelp" else [0, 0, 0])
    together = generate(on, prompts, rows_states, attached, 6)
    for prompt, state, answer in zip(prompts, rows_states, together, strict=True):
        assert generate(on, [prompt], [state], attached, 6) == [answer]
        whole = torch.tensor([[*prompt, *answer]])
        with torch.no_grad(), attached([state], [prompt]):
            likeliest = on.logits(on.hidden(whole))[0].argmax(-1)
        assert likeliest[len(prompt) - 1 : len(prompt) - 1 + len(answer)].tolist() == answer
    assert any(together)


@both
def test_what_can_not_be_learned_or_read_is_refused(name: str) -> None:
    method = METHODS[name]
    with pytest.raises(ValueError, match="at least 8 other users"):
        method.learn(base(), crowd(7), OPTIONS[name], seed=1)
    (without,) = fit(method, base(), [newcomer("poets", OPTIONS[name])])
    assert without.error is not None
    assert "learn first" in without.error
    other = type(METHODS[name])("some/encoder")  # type: ignore[call-arg]
    (elsewhere,) = fit(other, base(), [newcomer("poets", OPTIONS[name], learned(name))])
    assert elsewhere.error is not None
    assert "some/encoder" in elsewhere.error


@both
def test_the_catalog_knows_it_and_its_default_options(name: str) -> None:
    method = personalizer(name)
    assert method.name == name
    options = default(method.space)
    assert (options.whole("vectors"), options.whole("width")) == (16, 64)
    assert method.frame(base(), None, "x").soft_tokens == 0
    (while_answering,) = method.parts(base(), [states(name)["poets"]], None)
    assert (while_answering.attended is not None) == (name == "uelp-cross")
    assert while_answering.soft is None
