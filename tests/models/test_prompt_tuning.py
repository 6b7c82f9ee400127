"""Prompt tuning: how a prompt begins, how long it trains and what it learns, one a user or for all.

Planted: users of two groups answer in two styles. A user's own prompt must lower the loss of what
the user says later, below the base's and below a prompt of the other group. That holds on a tiny
random base, at a rate of 0.03.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from models.history import Interaction
from models.jointly import rows_under
from models.loss import row_nll
from models.milp import pair_rows, stages_of
from models.options import Options, default
from models.personalizer import Budget, Framed, fit
from models.prompt_tuning import SOFT, Prompt, PromptTuning
from models.shared_prompt import SharedPrompt
from models.soft import embedded
from models.training import Stage
from models.tuning import behind, tuning_of
from tests.groups import STYLES, crowd, later_losses, newcomer, reloaded, states_of
from tests.tiny import tiny_base

QUICK = Options.of(tokens=4, learning_rate=3e-2)


def tokens_seen(stages: tuple[Stage, ...]) -> int:
    return sum(s.epochs * sum(t >= 0 for row in s.rows for t in row.tokens) for s in stages)


def test_a_prompt_begins_as_words_of_its_rows_drawn_by_the_seed() -> None:
    base = tiny_base()
    rows = pair_rows(base, newcomer("poets", QUICK).train)
    words = sorted({token for row in rows for token in row.tokens})
    table = embedded(base, words)
    found = Prompt.of_words(base, behind(base, rows, 4), 4, seed=1).soft
    places = [int((table == row).all(1).nonzero()) for row in found.detach()]
    assert len(set(places)) == 4
    assert torch.equal(Prompt.of_words(base, rows, 4, seed=1).soft, found)
    assert not torch.equal(Prompt.of_words(base, rows, 4, seed=2).soft, found)
    more = Prompt.of_words(base, rows, len(words) + 1, seed=1).soft
    assert torch.equal(more[0], more[-1])
    assert found.requires_grad


def test_every_soft_token_takes_a_gradient_of_its_own_rows_alone() -> None:
    base = tiny_base(dtype=torch.float64)
    of_user = {group: pair_rows(base, newcomer(group, QUICK).train)[:2] for group in STYLES}
    prompts = {g: Prompt.of_words(base, rows, 3, seed=1) for g, rows in of_user.items()}
    rows = [row for group in STYLES for row in behind(base, of_user[group], 3)]
    learners = [prompts[group] for group in STYLES for _ in range(2)]
    with rows_under(base, learners, rows):
        nll_B = row_nll(base, rows)
    own, other = (prompts[group].soft for group in STYLES)
    of_own, of_other = torch.autograd.grad(nll_B[:2].sum(), [own, other])
    assert (of_own != 0).any(1).all()
    assert (of_other == 0).all()


@pytest.mark.parametrize("budget", [Budget(), Budget(2, 1, 1), Budget(0, 4), Budget(3, 0, 1)])
def test_as_many_tokens_are_seen_as_by_the_main_method(budget: Budget) -> None:
    base = tiny_base()
    task = replace(newcomer("poets", QUICK), budget=budget)
    theirs, _ = stages_of(base, task)
    (stage,), counts = tuning_of(base, task, 4)
    an_epoch = tokens_seen((replace(stage, epochs=1),))
    assert abs(tokens_seen((stage,)) - tokens_seen(theirs)) <= an_epoch / 2
    assert counts == {"tokens_cut": 0, "tokens_beyond_epoch": 0, "newlines_replaced": 0}


def test_the_newest_pairs_are_read_and_posts_are_not() -> None:
    base = tiny_base()
    task = newcomer("poets", QUICK)
    post = Interaction(task.user_id, 99.0, None, "a post")
    (stage,), counts = tuning_of(base, replace(task, train=(*task.train, post)), 2)
    assert stage.rows == behind(base, pair_rows(base, task.train), 2)
    short = replace(task, budget=Budget(epoch_tokens=70))
    (cut,), counts = tuning_of(base, short, 2)
    assert cut.rows == stage.rows[-len(cut.rows) :]
    assert counts["tokens_beyond_epoch"] == tokens_seen((replace(stage, epochs=1),)) - tokens_seen(
        (replace(cut, epochs=1),)
    )
    with pytest.raises(ValueError, match="expected answers to learn from"):
        tuning_of(base, replace(task, train=(post,)), 2)


def test_a_users_own_prompt_knows_the_users_style(tmp_path: Path) -> None:
    base, method = tiny_base(), PromptTuning()
    states = states_of(method, base, QUICK, None)
    loaded = dict(zip(STYLES, reloaded([*states.values()], base, tmp_path), strict=True))
    for group in STYLES:
        (other,) = STYLES.keys() - {group}
        own, strangers, bases = later_losses(
            method, base, [states[group], states[other], None], group
        )
        assert own < min(strangers, bases) - 0.3
        alone = later_losses(method, base, [states[group]], group)
        assert later_losses(PromptTuning(), base, [loaded[group]], group) == alone
    for state in states.values():
        assert {name: t.shape for name, t in state.tensors.items()} == {SOFT: (4, base.width)}
        assert state.tensors[SOFT].dtype == torch.float32
        assert method.frame(base, state, "why?") == Framed("why?", 4)


def test_users_together_equal_each_alone_and_the_validation_loss_is_the_states() -> None:
    base = tiny_base(dtype=torch.float64)
    tasks = [newcomer("bakers", QUICK), newcomer("poets", default(PromptTuning.space))]
    for got, one in zip(fit(PromptTuning(), base, tasks), tasks, strict=True):
        alone = fit(PromptTuning(), tiny_base(dtype=torch.float64), [one])[0]
        assert got.state is not None
        assert alone.state is not None
        assert got.steps == alone.steps
        assert_close(got.state.tensors[SOFT], alone.state.tensors[SOFT], rtol=0, atol=1e-9)
        rows = behind(base, pair_rows(base, one.validation), len(got.state.tensors[SOFT]))
        with rows_under(base, [Prompt(got.state.tensors[SOFT])] * len(rows), rows):
            nats = float(row_nll(base, rows).sum()) / sum(row.predicted for row in rows)
        assert_close(got.loss_nats, nats, rtol=0, atol=1e-9)


@pytest.mark.parametrize("family", ["llama", "roberta"])
def test_a_base_without_room_is_refused_before_training(family: str) -> None:
    short = replace(tiny_base(family), context=39)
    wide = Options.of(tokens=20, learning_rate=1e-2)
    refused = r"prompt-tuning: .* at least 40 tokens, .* got 39"
    with pytest.raises(ValueError, match=refused):
        PromptTuning().start(short).add(newcomer("poets", wide))
    with pytest.raises(ValueError, match=r"prompt-tuning-shared: .* at least 40 tokens"):
        SharedPrompt().learn(short, crowd(), wide, seed=1)


def test_a_state_of_another_width_is_refused() -> None:
    base, method = tiny_base(), PromptTuning()
    state = states_of(method, base, QUICK, None)["poets"]
    wrong = replace(state, tensors={SOFT: torch.zeros(4, 31)})
    with pytest.raises(ValueError, match=r"soft of shape \(4, 32\), got \(4, 31\)"):
        method.parts(base, [wrong], [[5, 6]])


def test_one_prompt_for_all_serves_a_newcomer_who_keeps_nothing_but_its_name(
    tmp_path: Path,
) -> None:
    base, method = tiny_base(), SharedPrompt()
    shared = method.learn(base, crowd(), QUICK, seed=1)
    again = method.learn(base, crowd(), QUICK, seed=1)
    assert torch.equal(shared.tensors[SOFT], again.tensors[SOFT])
    states = states_of(method, base, QUICK, shared)
    (loaded,) = reloaded([states["poets"]], base, tmp_path)
    for state in states.values():
        assert state.shared is shared
        assert not state.tensors
        assert not state.text
    own, others, bases = later_losses(method, base, [*states.values(), None], "poets")
    assert_close(own, others, rtol=0, atol=1e-6)
    assert own < bases - 0.3
    assert later_losses(SharedPrompt(), base, [loaded], "poets") == later_losses(
        method, base, [states["poets"]], "poets"
    )


def test_what_is_shared_is_of_enough_people_and_of_the_same_options() -> None:
    base, method = tiny_base(), SharedPrompt()
    with pytest.raises(ValueError, match=r"at least 4 other users .* prompt-tuning-shared .* 3"):
        method.learn(base, crowd()[:3], QUICK, seed=1)
    without = fit(method, base, [newcomer("poets", QUICK)])[0]
    assert without.state is None
    assert "got none; learn first" in str(without.error)
    shared = method.learn(base, crowd(4), QUICK, seed=1)
    other = newcomer("poets", Options.of(tokens=10, learning_rate=3e-2), shared)
    assert "'tokens': 4" in str(fit(method, base, [other])[0].error)
