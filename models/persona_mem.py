"""PersonaMem's published files as quizzes: questions and the conversations that they are about.

    questions_{size}.csv          a row a question; `all_options` holds a Python list of texts that
                                  begin with (a), (b), ..., `correct_answer` the true one's letter
    shared_contexts_{size}.jsonl  {"<shared_context_id>": [{"role", "content"}, ...]}, one a line

A question is asked after the first `end_index_in_shared_context` messages of its context. So a user
is a persona at such a point, and all that is asked there: nobody knows what is said later.

The user asks and the model answers, so `user_said` is "query" for these data. A user's message that
nobody answers is a post. A system message holds the persona, which becomes the profile, and begins
a conversation. An answer to nothing is left out and counted, a blank message says nothing. Options
lose their letters: they are compared as answers.

Reference: Jiang et al., Know Me, Respond to Me, arXiv 2504.14225.
"""

from __future__ import annotations

import ast
import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from models.lines import DataError, as_object, shown, text
from models.quiz import Entry, Quiz, quiz_of, session_of
from models.readers import json_lines

COLUMNS = (
    "persona_id",
    "question_id",
    "user_question_or_message",
    "correct_answer",
    "all_options",
    "shared_context_id",
    "end_index_in_shared_context",
)
ROLES = ("system", "user", "assistant")
_OPTION = re.compile(r"\(([a-z])\)\s*(.*\S)\s*", re.DOTALL)

Message = tuple[str, str]  # role and content


def read(questions: Path, contexts: Path, counts: Counter[str]) -> list[Quiz]:
    """The quizzes, in the order in which the questions first name them.

    Args:
        questions: the CSV file.
        contexts: the JSONL file of the same size.
        counts: gains `unasked_answers`, the assistant's messages that answer nothing.

    Raises:
        DataError: a file that is not in this format; names it, the row and what is wrong.
        OSError: missing or unreadable.
    """
    known = _contexts(contexts)
    asked: dict[tuple[str, str, int], list[Entry]] = {}
    for place, row in _rows(questions):
        context = text(row, "shared_context_id")
        if context not in known:
            raise DataError(
                f"{place}: expected a context of {contexts}, got {shown(context)}; "
                "give both files of one size"
            )
        end = _end(row["end_index_in_shared_context"], len(known[context]), place)
        asked.setdefault((row["persona_id"], context, end), []).append(_question(row, place))
    if not asked:
        raise DataError(f"{questions}: expected questions, got none; copy the file again")
    quizzes = []
    for (persona, context, end), entries in asked.items():
        told = _Told()
        for role, content in known[context][:end]:
            told.hear(role, content)
        told.finish()
        counts["unasked_answers"] += told.unasked_answers
        user = f"{persona}/{context}/{end}"
        quizzes.append(quiz_of(user, told.entries, entries, told.profile))
    return quizzes


@dataclass
class _Told:
    """What a conversation has told so far."""

    entries: list[Entry] = field(default_factory=list)
    profile: str | None = None
    unasked_answers: int = 0
    _session: str | None = None
    _waiting: str | None = None

    def hear(self, role: str, content: str) -> None:
        """The next message."""
        if not content.strip():
            return
        if role == "system":
            self.finish()
            self.profile, self._session = self.profile or content, None
            return
        self._session = self._session or session_of(content)
        if role == "user":
            self.finish()
            self._waiting = content
        elif self._waiting is None:
            self.unasked_answers += 1
        else:
            self.entries.append(Entry(self._waiting, content, self._session))
            self._waiting = None

    def finish(self) -> None:
        """What waits for an answer gets none."""
        if self._waiting is not None:
            self.entries.append(Entry(None, self._waiting, self._session or ""))
        self._waiting = None


def _contexts(file: Path) -> dict[str, list[Message]]:
    found: dict[str, list[Message]] = {}
    for place, record in json_lines(file):
        try:
            for key, messages in as_object(record).items():
                if key in found:
                    raise DataError(
                        f"expected one context of id {shown(key)}, got a second; drop one"
                    )
                if not isinstance(messages, list):
                    raise DataError(
                        f"expected a list of messages, got {shown(messages)}; correct it"
                    )
                found[key] = [_message(as_object(message)) for message in messages]
        except DataError as error:
            raise DataError(f"{place}: {error}") from None
    return found


def _message(message: Mapping[str, object]) -> Message:
    role = text(message, "role")
    if role not in ROLES:
        raise DataError(f"expected a role of {', '.join(ROLES)}, got {shown(role)}; correct it")
    content = message.get("content")
    if not isinstance(content, str):
        raise DataError(f"expected 'content' as text, got {shown(content)}; correct it")
    return role, content


def _rows(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Every row with its place, all of the columns in it."""
    with file.open(newline="", encoding="utf-8-sig") as stream:
        rows = csv.DictReader(stream)
        try:
            missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                raise DataError(
                    f"{file}: expected columns {', '.join(COLUMNS)}, got none of {missing}; "
                    "give the published file"
                )
            for row in rows:
                place = f"{file}:{rows.line_num}"
                empty = [name for name in COLUMNS if not (row[name] or "").strip()]
                if empty:
                    raise DataError(
                        f"{place}: expected words in {', '.join(empty)}, got none; drop the row"
                    )
                yield place, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(
                f"{file}: expected CSV in UTF-8, got damaged data ({error}); copy the file again"
            ) from error


def _end(value: str, messages: int, place: str) -> int:
    if not value.isdecimal() or len(value) > 18 or not 0 < int(value) <= messages:
        raise DataError(
            f"{place}: expected an end in the context of {messages} messages, got {shown(value)}; "
            "give both files of one size"
        )
    return int(value)


def _question(row: Mapping[str, str], place: str) -> Entry:
    options = _options(row["all_options"], place)
    letter = row["correct_answer"].strip().strip("()").lower()
    if letter not in options:
        got = shown(row["correct_answer"])
        raise DataError(
            f"{place}: expected an answer among {', '.join(options)}, got {got}; correct it"
        )
    query = row["user_question_or_message"]
    return Entry(query, options[letter], session_of(row["question_id"]), tuple(options.values()))


def _options(listed: str, place: str) -> dict[str, str]:
    """Letter -> answer."""
    try:
        found = ast.literal_eval(listed)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        found = None
    texts = found if isinstance(found, list) else []
    matches = [_OPTION.fullmatch(str(each)) for each in texts]
    options = {match[1]: match[2] for match in matches if match}
    if len(options) < 2 or len(set(options.values())) < len(texts):
        raise DataError(
            f"{place}: expected options ['(a) ...', '(b) ...'] that differ, got {shown(listed)}; "
            "correct it"
        )
    return options
