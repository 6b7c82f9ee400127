"""Words before another method's: what each pair is framed with, and a state that holds both."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from models.base import Base
from models.catalog import attach_all, frame_all, personalizer
from models.combined import WithRetrieval, milp_with_retrieval
from models.fitting import ReadFitting
from models.history import Interaction
from models.loss import row_losses
from models.milp import Milp, pair_rows, stages_of
from models.options import Options, Space, default
from models.parts import Parts
from models.personalizer import (
    Budget,
    Configuration,
    Framed,
    Person,
    Personalizer,
    Shared,
    Task,
    UserState,
    attach,
    fit,
)
from models.published import BaseIdentity
from models.registry import Registry
from models.text import Rag
from search.space import BASE_CONFIG, MemoryConfig
from tests.models.test_text import added
from tests.tiny import tiny_base

QUICK = Budget(injection_epochs=1, tuning_epochs=3, minimum_steps=1, patience_epochs=3)
OPTIONS = Options.of(rank=8, learning_rate=5e-3, k=2, budget=64)


def items(user: str, count: int, first: int = 0) -> tuple[Interaction, ...]:
    """Every item shares words with every other, and holds a mark of its own."""
    return tuple(
        Interaction(user, float(i), f"the dog {i % 3}?", f"mark{i:03} {user}")
        for i in range(first, first + count)
    )


def task(user: str = "ann", count: int = 24, **changes: object) -> Task:
    parts = items(user, count), items(user, 4, count)
    return replace(Task(f"{user}/x", user, *parts, OPTIONS, 1, budget=QUICK), **changes)  # type: ignore[arg-type]


def marks(text: str | None) -> list[int]:
    return [int(found) for found in re.findall(r"mark(\d{3})", text or "")]


class Fixed:
    """A method whose soft tokens are all alike, and that keeps what it learned from."""

    name = "fixed"

    def __init__(self) -> None:
        self.space: Space = {"tokens": (2, 3)}
        self.people: Sequence[Person] = ()

    def learn(
        self, base: Base, people: Sequence[Person], configuration: Configuration, seed: int
    ) -> Shared:
        self.people = people
        return Shared(self.name, configuration.to_json(), {"soft": torch.ones(3, base.width)})

    def start(self, base: Base) -> ReadFitting:
        return ReadFitting(
            lambda t: UserState(self.name, t.user_id, t.configuration.to_json(), {}, {}, t.shared)
        )

    def frame(self, base: Base, state: UserState | None, query: str) -> Framed:
        assert state is not None
        return Framed(query, int(str(state.configuration["tokens"])))

    def parts(
        self,
        base: Base,
        states: Sequence[UserState],
        prompts: Sequence[Sequence[int]] | None,
    ) -> list[Parts]:
        assert prompts is None or len(prompts) == len(states)
        assert all(state.shared is not None for state in states)
        tokens = [int(str(state.configuration["tokens"])) for state in states]
        return [Parts(soft=torch.ones(count, base.width)) for count in tokens]


def test_a_training_pair_stands_behind_earlier_items_alone() -> None:
    framed, words = milp_with_retrieval().tasks(tiny_base(), task())
    plain = task()
    assert framed.train == plain.train
    for number, (asked, item) in enumerate(zip(framed.asked, plain.train, strict=True)):
        assert asked.response == item.response
        assert str(asked.query).endswith(str(item.query))
        found = marks(asked.query)
        assert all(earlier < number for earlier in found)
        assert found == sorted(found)
        assert len(found) == min(number, 2)
    for asked in framed.validation:
        assert len(marks(asked.query)) == 2
        assert max(marks(asked.query)) < len(plain.train)
    assert not any(mark >= len(plain.train) for mark in marks(" ".join(words.text.values())))


def test_injection_reads_the_bare_words() -> None:
    base = tiny_base()
    for user_said in ("response", "query", "both"):
        wanted = task(user_said=user_said)
        framed, _ = milp_with_retrieval().tasks(base, wanted)
        (injected, tuned), _ = stages_of(base, framed)
        (expected, bare), _ = stages_of(base, replace(wanted, configuration=framed.configuration))
        assert injected == expected
        assert len(tuned.rows) == len(bare.rows)
        assert tuned.rows != bare.rows


def test_posts_stay_posts() -> None:
    post = Interaction("ann", 0.5, None, "the dog, a post of mark777")
    wanted = task()
    wanted = replace(wanted, train=(post, *wanted.train))
    framed, _ = milp_with_retrieval().tasks(tiny_base(), wanted)
    assert framed.asked[0] == post
    assert 777 in marks(framed.asked[1].query)


def test_only_what_an_epoch_reads_is_framed_and_it_is_the_same() -> None:
    base = tiny_base()
    short = replace(QUICK, epoch_tokens=300)
    framed, _ = milp_with_retrieval().tasks(base, task(budget=short))
    every, _ = milp_with_retrieval().tasks(base, task(budget=replace(QUICK, epoch_tokens=None)))
    every = replace(every, budget=short)
    assert framed.asked != every.asked
    assert framed.asked[0] == task().train[0]
    assert stages_of(base, framed)[0][1].rows == stages_of(base, every)[0][1].rows


def test_a_state_holds_both_and_answers_as_each(registry: Registry) -> None:
    base, method = tiny_base(), milp_with_retrieval()
    wanted = task()
    done = fit(method, base, [wanted])[0]
    assert done.state is not None
    assert done.state.method == method.name == "milp+rag"
    framed = [
        replace(item, query=method.frame(base, done.state, str(item.query)).query)
        for item in wanted.validation
    ]
    rows = pair_rows(base, framed)
    found = row_losses(base, rows, [done.state] * len(rows), attach(method, base))
    loss = sum(nats for nats, _ in found) / sum(count for _, count in found)
    assert_close(loss, done.loss_nats, rtol=0, atol=1e-5)

    registry.publish(done.state, BaseIdentity.of(base), {})
    loaded = registry.load("ann", base)
    assert loaded is not None
    query = "the dog 1?"
    alike = [frame_all(base)(state, query) for state in (done.state, loaded)]
    assert alike[0] == alike[1] == method.frame(base, done.state, query)
    words = fit(Rag(), base, [replace(wanted, configuration=default(Rag().space))])[0].state
    assert words is not None
    words = replace(words, configuration={**words.configuration, "k": 2, "budget": 64})
    assert alike[0] == Rag().frame(base, words, query)
    assert 0 < added(base, alike[0].query, query) <= 64

    lora = {n: t for n, t in loaded.tensors.items() if ".lora_" in n}
    assert lora.keys() == {
        f"{name}.lora_{half}.weight"
        for layer in range(base.layer_count)
        for name in base.matrix_shapes(layer)
        for half in "AB"
    }
    alone = UserState("milp", "ann", {}, lora)
    states = [loaded, alone] * len(rows)
    twice = row_losses(base, [row for row in rows for _ in "ab"], states, attach_all(base))
    for first, second in zip(twice[::2], twice[1::2], strict=True):
        assert_close(first[0], second[0], rtol=0, atol=1e-4)


def test_a_searched_configuration_is_taken_as_the_inner_methods() -> None:
    base, method = tiny_base(), milp_with_retrieval()
    searched = MemoryConfig((1, 3), 16, 2e-3)
    framed, words = method.tasks(base, task(configuration=searched))
    assert framed.configuration == searched
    assert words.configuration == default(Rag().space).to_json()
    given, _ = method.tasks(base, task())
    assert given.configuration == MemoryConfig(tuple(range(base.layer_count)), 8, 5e-3)
    done = fit(method, base, [task(configuration=BASE_CONFIG)])[0]
    assert done.state is not None
    assert not done.state.is_base
    framed_query = method.frame(base, done.state, "the dog?").query
    assert len(marks(framed_query)) == 4
    with attach(method, base)([done.state]):
        pass


def test_other_users_words_are_in_no_frame() -> None:
    base, method = tiny_base(), milp_with_retrieval()
    tasks = [task("ann"), task("bob", 15)]
    done = fit(method, base, tasks)
    for own, other, found in (("ann", "bob", done[0]), ("bob", "ann", done[1])):
        assert found.state is not None
        framed = method.frame(base, found.state, "the dog 2? ann or bob?").query
        assert f" {own}\n" in framed
        assert f" {other}\n" not in framed
        assert other not in " ".join(found.state.text.values())


def test_a_stopped_task_is_never_reported() -> None:
    fitting = milp_with_retrieval().start(tiny_base())
    fitting.add(task("ann"))
    fitting.add(task("bob"))
    fitting.step()
    fitting.stop("ann/x")
    keys = set()
    while fitting.running:
        keys |= {done.key for done in fitting.step()[1]}
    assert keys == {"bob/x"}


def test_soft_tokens_and_shared_parts_are_combined_alike(registry: Registry) -> None:
    base, inner = tiny_base(), Fixed()
    method = WithRetrieval(inner)
    assert method.name == "fixed+rag"
    assert set(method.space) == {"tokens", "k", "budget"}
    options = Options.of(tokens=3, k=2, budget=64)
    past, pairs = items("eve", 5), items("eve", 4, 5)
    shared = method.learn(base, [Person("eve", past, pairs)], options, 0)
    assert shared is not None
    assert shared.configuration == {"tokens": 3}
    (learned,) = inner.people
    assert learned.history == past
    for number, pair in enumerate(learned.pairs, 5):
        assert len(marks(pair.query)) == 2
        assert max(marks(pair.query)) < number
    done = fit(method, base, [task(configuration=options, shared=shared)])[0]
    assert done.state is not None
    framed = method.frame(base, done.state, "the dog?")
    assert framed.soft_tokens == 3
    assert len(marks(framed.query)) == 2
    (parts,) = method.parts(base, [done.state], [[1, 2, 3]])
    assert parts.soft is not None
    assert len(parts.soft) == 3
    registry.publish(done.state, BaseIdentity.of(base), {})
    loaded = registry.load("ann", base)
    assert loaded is not None
    assert method.frame(base, loaded, "the dog?") == framed


def test_options_of_both_must_differ_in_name() -> None:
    clashing: Personalizer = Milp()
    with pytest.raises(ValueError, match="other names than the words'"):
        WithRetrieval(clashing, {"k": (1, 2)})


@pytest.mark.parametrize("name", ["tplp", "rag", "malp", "milp+rag"])
def test_the_catalog_knows_it_by_its_name(name: str) -> None:
    method = personalizer(name)
    assert method.name == name
    assert list(default(method.space).to_json()) == list(method.space)
