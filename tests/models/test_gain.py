"""The matrix of memories and users, and intervals over users."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from models.base import Base
from models.gain import GainMatrix, gain_matrix, joined, paired_interval, strangers_of
from models.history import Fact, Interaction
from models.milp import Milp
from models.personalizer import UserState, attach
from models.scoring import losses, recall, score
from tests.tiny import tiny_base, tiny_interactions


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_base(dtype=torch.float64)


def a_state(base: Base, user_id: str, seed: int) -> UserState:
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name, (features_in, features_out) in base.matrix_shapes(seed % 4).items():
        a_RI = torch.randn(2, features_in, generator=generator, dtype=base.dtype)
        b_OR = torch.randn(features_out, 2, generator=generator, dtype=base.dtype)
        tensors |= {f"{name}.lora_A.weight": a_RI * 0.3, f"{name}.lora_B.weight": b_OR * 0.3}
    return UserState("milp", user_id, {}, tensors)


def test_every_entry_is_that_memory_on_those_words(base: Base) -> None:
    users = ["ann", "bob", "cleo"]
    states = {user: a_state(base, user, seed) for seed, user in enumerate(users)}
    items = {user: tiny_interactions(user, 3) for user in users}
    method = attach(Milp(), base)
    drawn = strangers_of(users, users, 4, seed=0)
    found = gain_matrix(base, method, states, items, drawn)
    assert found.users == ("ann", "bob", "cleo")
    assert found.recall is None
    for owner in users:
        for user in users:
            (alone,) = losses(base, method, [states[owner]], [items[user]])
            assert found.loss[user][owner] == pytest.approx(alone.nats, abs=1e-9)


def test_recall_is_measured_where_answers_are_allowed_and_facts_known(base: Base) -> None:
    states = {"ann": a_state(base, "ann", 1), "bob": a_state(base, "bob", 2)}
    method = attach(Milp(), base)
    queries = [i.query for i in tiny_interactions("ann", 4)]
    plain = [Interaction("ann", 0.0, query, "r") for query in queries]
    (spoken,) = score(base, method, [states["ann"]], [plain], [8])
    value = next(word for answer in spoken.answers for word in answer.split() if word.isalnum())
    fact = Fact(value, "asked", 12)
    with_fact = [Interaction("ann", 0.0, query, "r", fact=fact) for query in queries]
    items = {"ann": with_fact, "bob": with_fact}
    drawn = {"ann": ["bob"], "bob": ["ann"]}
    limits = {"ann": 8, "bob": 8}
    found = gain_matrix(base, method, states, items, drawn, answer_limits=limits)
    hits = recall(with_fact, spoken.answers)["all"].hits
    assert hits >= 1
    assert found.recall is not None
    assert found.recall["ann"]["ann"] == found.recall["bob"]["ann"] == hits / 4


def test_a_user_answered_by_the_base_is_measured_but_nobodys_stranger(base: Base) -> None:
    states = {
        "ann": a_state(base, "ann", 1),
        "bob": None,
        "cleo": UserState("milp", "cleo", {}, {}),
    }
    items = {user: tiny_interactions(user, 2) for user in states}
    method = attach(Milp(), base)
    drawn = strangers_of(list(states), ["ann"], 4, seed=0)
    found = gain_matrix(base, method, states, items, drawn)
    (plain,) = losses(base, method, [None], [items["bob"]])
    assert found.loss["bob"]["bob"] == pytest.approx(plain.nats, abs=1e-9)
    assert {user: set(tried) for user, tried in found.loss.items()} == {
        "ann": {"ann"},
        "bob": {"bob", "ann"},
        "cleo": {"cleo", "ann"},
    }


def test_four_strangers_are_drawn_for_each_user_by_the_seed() -> None:
    users = [f"user{i}" for i in range(12)]
    drawn = strangers_of(users, users, 4, seed=1)
    assert drawn == strangers_of(users, users, 4, seed=1)
    assert drawn != strangers_of(users, users, 4, seed=2)
    assert all(len(set(others)) == 4 and user not in others for user, others in drawn.items())
    assert len({owner for others in drawn.values() for owner in others}) > 6
    assert all(len(others) == 2 for others in strangers_of(users[:3], users[:3], 4, 1).values())
    owners = users[::2]
    for user, others in strangers_of(users, owners, 4, seed=1).items():
        assert len(set(others)) == 4
        assert set(others) <= set(owners) - {user}


def test_parts_are_joined_and_hold_no_more_than_was_tried() -> None:
    first = GainMatrix({"a": {"a": 1.0, "b": 2.0}})
    second = GainMatrix({"b": {"b": 3.0}}, {"b": {"b": 0.5}})
    whole = joined([first, second])
    assert whole == GainMatrix({"a": {"a": 1.0, "b": 2.0}, "b": {"b": 3.0}}, {"b": {"b": 0.5}})
    assert joined([first]).recall is None


def test_an_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for seed in range(60):
        differences = generator.normal(0.3, 1.0, size=30)
        found = paired_interval(differences.tolist(), seed)
        assert found.low < found.mean < found.high
        assert found.mean == pytest.approx(differences.mean())
        held += found.low <= 0.3 <= found.high
    assert 51 <= held <= 60  # 57 expected of 60; 51 is four standard deviations below


def test_intervals_are_reproducible_and_turn_with_the_sign() -> None:
    differences = [-0.2, -0.1, -0.4, 0.05, -0.3, -0.25, -0.15, -0.02]
    found = paired_interval(differences, 3)
    assert found == paired_interval(differences, 3)
    assert found.high < 0
    turned = paired_interval([-d for d in differences], 3)
    assert turned.low == pytest.approx(-found.high, abs=0.02)


def test_intervals_of_one_user_of_equal_users_and_of_none() -> None:
    alone = paired_interval([0.5], 0)
    assert alone.mean == 0.5
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)
    assert paired_interval([0.5, 0.5, 0.5], 0) == (0.5, 0.5, 0.5)
    rounded = paired_interval([-0.01] * 5 + [-0.010000000000000002], 0)
    assert rounded.low == rounded.high == pytest.approx(-0.01)
    assert paired_interval([0.0, 1.0], 0).low <= 0.5 <= paired_interval([0.0, 1.0], 0).high
    with pytest.raises(ValueError, match="at least one"):
        paired_interval([], 0)
