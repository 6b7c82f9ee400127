"""Scores by hand on strings, and by a flat reference loop on tiny real models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from models.base import Base
from models.decoding import generate
from models.history import Fact, Interaction
from models.milp import Milp
from models.nothing import Nothing
from models.persona import Persona
from models.personalizer import Framed, UserState, attach
from models.scoring import (
    Loss,
    answer_limit,
    answers,
    evaluation_items,
    losses,
    recall,
    score,
    scores_of,
)
from tests.tiny import tiny_base, tiny_interactions


def interaction(query: str | None, response: str, fact: Fact | None = None) -> Interaction:
    return Interaction("ann", 0.0, query, response, fact=fact)


def random_state(base: Base, user_id: str, layers: tuple[int, ...], seed: int) -> UserState:
    """A memory that changes what the base says."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in layers:
        for name, (features_in, features_out) in base.matrix_shapes(layer).items():
            for half, shape in (("A", (4, features_in)), ("B", (features_out, 4))):
                tensor = torch.randn(shape, generator=generator, dtype=base.dtype)
                tensors[f"{name}.lora_{half}.weight"] = tensor * 0.3
    return UserState("milp", user_id, {}, tensors)


# Strings


def test_recall_by_kind_beside_chance() -> None:
    items = [
        interaction("?", "Rex", Fact("Rex", "asked", 12)),
        interaction("?", "New York", Fact("New York", "asked", 20)),
        interaction("?", "peanuts", Fact("peanuts", "unasked", 10)),
        interaction("?", "no fact here"),
    ]
    found = recall(items, ["your dog rex.", "york, new", "Peanuts?", "Rex"])
    assert {kind: counts[:2] for kind, counts in found.items()} == {
        "asked": (1, 2),
        "unasked": (1, 1),
        "all": (2, 3),
    }
    assert found["asked"].chance_sum == pytest.approx(1 / 12 + 1 / 20)
    assert found["unasked"].chance_sum == pytest.approx(1 / 10)
    assert found["all"].chance_sum == pytest.approx(1 / 12 + 1 / 20 + 1 / 10)
    assert recall(items[3:], ["Rex"]) == {}


def test_scores_of_finished_answers() -> None:
    items = [interaction("a", "red dog"), interaction("b", "green tea")]
    loss = Loss(2.0, (3, 5), (1.0, 2.6))
    found = scores_of(items, loss, ["red dog", "black coffee"], Persona.of(["red dog"]))
    assert (found.loss_nats, found.token_count) == (2.0, 8)
    assert (found.rouge_1, found.rouge_l) == (0.5, 0.5)
    assert found.rouge_l_error == pytest.approx(math.sqrt(0.5) / math.sqrt(2))
    assert found.persona_f1 == 0.5
    assert found.answers == ("red dog", "black coffee")
    assert scores_of(items, loss, ["", ""]).persona_f1 is None


def test_one_item_has_no_spread() -> None:
    found = scores_of([interaction("a", "red")], Loss(1.0, (1,), (1.0,)), ["red"])
    assert found.rouge_l_error == 0


@pytest.mark.parametrize(("count", "limit"), [(5, 32), (32, 32), (33, 32), (100, 32), (7, 1)])
def test_evaluation_items_are_pairs_evenly_spaced_in_time(count: int, limit: int) -> None:
    pairs = [interaction(f"q{i}", "a") for i in range(count)]
    posts = [interaction(None, "post")] * count
    history = [item for both in zip(posts, pairs, strict=True) for item in both]
    chosen = evaluation_items(history, limit)
    places = [pairs.index(item) for item in chosen]
    assert len(places) == min(count, limit)
    assert places == sorted(set(places))
    gaps = {b - a for a, b in pairwise(places)}
    assert max(gaps, default=0) - min(gaps, default=0) <= 1
    # Neither end is favoured.
    assert abs(places[0] - (count - 1 - places[-1])) <= 1
    assert evaluation_items(history, None) == tuple(pairs)


# Models


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_base(dtype=torch.float64)


def test_answer_limit_is_the_90th_percentile_of_training_responses(base: Base) -> None:
    lengths = {n: "x" * n for n in range(1, 200)}
    tokens = {n: len(base.prompt.text(text)) for n, text in lengths.items()}
    train = [interaction("q", lengths[n]) for n in range(1, 11)]
    ninth = sorted(tokens[n] for n in range(1, 11))[8]
    assert answer_limit(base, train) == ninth
    assert answer_limit(base, [interaction(None, "a post"), *train]) == ninth
    assert answer_limit(base, [interaction("q", " ".join(["dog"] * 100))]) == 64
    assert answer_limit(base, [interaction(None, "post")]) == 64


def test_loss_is_token_weighted_and_equals_a_loop(base: Base) -> None:
    items = tiny_interactions("ann", 5)
    memory = random_state(base, "ann", (0, 3), 1)
    method = Milp()
    found = losses(base, attach(method, base), [memory, None], [items, items[:2]])
    for state, part, got in zip([memory, None], [items, items[:2]], found, strict=True):
        rows = [base.prompt.pair(i.query or "", i.response) for i in part]
        sums, counts = [], []
        for row in rows:
            tokens = torch.tensor([row.tokens])
            with torch.no_grad(), attach(method, base)([state]):
                logits = base.logits(base.hidden(tokens))[0].log_softmax(-1)
            target = range(row.predict_from, len(row.tokens))
            sums.append(-sum(float(logits[t - 1, row.tokens[t]]) for t in target))
            counts.append(row.predicted)
        assert got.tokens == tuple(counts)
        assert got.nats == pytest.approx(sum(sums) / sum(counts), abs=1e-9)
        expected = [total / count for total, count in zip(sums, counts, strict=True)]
        assert_close(list(got.item_nats), expected, rtol=0, atol=1e-9)


def test_users_are_scored_together_as_they_are_alone(base: Base) -> None:
    ann, bob = tiny_interactions("ann", 4), tiny_interactions("bob", 3)
    states = [random_state(base, "ann", (0, 1), 1), random_state(base, "bob", (2,), 2), None]
    items, limits = [ann, bob, ann], [9, 5, 7]
    personas = [Persona.of(["your goat"]), None, Persona.of(["fine"])]
    method = attach(Milp(), base)
    together = score(base, method, states, items, limits, personas)
    for i in range(3):
        (alone,) = score(base, method, [states[i]], [items[i]], [limits[i]], [personas[i]])
        assert together[i].answers == alone.answers
        assert together[i].loss_nats == pytest.approx(alone.loss_nats, abs=1e-9)
        assert together[i].rouge_l == alone.rouge_l
        assert together[i].persona_f1 == alone.persona_f1
    assert together[0].answers != together[2].answers  # the memory says something else


def test_answers_are_greedy_and_as_long_as_allowed(base: Base) -> None:
    items, state = tiny_interactions("ann", 3), random_state(base, "ann", (1,), 4)
    method = attach(Milp(), base)
    (got,) = answers(base, method, [state], [items], [6])
    prompts = [base.prompt.prompt(i.query or "") for i in items]
    tokens = generate(base, prompts, [state] * 3, method, 6)
    assert got == tuple(base.prompt.decode(t) for t in tokens)
    assert max(map(len, tokens)) == 6


def test_a_long_query_loses_its_oldest_words_not_its_answer(base: Base) -> None:
    item, state = interaction("dog " * 500, "fine"), random_state(base, "ann", (1,), 4)
    method = attach(Milp(), base)
    (found,) = score(base, method, [state], [[item]], [8])
    assert math.isfinite(found.loss_nats)
    newest = base.prompt.prompt(item.query or "")[-(base.context - 8) :]
    (tokens,) = generate(base, [newest], [state], method, 8)
    assert len(tokens) == 8
    assert found.answers == (base.prompt.decode(tokens),)


def test_a_method_may_add_words_to_the_query(base: Base) -> None:
    seen: list[Sequence[UserState | None]] = []

    def watched(
        states: Sequence[UserState | None], prompts: Sequence[Sequence[int]] | None = None
    ) -> AbstractContextManager[None]:
        seen.append(states)
        return attach(Nothing(), base)([None] * len(states), prompts)

    items = tiny_interactions("ann", 2)
    state = UserState("rag", "ann", {}, {}, {"facts": "has a goat."})

    def frame(state: UserState | None, query: str) -> Framed:
        return Framed(f"{state.text['facts']} {query}" if state else query)

    with_words, without = losses(base, watched, [state, None], [items, items], frame)
    longer = [Interaction("ann", 0.0, f"has a goat. {i.query}", i.response) for i in items]
    (by_hand,) = losses(base, attach(Nothing(), base), [None], [longer])
    assert with_words.nats == pytest.approx(by_hand.nats, abs=1e-9)
    assert with_words.nats != pytest.approx(without.nats, abs=1e-6)
    assert {s for states in seen for s in states} == {state, None}


def test_nothing_to_score_is_refused(base: Base) -> None:
    method = attach(Nothing(), base)
    with pytest.raises(ValueError, match="at least one evaluation item"):
        losses(base, method, [None, None], [tiny_interactions("ann", 1), []])
    with pytest.raises(ValueError, match="use evaluation_items"):
        losses(base, method, [None], [[interaction(None, "post")]])
