"""A user of every method, served from one registry in one running batch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models import jointly
from models.base import Base
from models.catalog import PERSONALIZERS, attach_all, frame_all, personalizer
from models.decoding import generate
from models.history import History
from models.options import default
from models.personalizer import Budget, Configuration, Task, UserState, fit
from models.prompt import Row
from models.registry import BaseIdentity, Registry
from models.sharing import people
from models.soft import with_soft
from search.space import MemoryConfig
from serve.access import EVERYONE
from serve.ask import Ask
from serve.engine import Engine
from serve.memories import Memories
from serve.schema import ChatRequest, parse
from serve.service import Service
from tests.tiny import tiny_interactions

QUERY = "what about my dog?"
ANSWER_TOKENS = 6
SOFT_TOKENS = {  # of each method's default options
    "prompt-tuning": 10, "prompt-tuning-shared": 10, "e2p": 1, "pplug": 2, "pplug+rag": 2,
    "uelp": 16, "lpm": 8,
}  # fmt: skip


def state_of(base: Base, name: str) -> UserState:
    """A state of a user who is named after the method, trained for a moment."""
    method = personalizer(name)
    configuration: Configuration = MemoryConfig((0, 2), 8, 5e-3)
    if name != "milp":
        configuration = default(method.space)
    others = [History(f"cat{i}", tuple(tiny_interactions(f"cat{i}", 20))) for i in range(8)]
    found = people(others, set(), count=8, pairs=4, seed=1)
    shared = method.learn(base, found, configuration, seed=3)
    items = tuple(tiny_interactions(name, 20))
    budget = Budget(injection_epochs=1, tuning_epochs=1, minimum_steps=4)
    task = Task(name, name, items[:16], items[16:], configuration, 7, budget=budget, shared=shared)
    (end,) = fit(method, base, [task])
    assert end.state is not None, end.error
    return end.state


def asked(service: Service, user: str) -> Ask:
    message = {"role": "user", "content": QUERY}
    body = {
        "model": f"{service.name}:{user}", "messages": [message], "max_tokens": ANSWER_TOKENS,
    }  # fmt: skip
    return service.prepare(parse(ChatRequest, json.dumps(body).encode()), EVERYONE).asks[0]


def test_every_methods_user_is_answered_in_one_batch_as_alone(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jointly, "FEWEST_STEPS", 6)
    registry, names = Registry(tmp_path / "registry"), sorted(PERSONALIZERS)
    for name in names:
        state = state_of(base, name)
        reason = "no memory" if state.is_base else None
        registry.publish(state, BaseIdentity.of(base), {}, reason)
    service = Service(base, Memories(registry, base, 1 << 30))
    asks = {name: asked(service, name) for name in names}
    soft = {name: sum(token < 0 for token in ask.prompt) for name, ask in asks.items()}
    assert {name: count for name, count in soft.items() if count} == SOFT_TOKENS
    engine = Engine(base, attach_all(base), rows=len(names), waiting=len(names))
    try:
        together = [piece.text for piece in engine.answer(list(asks.values()))]
    finally:
        engine.close()
    for name, text in zip(names, together, strict=True):
        kept = registry.load(name, base)
        framed = frame_all(base)(kept, QUERY)
        bare = tuple(base.prompt.prompt(framed.query))
        row = with_soft(Row(bare, len(bare)), framed.soft_tokens, base.prompt.begin, base.context)
        assert asks[name].prompt == row.tokens
        (tokens,) = generate(base, [row.tokens], [kept], attach_all(base), ANSWER_TOKENS)
        assert base.prompt.decode(tokens) == text, name
    assert len(set(together)) > 1
