"""What a memory changed, held against arithmetic by hand on tiny bases."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from models.base import Base
from models.inside import NEUTRAL_QUESTIONS, NEUTRAL_TOKENS, Change, change, neutral_rows
from models.milp import Milp, pair_rows
from models.personalizer import Task, UserState, attach, fit
from models.prompt import Row
from models.scoring import losses
from search.space import MemoryConfig
from tests.states import a_state
from tests.tiny import tiny_base, tiny_interactions

PAIRS = tuple(tiny_interactions("ann", 8))


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_base()


def log_probabilities(base: Base, state: UserState | None, row: Row) -> Tensor:
    """`[N, V]` of one row alone, from the model's own logits."""
    with torch.no_grad(), attach(Milp(), base)([state]):
        logits_BTV = base.model(torch.tensor([row.tokens])).logits
    return torch.log_softmax(logits_BTV[0, row.predict_from - 1 : -1].double(), -1)


def found(base: Base, state: UserState, rows: tuple[Row, ...], most: int = 10) -> Change:
    return change(base, attach(Milp(), base), state, rows, most)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_rises_and_gained_mass_are_those_of_each_row_alone(family: str) -> None:
    base, state = tiny_base(family), a_state(family=family)
    rows = pair_rows(base, PAIRS)
    rises, masses = defaultdict(list), []
    for row in rows:
        before, after = log_probabilities(base, None, row), log_probabilities(base, state, row)
        masses.append(after.exp() - before.exp())
        for place, token in enumerate(row.tokens[row.predict_from :]):
            rises[token].append(float(after[place, token] - before[place, token]))
    changed = found(base, state, rows)
    assert changed.places == sum(row.predicted for row in rows)
    assert {rise.token: rise.count for rise in changed.rises} == {
        token: len(nats) for token, nats in rises.items()
    }
    for rise in changed.rises:
        assert rise.mean_nats == pytest.approx(sum(rises[rise.token]) / rise.count, abs=2e-5)
    mass_V = torch.cat(masses).mean(0)
    top = torch.topk(mass_V, 10)
    assert [each.token for each in changed.gained] == top.indices.tolist()
    assert_close([g.mean_mass for g in changed.gained], top.values.tolist(), rtol=0, atol=1e-6)


def test_rises_add_up_to_the_gain_in_loss_and_the_largest_sum_is_first(base: Base) -> None:
    state, rows = a_state(), pair_rows(base, PAIRS)
    changed = found(base, state, rows)
    sums = [rise.count * rise.mean_nats for rise in changed.rises]
    assert sums == sorted(sums, reverse=True)
    before, after = losses(base, attach(Milp(), base), [None, state], [PAIRS, PAIRS])
    assert sum(sums) / changed.places == pytest.approx(before.nats - after.nats, abs=1e-5)


def test_a_memory_that_adds_nothing_changed_nothing(base: Base) -> None:
    state = a_state()
    silent = {
        name: tensor * 0 if "lora_B" in name else tensor for name, tensor in state.tensors.items()
    }
    empty = UserState("milp", "ann", state.configuration, silent)
    changed = found(base, empty, pair_rows(base, PAIRS))
    assert all(rise.mean_nats == 0 for rise in changed.rises)
    assert changed.gained == ()
    # Of equals, the token with the smaller number comes first.
    tokens = [rise.token for rise in changed.rises]
    assert tokens == sorted(tokens)


def test_what_a_memory_was_taught_rises_most_and_what_it_was_not_does_not(base: Base) -> None:
    taught = MemoryConfig((1, 2, 3), 4, 1e-2)
    task = Task("a", "ann", PAIRS, PAIRS, taught, 0)
    state = fit(Milp(), base, [task])[0].state
    assert state is not None
    row = base.prompt.pair("question 3: what about my dog?", PAIRS[0].response)
    stranger = base.prompt.pair("question 3: what about my dog?", "QZ")
    changed = found(base, state, (row, stranger))
    mean = {rise.token: rise.mean_nats for rise in changed.rises}
    unsaid = set(base.prompt.text("QZ"))
    said = set(base.prompt.text(PAIRS[0].response)) - unsaid
    assert fmean(mean[token] for token in unsaid) + 1 < fmean(mean[token] for token in said)
    assert changed.rises[0].token in said
    assert not {each.token for each in changed.gained} & unsaid


def test_how_rows_are_batched_changes_nothing(base: Base) -> None:
    state, rows = a_state(), pair_rows(base, PAIRS)
    whole, turned = found(base, state, rows), found(base, state, rows[::-1])
    assert whole == found(base, state, rows)
    assert [r.token for r in whole.rises] == [r.token for r in turned.rises]
    assert_close([r.mean_nats for r in whole.rises], [r.mean_nats for r in turned.rises])


@pytest.mark.parametrize("family", ["llama", "roberta"])
def test_neutral_rows_are_the_bases_own_answers_with_their_end(family: str) -> None:
    base = tiny_base(family)
    rows = neutral_rows(base, attach(Milp(), base))
    assert len(rows) == len(NEUTRAL_QUESTIONS)
    for row, question in zip(rows, NEUTRAL_QUESTIONS, strict=True):
        prompt = base.prompt.prompt(question)
        assert list(row.tokens[: row.predict_from]) == prompt
        assert 1 <= row.predicted <= NEUTRAL_TOKENS + 1
        assert row.tokens[-1] in base.prompt.stop_ids
        likeliest = log_probabilities(base, None, row).argmax(-1).tolist()
        assert tuple(likeliest[:-1]) == row.tokens[row.predict_from : -1]


def test_no_rows_are_refused(base: Base) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        found(base, a_state(), ())
