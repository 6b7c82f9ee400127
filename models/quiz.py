"""A published benchmark's user: a history, and questions with their true answers after it.

Readers of published formats (`lamp`, `persona_mem`) give these. `write` makes data of them that
everything else reads: each user's questions are the last interactions, and held out, so that they
and nothing else are the user's test part.

Of every interaction the session names what it was taken from, by a digest of its words: a document
or a conversation that stands in several users' histories is one session. So nothing that users
share is learned from what another user is asked about.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from models import storage
from models.history import Interaction
from models.lines import DataError

INTERACTIONS = "interactions.jsonl"
PROFILES = "profiles.jsonl"


@dataclass(frozen=True)
class Quiz:
    """What is known of a user, and what is asked. Times are places in the order."""

    user_id: str
    history: tuple[Interaction, ...]
    questions: tuple[Interaction, ...]
    profile: str | None = None


@dataclass(frozen=True)
class Entry:
    """One interaction that has neither user nor place yet."""

    query: str | None
    response: str
    session: str
    choices: tuple[str, ...] | None = None


def quiz_of(
    user_id: str, history: Sequence[Entry], questions: Sequence[Entry], profile: str | None = None
) -> Quiz:
    """A user's entries in order, the questions last."""
    every = [
        Interaction(
            user_id,
            float(place),
            e.query,
            e.response,
            e.session,
            choices=e.choices,
            held_out=place >= len(history),
        )
        for place, e in enumerate((*history, *questions))
    ]
    return Quiz(user_id, tuple(every[: len(history)]), tuple(every[len(history) :]), profile)


def session_of(*words: str) -> str:
    """The session of what holds these words."""
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]


def write(quizzes: Iterable[Quiz], folder: Path) -> None:
    """Write quizzes as a folder of interactions and profiles, its owner's alone.

    Raises:
        FileExistsError: the folder exists and is not empty.
        DataError: two quizzes of one user.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"expected a new or empty folder, got {folder}, which is in use")
    storage.make_private(folder)
    users: set[str] = set()
    with _opened(folder / INTERACTIONS) as lines, _opened(folder / PROFILES) as profiles:
        for quiz in quizzes:
            if quiz.user_id in users:
                raise DataError("expected one quiz a user, got two of the same; join them")
            users.add(quiz.user_id)
            for interaction in (*quiz.history, *quiz.questions):
                _put(lines, _record(interaction))
            if quiz.profile is not None:
                _put(profiles, {"user_id": quiz.user_id, "profile": quiz.profile})


def _opened(file: Path) -> TextIO:
    file.touch(mode=0o600)
    return file.open("w", encoding="utf-8")


def _put(stream: TextIO, record: Mapping[str, object]) -> None:
    stream.write(json.dumps(record, ensure_ascii=False) + "\n")


def _record(interaction: Interaction) -> dict[str, object]:
    record: dict[str, object] = {
        "user_id": interaction.user_id,
        "time": interaction.time,
        "query": interaction.query,
        "response": interaction.response,
        "session": interaction.session,
    }
    if interaction.choices is not None:
        record["choices"] = interaction.choices
    return {**record, "held_out": True} if interaction.held_out else record
