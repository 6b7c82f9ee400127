"""Users whose past stands in the prompt, served beside the others from one running batch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.base import Base
from models.catalog import personalizer
from models.decoding import generate
from models.history import Interaction
from models.options import default
from models.personalizer import Budget, Task, UserState, attach, fit
from models.registry import BaseIdentity, Registry
from models.text import VECTORS
from serve.access import EVERYONE
from serve.ask import Ask
from serve.engine import Engine
from serve.memories import Memories
from serve.schema import ChatRequest, CompletionRequest, RefusedError, parse
from serve.service import Service
from tests.serve.people import publish

METHODS = ("tplp", "rag", "malp", "milp+rag")
QUERY = "What is my parrot called?"


def past(user: str) -> tuple[Interaction, ...]:
    posts = [Interaction(user, float(i), None, f"My parrot is {user}'s own {i}") for i in range(12)]
    pairs = [
        Interaction(user, 20.0 + i, f"What is my parrot {i} called?", f"the {user} one")
        for i in range(6)
    ]
    return (*posts, *pairs)


def served(folder: Path, base: Base) -> Service:
    """Everybody's states, among them one user for each method of words, named after it."""
    registry = publish(folder, base)
    quick = Budget(injection_epochs=0, tuning_epochs=1, minimum_steps=1)
    for name in METHODS:
        method = personalizer(name)
        items = past(name)
        task = Task(name, name, items[:-2], items[-2:], default(method.space), 1, "response", quick)
        state = fit(method, base, [task])[0].state
        assert state is not None
        registry.publish(state, BaseIdentity.of(base), {})
    return Service(base, Memories(registry, base, 1 << 30))


def asked(service: Service, user: str, limit: int = 6) -> Ask:
    message = {"role": "user", "content": QUERY}
    body = {"model": f"{service.name}:{user}", "messages": [message], "max_tokens": limit}
    return service.prepare(parse(ChatRequest, json.dumps(body).encode()), EVERYONE).asks[0]


def test_each_user_is_asked_behind_own_words_and_answered_as_if_alone(
    base: Base, engine: Engine, tmp_path: Path
) -> None:
    service = served(tmp_path / "registry", base)
    users = [*METHODS, "ada", "bob"]
    asks = [asked(service, user) for user in users]
    for user, ask in zip(METHODS, asks, strict=False):
        words = base.prompt.decode(ask.prompt)
        assert words.endswith(QUERY)
        assert f"{user}'s own" in words or f"the {user} one" in words
        assert not any(f"{other}'s" in words for other in METHODS if not user.endswith(other))
    assert base.prompt.decode(asks[-1].prompt) == QUERY
    together = [piece.text for piece in engine.answer(asks)]
    assert together == [engine.answer([ask])[0].text for ask in asks]
    for name, ask, text in zip(METHODS, asks, together, strict=False):
        attached = attach(personalizer(name), base)
        (tokens,) = generate(base, [ask.prompt], [ask.state], attached, 6)
        assert base.prompt.decode(tokens) == text


def continued(service: Service, user: str, *texts: str) -> tuple[Ask, ...]:
    body = {"model": f"{service.name}:{user}", "prompt": list(texts), "max_tokens": 6}
    request = parse(CompletionRequest, json.dumps(body).encode())
    return service.prepare(request, EVERYONE).asks


def test_words_that_are_continued_stand_behind_the_users_own_too(
    base: Base, engine: Engine, tmp_path: Path
) -> None:
    service = served(tmp_path / "registry", base)
    text = f"{QUERY}\nIt is"
    bare = continued(service, "ada", text)[0].prompt
    assert list(bare) == [*base.prompt.begin, *base.prompt.text(text)]
    asks = [continued(service, user, text)[0] for user in METHODS]
    for user, ask in zip(METHODS, asks, strict=True):
        words = base.prompt.decode(ask.prompt)
        before = words.removesuffix(text)
        assert before != words
        assert f"{user}'s own" in before or f"the {user} one" in before
        assert "\n" not in before
    together = [piece.text for piece in engine.answer(asks)]
    for name, ask, said in zip(METHODS, asks, together, strict=True):
        attached = attach(personalizer(name), base)
        (tokens,) = generate(base, [ask.prompt], [ask.state], attached, 6)
        assert said.startswith(base.prompt.decode(tokens))  # which ends at a line break
        assert said == engine.answer([ask])[0].text


def test_several_texts_stand_each_behind_what_fits_it(base: Base, tmp_path: Path) -> None:
    service = served(tmp_path / "registry", base)
    texts = (QUERY, "the rag one was", "What is my parrot 2 called?")
    together = continued(service, "rag", *texts)
    assert [ask.prompt for ask in together] == [
        continued(service, "rag", text)[0].prompt for text in texts
    ]


@pytest.mark.parametrize("encoder", ["gone", "base"], ids=["no such encoder", "another one"])
def test_a_memory_whose_encoder_is_gone_is_refused_not_answered_without_it(
    base: Base, tmp_path: Path, encoder: str
) -> None:
    service = served(tmp_path / "registry", base)
    named = encoder if encoder == "base" else str(tmp_path / encoder)
    text = {"items": json.dumps(["My parrot is eve's own"]), "encoder": named}
    options = default(personalizer("rag").space).to_json()
    state = UserState("rag", "eve", options, {VECTORS: torch.ones(1, 16)}, text)
    Registry(tmp_path / "registry").publish(state, BaseIdentity.of(base), {})
    asks: tuple[Callable[[], object], ...] = (
        lambda: asked(service, "eve"),
        lambda: continued(service, "eve", QUERY),
    )
    for ask in asks:
        with pytest.raises(RefusedError) as caught:
            ask()
        error = caught.value
        assert (error.status, error.param, error.code) == (422, "model", "memory_unusable")
        assert str(tmp_path) not in str(error.body)
    assert asked(service, "rag").prompt
