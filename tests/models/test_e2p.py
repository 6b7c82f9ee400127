"""E2P: the user's vector, its soft tokens, and what they know of a style that others share.

Planted: people of two groups answer in two styles, which their history foretells. Behind the vector
of a newcomer's own group the loss of what the newcomer says later must be lower than behind the
other group's, and lower than the base's. That holds on a tiny random base, at a rate of 0.003.
"""

from __future__ import annotations

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
from models.e2p import VECTOR, E2p, Prefix, PrefixLearner
from models.encoder import BaseEncoder
from models.jointly import person_rows, rows_under
from models.loss import row_nll
from models.options import Options
from models.personalizer import Framed, Shared, UserState, attach, fit
from models.scoring import losses
from tests.groups import STYLES, crowd, later_losses, newcomer, reloaded, said, states_of
from tests.tiny import tiny_base, tiny_tokenizer

ONE = Options.of(tokens=1, learning_rate=3e-3)
FOUR = Options.of(tokens=4, learning_rate=3e-3)
METHOD = E2p()


@cache
def base() -> Base:
    return tiny_base()


@cache
def learned() -> Shared:
    return METHOD.learn(base(), crowd(), ONE, seed=1)


@cache
def states() -> dict[str, UserState]:
    return states_of(METHOD, base(), ONE, learned())


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning of few steps, where what is learned doesn't matter."""
    monkeypatch.setattr(jointly, "FEWEST_STEPS", 8)


def vectors(count: int, width: int) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(4))


def test_a_newcomers_vector_knows_the_style_of_the_newcomers_group(tmp_path: Path) -> None:
    loaded = dict(zip(STYLES, reloaded([*states().values()], base(), tmp_path), strict=True))
    for group in STYLES:
        (other,) = STYLES.keys() - {group}
        three = [states()[group], states()[other], None]
        own, strangers, bases = later_losses(METHOD, base(), three, group)
        assert own < strangers - 0.1
        assert own < bases - 0.3
        alone = later_losses(E2p(), base(), [states()[group]], group)
        assert later_losses(E2p(), base(), [loaded[group]], group) == alone


def test_a_newcomer_costs_one_vector_of_the_training_part_and_no_step() -> None:
    task = newcomer("poets", ONE, learned())
    (done,) = fit(METHOD, base(), [task])
    assert done.state is not None
    assert done.steps == 0
    texts = [f"{item.query}\n{item.response}" for item in task.train]
    expected = BaseEncoder(base()).encode(texts).mean(0)
    assert_close(done.state.tensors[VECTOR], expected, rtol=0, atol=1e-6)
    assert done.state.tensors.keys() == {VECTOR}
    assert done.state.shared is learned()
    (other,) = fit(METHOD, base(), [replace(task, validation=said("bakers", "x", 0, 4))])
    assert other.state is not None
    assert torch.equal(other.state.tensors[VECTOR], done.state.tensors[VECTOR])


@pytest.mark.usefixtures("brief")
def test_the_same_seed_learns_the_same_and_the_history_is_what_is_read() -> None:
    people = crowd(8)
    one, same = (METHOD.learn(base(), people, FOUR, seed=1) for _ in range(2))
    assert one.tensors.keys() == same.tensors.keys()
    assert all(torch.equal(tensor, same.tensors[name]) for name, tensor in one.tensors.items())
    mean = torch.stack([METHOD._reader.items(base(), p.history).mean(0) for p in people]).mean(0)
    assert_close(one.tensors["centre"], mean, rtol=0, atol=1e-6)
    width, features = base().width, base().hidden_width
    numbers = 4 * (width * features + width + width * width + width + 1) + features + 1
    assert sum(tensor.numel() for tensor in one.tensors.values()) == numbers
    state = UserState("e2p", "ann", FOUR.to_json(), {VECTOR: mean}, shared=one)
    assert METHOD.frame(base(), state, "why?") == Framed("why?", 4)
    assert METHOD.frame(base(), None, "why?") == Framed("why?")


def test_soft_tokens_are_projections_of_what_the_centre_leaves() -> None:
    found = vectors(5, base().hidden_width)
    prefix = Prefix.initialise(base(), found, 2, seed=1)
    left = found - found.mean(0)
    features = left / left.pow(2).mean().sqrt()
    for i, project in enumerate(prefix.projections):
        assert_close(prefix.soft(found)[:, i], project(features), rtol=1e-5, atol=1e-6)
    assert not torch.equal(prefix.soft(found)[:, 0], prefix.soft(found)[:, 1])


def test_every_weight_takes_a_gradient() -> None:
    prefix = Prefix.initialise(base(), vectors(8, base().hidden_width), 2, seed=1)
    learner = PrefixLearner(prefix, vectors(8, base().hidden_width))
    rows = person_rows(base(), crowd(8), 2)
    with rows_under(base(), [learner] * len(rows), rows):
        row_nll(base(), rows).sum().backward()
    assert len(learner.parameters()) == 10
    for tensor in learner.parameters():
        assert tensor.grad is not None
        assert (tensor.grad != 0).any()


def test_in_training_each_row_stands_behind_its_own_persons_tokens() -> None:
    found = vectors(8, base().hidden_width)
    learner = PrefixLearner(Prefix.initialise(base(), found, 1, seed=1), found)
    rows = person_rows(base(), crowd(8), 1)
    mixed = [rows[20], rows[0], rows[21], rows[30]]
    assert [row.person for row in mixed] == [5, 0, 5, 7]
    each = learner.prefix.soft(found)
    for part, row in zip(learner.parts(mixed), mixed, strict=True):
        assert part.soft is not None
        assert_close(part.soft, each[row.person], rtol=0, atol=1e-5)


@pytest.mark.usefixtures("brief")
def test_a_mixed_batch_is_as_each_alone_also_of_two_shared_parts() -> None:
    exact = tiny_base(dtype=torch.float64)
    several = []
    for options in (ONE, FOUR):
        shared = METHOD.learn(exact, crowd(8), options, seed=1)
        several += list(states_of(METHOD, exact, options, shared).values())
    rows = [None, *several, several[0]]
    items = said("poets", "new-poets", 20, 3)

    def loss(method: E2p, who: list[UserState | None]) -> list[float]:
        attached = attach(method, exact)
        found = losses(
            exact, attached, who, [items] * len(who), lambda s, q: method.frame(exact, s, q)
        )
        return [one.nats for one in found]

    together = loss(E2p(), rows)
    assert len(set(together)) == len(rows) - 1
    for state, nats in zip(rows, together, strict=True):
        assert_close(loss(E2p(), [state])[0], nats, rtol=0, atol=1e-9)


def test_while_answers_go_on_nothing_is_put_before_them() -> None:
    assert [part.soft for part in METHOD.parts(base(), [*states().values()], None)] == [None, None]


def test_too_few_people_too_short_a_context_and_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 8 other users .* e2p .* got 7"):
        METHOD.learn(base(), crowd()[:7], ONE, seed=1)
    with pytest.raises(ValueError, match=r"e2p: .* at least 8 tokens, .* got 7"):
        METHOD.learn(replace(base(), context=7), crowd(), FOUR, seed=1)
    state = states()["poets"]
    with pytest.raises(ValueError, match=r"vector of shape \(32,\), got \(31,\)"):
        METHOD.parts(base(), [replace(state, tensors={VECTOR: torch.ones(31)})], [[5]])
    with pytest.raises(ValueError, match="with a shared part, got one without"):
        METHOD.parts(base(), [replace(state, shared=None)], [[5]])
    torn = {name: t for name, t in learned().tensors.items() if name != "token_0.input.bias"}
    shared = replace(learned(), tensors=torn)
    with pytest.raises(ValueError, match=r"token_0\.input\.bias of shape \(32,\), got none"):
        METHOD.parts(base(), [replace(state, shared=shared)], [[5]])


@pytest.mark.usefixtures("brief")
def test_an_encoder_from_a_folder_is_used_and_asked_for_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = {"vocab_size": 384, "hidden_size": 24, "intermediate_size": 16}
    BertModel(BertConfig(**settings, num_hidden_layers=1, num_attention_heads=2)).save_pretrained(
        tmp_path
    )
    tiny_tokenizer().save_pretrained(tmp_path)
    method = E2p(str(tmp_path))
    shared = method.learn(base(), crowd(8), ONE, seed=1)
    state = states_of(method, base(), ONE, shared)["poets"]
    assert state.tensors[VECTOR].shape == (24,)
    assert len(set(later_losses(E2p(), base(), [state, None], "poets"))) == 2
    (done,) = fit(METHOD, base(), [newcomer("poets", ONE, shared)])
    assert f"learned with '{tmp_path}#sha256=" in str(done.error)
    with pytest.raises(ValueError, match="expected an encoder's folder or hub name"):
        E2p(str(tmp_path / "nowhere")).learn(base(), crowd(8), ONE, seed=1)
