"""The same questions, over HTTP, to two users' models and to the plain base.

It knows nothing of how models are made or served, only the server's OpenAI-compatible routes. Every
question is put in words that neither user's training part holds, on the first attributes that
differ: the order of the attributes decides, not how well they are answered.
"""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from examples.questions import QUESTIONS
from examples.world import ATTRIBUTES

TRAINING_SHARE = 0.7
QUESTION_COUNT = 4

Interactions = Sequence[Mapping[str, Any]]

# The server is on this machine: a proxy set for the web must not come between.
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def histories(data: Path) -> dict[str, list[dict[str, Any]]]:
    """Each user's interactions in time order."""
    found: dict[str, list[dict[str, Any]]] = {}
    with (data / "interactions.jsonl").open(encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            found.setdefault(record["user_id"], []).append(record)
    return found


def answers(address: str, all_histories: Mapping[str, Interactions], pair: Sequence[str]) -> Table:
    """The same questions to the base and to two users' models, each beside what is true."""
    with direct.open(f"{address}/v1/models", timeout=60) as answer:
        base = json.load(answer)["data"][0]["id"]
    table = Table(title="The same question, one base, three models", title_justify="left")
    for heading in ("question", base, *(f"{base}:{user}" for user in pair)):
        table.add_column(heading, ratio=1)
    truths = [_facts(all_histories[user]) for user in pair]
    for question, topic in _questions([all_histories[user] for user in pair], truths):
        told = [_ask(address, f"{base}:{user}", question) for user in pair]
        marked = [_marked(words, truth[topic]) for words, truth in zip(told, truths, strict=True)]
        table.add_row(question, escape(_ask(address, base, question)), *marked)
    return table


def _facts(history: Interactions) -> dict[str, str]:
    """What is true of a user, by attribute, as far as the history asks for it."""
    topic_of = {words: topic for topic in ATTRIBUTES for words in QUESTIONS[topic]}
    return {
        topic_of[record["query"]]: record["fact"]["value"]
        for record in history
        if record.get("fact") and record["query"] in topic_of
    }


def _questions(
    pair: Sequence[Interactions], truths: Sequence[Mapping[str, str]]
) -> list[tuple[str, str]]:
    """A question on each of the first attributes that differ, in words new to every user."""
    seen = {
        record["query"]
        for history in pair
        for record in history[: round(TRAINING_SHARE * len(history))]
    }
    found = [
        (words, topic)
        for topic in ATTRIBUTES
        if len({truth.get(topic) for truth in truths} - {None}) == len(truths)
        for words in [next((w for w in QUESTIONS[topic] if w not in seen), None)]
        if words is not None
    ]
    return found[:QUESTION_COUNT]


def _ask(address: str, model: str, question: str) -> str:
    """One answer, as any OpenAI client would get it."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": 32,
        "temperature": 0,
    }
    request = urllib.request.Request(
        f"{address}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with direct.open(request, timeout=120) as answer:
        content: str = json.load(answer)["choices"][0]["message"]["content"]
    return content.strip()


def _marked(answer: str, truth: str) -> str:
    """An answer with a mark: whether it names, as a word of its own, what is true."""
    named = re.search(rf"\b{re.escape(truth)}\b", answer, re.IGNORECASE) is not None
    return f"[green]{escape(answer)} ✓" if named else f"{escape(answer)} [dim](true: {truth})"
