"""Latent personal memory: slots that hold a user's own words, read by the query.

Planted: each user answers with a word that stands in no query. With the slots fitted to a user,
the loss of what that user says later must be lower than with somebody else's slots, and than the
base's.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from models import jointly
from models.base import Base
from models.decoding import generate
from models.history import Interaction
from models.loss import row_nll
from models.lpm import SLOTS, Lpm
from models.options import Options, default
from models.parts import running
from models.personalizer import Budget, Person, Shared, Task, UserState, attach, fit, frame_each
from models.prompt import Row
from models.scoring import losses
from models.slots import SlotNetwork, Slots, fresh_slots, parts_of, pooled
from models.soft import soft_ids, with_soft
from tests.groups import crowd, reloaded
from tests.tiny import tiny_base

OPTIONS = Options.of(slots=8, width=32, vectors=4, network_rate=1e-2, learning_rate=1e-2)
BUDGET = Budget(injection_epochs=0, tuning_epochs=20, minimum_steps=1, patience_epochs=20)
WORDS = {"ann": "Lisbon", "bob": "carrots", "cat": "peanuts", "dan": "garden"}
THINGS = ("key", "hat", "plan")
METHOD = Lpm()


def said(user: str, word: str, start: int, count: int) -> tuple[Interaction, ...]:
    return tuple(
        Interaction(user, float(i), f"Tell me {i}, what of my {THINGS[i % 3]}?", word)
        for i in range(start, start + count)
    )


@cache
def others() -> tuple[Person, ...]:
    words = sorted(WORDS.values())
    named = [(f"other{i}", words[i % len(words)]) for i in range(8)]
    return tuple(Person(name, said(name, w, 0, 8), said(name, w, 8, 4)) for name, w in named)


@cache
def base() -> Base:
    return tiny_base()


@cache
def exact() -> Base:
    return tiny_base(dtype=torch.float64)


@cache
def learned() -> Shared:
    return METHOD.learn(base(), others(), OPTIONS, seed=1)


def task(user: str, shared: Shared | None) -> Task:
    train, validation = said(user, WORDS[user], 0, 16), said(user, WORDS[user], 16, 4)
    return Task(user, user, train, validation, OPTIONS, 1, shared=shared, budget=BUDGET)


@cache
def states() -> dict[str, UserState]:
    users = ("ann", "bob")
    done = fit(METHOD, base(), [task(user, learned()) for user in users])
    return {one.key: one.state for one in done if one.state is not None}


def later_losses(method: Lpm, found: list[UserState | None], user: str) -> list[float]:
    items = said(user, WORDS[user], 30, 4)
    framed = frame_each({"lpm": method}, base())
    measured = losses(base(), attach(method, base()), found, [items] * len(found), framed)
    return [loss.nats for loss in measured]


def network(on: Base, seed: int = 0) -> SlotNetwork:
    return SlotNetwork.initialise(on, OPTIONS, seed)


def test_a_users_slots_hold_what_no_prompt_says(tmp_path: Path) -> None:
    loaded = dict(zip(states(), reloaded([*states().values()], base(), tmp_path), strict=True))
    for user, other in (("ann", "bob"), ("bob", "ann")):
        own, strangers, bases = later_losses(METHOD, [states()[user], states()[other], None], user)
        assert own < strangers - 0.05
        assert own < bases - 0.3
        alone = later_losses(Lpm(), [states()[user]], user)
        assert later_losses(Lpm(), [loaded[user]], user) == alone


def test_a_state_is_the_slots_and_others_slots_are_kept_nowhere() -> None:
    for state in states().values():
        assert {name: tuple(t.shape) for name, t in state.tensors.items()} == {SLOTS: (8, 32)}
        assert state.shared is learned()
    names = {name.split(".")[0] for name in learned().tensors}
    assert names == {"asked", "resampler", "projection"}
    assert not torch.equal(states()["ann"].tensors[SLOTS], states()["bob"].tensors[SLOTS])


def test_users_together_equal_each_alone_and_the_network_stays_as_it_was() -> None:
    on = exact()
    made = network(on)
    shared = Shared("lpm", OPTIONS.to_json(), made.tensors())
    short = replace(BUDGET, tuning_epochs=3)
    tasks = [replace(task(user, shared), budget=short) for user in ("ann", "bob")]
    tasks[1] = replace(tasks[1], train=tasks[1].train[:11])
    together = fit(Lpm(), on, tasks)
    for got, one in zip(together, tasks, strict=True):
        (alone,) = fit(Lpm(), on, [one])
        assert got.steps == alone.steps
        assert got.state is not None
        assert alone.state is not None
        assert_close(got.state.tensors[SLOTS], alone.state.tensors[SLOTS], rtol=0, atol=1e-9)
        fresh = fresh_slots(on, (8, 32), one.seed)
        assert (got.state.tensors[SLOTS] - fresh).abs().max() > 1e-3
    for name, tensor in made.tensors().items():
        assert torch.equal(tensor, shared.tensors[name])


def test_soft_tokens_depend_on_the_query_and_not_on_neighbours() -> None:
    on = exact()
    one, two = network(on), network(on, seed=4)
    learners = [Slots(fresh_slots(on, (8, 32), seed), one) for seed in (1, 2)]
    learners.append(Slots(fresh_slots(on, (5, 32), 3), two))
    prompts = [(0, -1, -2, 5, 9), (0, 5, 9), (0, 7, 7, 7)]
    together = [part.soft for part in parts_of(on, learners, prompts)]
    for learner, prompt, soft in zip(learners, prompts, together, strict=True):
        (alone,) = parts_of(on, [learner], [prompt])
        assert alone.soft is not None
        assert soft is not None
        assert soft.shape == (4, on.width)
        assert_close(alone.soft, soft, rtol=0, atol=1e-12)
    first, without, other = parts_of(on, learners[:1] * 3, [prompts[0], prompts[1], prompts[2]])
    assert first.soft is not None
    assert without.soft is not None
    assert other.soft is not None
    assert_close(first.soft, without.soft, rtol=0, atol=1e-12)  # soft ids are not read
    assert (first.soft - other.soft).abs().max() > 1e-6
    assert torch.equal(pooled(on, [(-1, -2)]), torch.zeros(1, on.width, dtype=torch.float64))


def test_a_gradient_reaches_every_weight_and_slot() -> None:
    on = exact()
    made = network(on)
    learners = [Slots(fresh_slots(on, (8, 32), seed), made) for seed in (1, 2)]
    rows = [Row((*soft_ids(4), 5, 6, 7, 8), 6), Row((*soft_ids(4), 9, 6, 11), 5)]
    with running(on, parts_of(on, learners, [row.tokens[:5] for row in rows])):
        torch.autograd.backward(row_nll(on, rows).sum())
    for weight in made.parameters():
        assert weight.grad is not None
        assert (weight.grad != 0).any()
    for learner in learners:
        assert learner.slots.grad is not None
        assert (learner.slots.grad != 0).any(1).all()


def test_each_item_shares_out_its_attention_among_the_slots() -> None:
    items = [*said("ann", "Lisbon", 0, 3), Interaction("ann", 9.0, None, "My dog sleeps.")]
    masses = METHOD.masses(base(), states()["ann"], items)
    assert masses.shape == (8, 4)
    assert (masses >= 0).all()
    assert_close(masses.sum(0), torch.ones(4), rtol=0, atol=1e-5)
    again = METHOD.masses(base(), states()["ann"], items[::-1])
    assert_close(again, masses.flip(1), rtol=0, atol=1e-6)
    assert (masses[:, 0] - masses[:, 3]).abs().max() > 1e-5


def test_answers_in_a_mixed_batch_are_as_alone_and_as_in_a_whole_pass() -> None:
    on = base()
    rows_states = [states()["ann"], None, states()["bob"]]
    attached, framed = attach(METHOD, on), frame_each({"lpm": METHOD}, on)
    prompts = []
    for state, query in zip(rows_states, ("about my key?", "Rex", "what hat?"), strict=True):
        one = framed(state, query)
        tokens = tuple(on.prompt.prompt(one.query))
        row = with_soft(Row(tokens, len(tokens)), one.soft_tokens, on.prompt.begin, on.context)
        prompts.append(row.tokens)
    assert [min(prompt) for prompt in prompts] == [-4, 0, -4]
    together = generate(on, prompts, rows_states, attached, 6)
    for prompt, state, answer in zip(prompts, rows_states, together, strict=True):
        assert generate(on, [prompt], [state], attached, 6) == [answer]
        whole = torch.tensor([[*prompt, *answer]])
        with torch.no_grad(), attached([state], [prompt]):
            likeliest = on.logits(on.hidden(whole))[0].argmax(-1)
        assert likeliest[len(prompt) - 1 : len(prompt) - 1 + len(answer)].tolist() == answer
    assert any(together)


def test_a_network_first_used_in_an_answer_still_trains_slots() -> None:
    method, on = Lpm(), base()
    prompt = (*soft_ids(4), 5, 6)
    generate(on, [prompt], [states()["ann"]], attach(method, on), 2)
    short = replace(task("bob", learned()), budget=replace(BUDGET, tuning_epochs=1))
    (done,) = fit(method, on, [short])
    assert done.error is None
    assert done.steps > 0


def test_learning_again_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jointly, "FEWEST_STEPS", 4)
    once, again = (Lpm().learn(base(), crowd(8), OPTIONS, seed=5) for _ in range(2))
    assert once.tensors.keys() == again.tensors.keys()
    assert all(torch.equal(tensor, again.tensors[key]) for key, tensor in once.tensors.items())


def test_what_can_not_be_learned_or_fitted_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 8 other users"):
        METHOD.learn(base(), crowd(7), OPTIONS, seed=1)
    with pytest.raises(ValueError, match="learn first"):
        METHOD.start(base()).add(task("ann", None))
    with pytest.raises(ValueError, match="got none in the training part"):
        METHOD.start(base()).add(replace(task("ann", learned()), train=()))
    options = default(METHOD.space)
    assert [options.whole(name) for name in ("slots", "width", "vectors")] == [32, 64, 8]
