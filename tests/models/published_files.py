"""Small files in the formats that LaMP and PersonaMem are published in, with planted habits."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path

RATE = "What score has this? review:"  # shorter than LaMP's, for a base of a short context
TAG = "Which tag has this? description:"
THINGS = ("a mug", "the soup", "my bed", "one lamp", "his song")

RATERS: Mapping[str, str] = {f"r{n}": "15342"[n % 5] for n in range(14)}
"""Who gives which score, whatever the review says."""

PERSONAS = ("0", "1", "2", "3")


def put_lamp(folder: Path, task: int = 3, questions: int = 1, items: int = 24) -> Path:
    """LaMP_3, or LaMP_2 with tags instead: each user answers everything alike."""
    folder.mkdir(parents=True, exist_ok=True)
    asked: list[dict[str, object]] = []
    golds: list[dict[str, object]] = []
    for user, score in RATERS.items():
        answer = score if task == 3 else ("comedy", "classic")[int(score) % 2]
        profile = [_item(task, user, number, answer) for number in range(items)]
        for number in range(questions):
            words = f"{RATE if task == 3 else TAG} {_words(user, items + number)}"
            key = f"{user}{number}"
            asked.append({"id": key, "user_id": user, "input": words, "profile": profile})
            golds.append({"id": key, "output": answer})
    (folder / "dev_questions.json").write_text(json.dumps(asked))
    outputs = {"task": f"LaMP_{task}", "golds": golds}
    (folder / "dev_outputs.json").write_text(json.dumps(outputs))
    return folder


def put_persona_mem(folder: Path, turns: int = 24) -> Path:
    """Each persona's conversations, then a question with options that differ from any other's."""
    folder.mkdir(parents=True, exist_ok=True)
    contexts, rows = {}, []
    for persona in PERSONAS:
        contexts[f"c{persona}"] = messages = _conversations(persona, turns)
        rows += [
            {
                "persona_id": persona,
                "question_id": f"q{persona}{number}",
                "question_type": "recall",
                "user_question_or_message": f"What shall I have for meal {number}?",
                "correct_answer": "(b)",
                "all_options": str([f"(a) Rice {persona}.", f"(b) Rye {number} then.", "(c) No."]),
                "shared_context_id": f"c{persona}",
                "end_index_in_shared_context": str(len(messages)),
            }
            for number in range(2)
        ]
    with (folder / "questions_32k.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    lines = (json.dumps({key: told}) + "\n" for key, told in contexts.items())
    (folder / "shared_contexts_32k.jsonl").write_text("".join(lines))
    return folder


def _item(task: int, user: str, number: int, answer: str) -> dict[str, object]:
    item: dict[str, object] = {"id": f"{user}-{number}"}
    if task == 3:
        return {**item, "text": _words(user, number), "score": answer}
    return {**item, "description": _words(user, number), "tag": answer}


def _words(user: str, number: int) -> str:
    return f"{THINGS[number % len(THINGS)]} number {number} of {user} was as it is"


def _conversations(persona: str, turns: int) -> list[dict[str, str]]:
    messages = [{"role": "assistant", "content": "Hello!"}]
    for turn in range(turns):
        if turn % 4 == 0:
            persona_text = f"Current user persona: {persona}, a baker"
            messages.append({"role": "system", "content": persona_text})
        messages.append({"role": "user", "content": f"I ate rye {turn} as person {persona}."})
        messages.append({"role": "assistant", "content": f"Rye {turn} then."})
    return messages
