"""What every method must keep, whatever it does: one contract over all of the catalog.

Each method learns what it shares from made-up people and fits two users on a tiny base in float64.
Every user has a word that stands in all answers of the training part, and another one in those of
the validation part: so it shows whose words a state holds.

Tolerances: users together equal each alone to 1e-6, since encoders give float32; a mixed batch
scores as its rows alone to 1e-9, and answers the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from models import jointly
from models.base import Base
from models.catalog import PERSONALIZERS, attach_all, frame_all, personalizer
from models.decoding import generate
from models.history import History, Interaction
from models.options import default
from models.personalizer import (
    Budget,
    Configuration,
    Finished,
    Shared,
    Task,
    UserState,
    attach,
    fit,
)
from models.prompt import Row
from models.published import BaseIdentity
from models.registry import Registry
from models.scoring import Scores, losses, score
from models.sharing import people
from models.soft import with_soft
from search.space import MemoryConfig
from tests.tiny import tiny_base, tiny_interactions

ALL = pytest.mark.parametrize("name", sorted(PERSONALIZERS))
USERS = ("ann", "bob")
WORDS = {"ann": ("marigold", "quicksilver"), "bob": ("foxglove", "vermilion")}
STRANGER, STRANGERS_WORD = "cat", "hollyhock"
SEARCHED: Mapping[str, Configuration] = {"milp": MemoryConfig((0, 2), 8, 5e-3)}
SHORT = Budget(injection_epochs=1, tuning_epochs=1, minimum_steps=4)
QUESTION = "What is mine and what is yours?"
ITEMS = (
    Interaction("ann", 99.0, QUESTION, "a marigold of mine"),
    Interaction("ann", 99.5, "very long question " * 60, "a short answer " * 5),
)


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a method made of the two users, trained together."""

    shared: Shared | None
    done: tuple[Finished, ...]

    @property
    def states(self) -> list[UserState]:
        """One state a user."""
        return [done.state for done in self.done if done.state is not None]


@pytest.fixture(scope="module", autouse=True)
def few_steps() -> Iterator[None]:
    """What is shared is learned for a moment: this suite asks not how well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jointly, "FEWEST_STEPS", 6)
        yield


@cache
def base() -> Base:
    return tiny_base(dtype=torch.float64)


def configuration_of(name: str) -> Configuration:
    return SEARCHED.get(name) or default(personalizer(name).space)


def said(user: str, word: str, start: int, count: int) -> tuple[Interaction, ...]:
    items = tiny_interactions(user, start + count)[start:]
    return tuple(replace(i, response=f"{i.response}, says {word}") for i in items)


def task(name: str, user: str, shared: Shared | None) -> Task:
    own, later = WORDS[user]
    train, validation = said(user, own, 0, 16), said(user, later, 16, 4)
    configuration = configuration_of(name)
    return Task(f"{user}/x", user, train, validation, configuration, 7, budget=SHORT, shared=shared)


def learned(name: str) -> Shared | None:
    others = [History(f"{STRANGER}{i}", said(STRANGER, STRANGERS_WORD, 0, 20)) for i in range(8)]
    found = people(others, set(), count=8, pairs=4, seed=1)
    return personalizer(name).learn(base(), found, configuration_of(name), seed=3)


@cache
def fitted(name: str) -> Fitted:
    shared = learned(name)
    tasks = [task(name, user, shared) for user in USERS]
    return Fitted(shared, tuple(fit(personalizer(name), base(), tasks)))


def scores_of(states: list[UserState | None]) -> list[Scores]:
    items, limits = [ITEMS] * len(states), [8] * len(states)
    return score(base(), attach_all(base()), states, items, limits, frame=frame_all(base()))


def prompt_of(state: UserState | None, query: str) -> tuple[int, ...]:
    """The tokens that a state answers a query after."""
    framed = frame_all(base())(state, query)
    tokens = tuple(base().prompt.prompt(framed.query))
    row = Row(tokens, len(tokens))
    return with_soft(row, framed.soft_tokens, base().prompt.begin, base().context).tokens


def assert_alike(got: UserState | None, expected: UserState | None, tolerance: float) -> None:
    assert got is not None
    assert expected is not None
    assert got.text == expected.text
    assert got.tensors.keys() == expected.tensors.keys()
    for key, tensor in expected.tensors.items():
        assert_close(got.tensors[key], tensor, rtol=0, atol=tolerance)


@ALL
def test_each_user_gets_a_state_of_the_method(name: str) -> None:
    found = fitted(name)
    assert [done.key for done in found.done] == [f"{user}/x" for user in USERS]
    assert [done.error for done in found.done] == [None] * len(USERS)
    assert [state.user_id for state in found.states] == list(USERS)
    for state in found.states:
        assert state.method == name == personalizer(name).name
        asked = configuration_of(name).to_json()
        assert {key: state.configuration[key] for key in asked} == dict(asked)
        assert state.shared is found.shared or (state.is_base and state.shared is None)
    assert found.shared is None or found.shared.method in name.split("+")


@ALL
def test_the_same_seed_gives_the_same_states(name: str) -> None:
    before, shared = fitted(name), learned(name)
    if before.shared is not None:
        assert shared is not None
        assert before.shared.tensors.keys() == shared.tensors.keys()
        for key, tensor in before.shared.tensors.items():
            assert_close(shared.tensors[key], tensor, rtol=0, atol=0)
    again = fit(personalizer(name), base(), [task(name, user, shared) for user in USERS])
    for done, state in zip(again, before.states, strict=True):
        assert_alike(done.state, state, tolerance=0)


@ALL
def test_users_together_equal_each_alone(name: str) -> None:
    found = fitted(name)
    for done, user in zip(found.done, USERS, strict=True):
        alone = fit(personalizer(name), base(), [task(name, user, found.shared)])[0]
        assert alone.steps == done.steps
        assert_alike(alone.state, done.state, tolerance=1e-6)


@ALL
def test_a_published_state_answers_and_scores_as_before(name: str, tmp_path: Path) -> None:
    states = fitted(name).states
    for state in states:
        Registry(tmp_path).publish(state, BaseIdentity.of(base()), {})
    fresh = Registry(tmp_path)
    loaded = [fresh.load(user, base()) for user in USERS]
    for got, state in zip(loaded, states, strict=True):
        assert (got is None) == state.is_base
        if got is not None:
            assert (got.method, got.user_id, got.configuration) == (
                state.method,
                state.user_id,
                state.configuration,
            )
            assert_alike(got, state, tolerance=0)
    assert scores_of([*loaded]) == scores_of([*states])


@ALL
def test_a_state_scores_and_answers_within_the_context(name: str) -> None:
    method, states = personalizer(name), fitted(name).states
    for state in states:
        framed = method.frame(base(), state, QUESTION)
        assert framed.query.endswith(QUESTION)
        assert len(base().prompt.prompt(framed.query)) + framed.soft_tokens < base().context
    for scores in scores_of([*states]):
        assert math.isfinite(scores.loss_nats)
        assert len(scores.answers) == len(ITEMS)
    prompts = [prompt_of(state, QUESTION) for state in states]
    written = generate(base(), prompts, [*states], attach(method, base()), base().context)
    for prompt, tokens in zip(prompts, written, strict=True):
        assert len(prompt) + len(tokens) <= base().context


@ALL
def test_a_stopped_task_is_never_reported(name: str) -> None:
    fitting = personalizer(name).start(base())
    for user in USERS:
        fitting.add(task(name, user, fitted(name).shared))
    assert fitting.running == 2
    fitting.stop("ann/x")
    assert fitting.running == 1
    keys = set()
    while fitting.running:
        reports, finished = fitting.step()
        keys |= {report.key for report in reports} | {done.key for done in finished}
    assert keys == {"bob/x"}


class Foreign:
    """A configuration of no method here."""

    def to_json(self) -> dict[str, object]:
        return {"colour": "blue"}


def refusal(name: str, wrong: Task) -> str:
    """Why a task is refused: when it is added, or as its own error once it has run."""
    try:
        return fit(personalizer(name), base(), [wrong])[0].error or ""
    except ValueError as error:
        return str(error)


@ALL
def test_a_configuration_of_another_kind_is_refused(name: str) -> None:
    wrong = replace(task(name, "ann", fitted(name).shared), configuration=Foreign())
    assert "expected" in refusal(name, wrong)


@ALL
def test_a_state_holds_no_words_of_others_and_none_of_later(name: str) -> None:
    found = fitted(name)
    for state, user in zip(found.states, USERS, strict=True):
        framed = frame_all(base())(state, QUESTION).query
        text = " ".join([*state.text.values(), framed, str(state.configuration)])
        theirs = {word for other in USERS if other != user for word in WORDS[other]}
        for word in (*theirs, WORDS[user][1], STRANGERS_WORD, STRANGER):
            assert word not in text
        assert not state.text or WORDS[user][0] in text  # what this test looks for can be found
    if found.shared is not None:
        assert STRANGERS_WORD not in str(found.shared.configuration)


def test_a_mixed_batch_of_all_methods_is_as_each_alone() -> None:
    states = [None, *(state for name in sorted(PERSONALIZERS) for state in fitted(name).states)]
    attached, framed = attach_all(base()), frame_all(base())
    prompts = [prompt_of(state, QUESTION) for state in states]
    together = generate(base(), prompts, states, attached, 12)
    scored = losses(base(), attached, states, [ITEMS] * len(states), framed)
    assert len({tuple(tokens) for tokens in together}) > 1
    for i, state in enumerate(states):
        assert generate(base(), [prompts[i]], [state], attached, 12) == [together[i]]
        (alone,) = losses(base(), attached, [state], [ITEMS], framed)
        # Llama's norms round to float32 even here, where a last bit of float64 may tip them.
        assert_close(alone.nats, scored[i].nats, rtol=0, atol=1e-7)
        assert_close(alone.item_nats, scored[i].item_nats, rtol=0, atol=1e-7)
