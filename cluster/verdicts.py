"""What a judge says of a comparison: every row's answers against the reference's, item by item.

Answers to test items are kept in files of their own, since an outcome of a unit holds no text:
those under the first seed, by the users' digests. A user without an answer of a row's own is
answered by the base, and so the base's answer stands for that row. Users' text is sent to the
judge; who wants that names one. What it says is kept, and it is asked only for what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cluster.folder import RunFolder
from cluster.judge import Endpoint
from cluster.judgements import Judgements
from cluster.measuring import Subject
from cluster.private import write_private
from cluster.terms import Terms
from cluster.unit import BASE, Unit
from cluster.users import Choice
from cluster.win_rate import WinRate, duels_of, win_rate
from models.history import Histories

Answers = Mapping[str, Sequence[str]]
"""By user digest, to each of the user's answered items."""


def keep(run: Path, unit: Unit, answers: Answers) -> None:
    """Keeps a unit's answers, readable by their owner alone."""
    folder = run / "answers"
    folder.mkdir(mode=0o700, exist_ok=True)
    write_private(folder / f"{unit.name}.json", json.dumps(dict(answers)))


def answers_of(run: Path, entrant: str) -> Answers:
    """Everybody's answers under an entrant, whose units are done.

    Raises:
        FileNotFoundError: they were not kept.
    """
    units = (Unit("untrained", BASE), Unit("final", entrant))
    return {digest: texts for unit in units for digest, texts in _read(run, unit).items()}


def win_rates(
    terms: Terms,
    folder: RunFolder,
    entrants: Sequence[str],
    reference: str,
    judge: Endpoint,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, WinRate]:
    """How often each of some entrants wins against the reference, by label.

    `say` hears how far it is, in words that name and quote nobody.

    Raises:
        ValueError, OSError: the judge refuses, or isn't there.
    """
    histories, subjects = Histories.open(folder.data), {}
    for user in Choice.load(folder.path).searched:
        subject = Subject.of(histories.load(user.user_id), terms.user_said, terms.items)
        subjects[user.digest] = subject.answered
    other = answers_of(folder.path, reference)
    found, kept = {}, Judgements(folder.path, folder.key())
    for entrant in entrants:
        own = answers_of(folder.path, entrant)
        duels = [
            duel
            for digest, items in subjects.items()
            for duel in duels_of(digest, items, own[digest], other[digest])
        ]
        tell = _telling(say, entrant, len(duels), kept)
        found[entrant] = win_rate(judge, duels, terms.seed, tell, kept)
    return found


def _telling(
    say: Callable[[str], None], entrant: str, count: int, kept: Judgements
) -> Callable[[int], None]:
    """Says at every tenth of an entrant's pairs of answers how many are judged."""
    every, before = max(1, count // 10), kept.found

    def tell(judged: int) -> None:
        if judged % every == 0 or judged == count:
            say(
                f"{entrant}: {judged} of {count} pairs of answers are judged; "
                f"{kept.found - before} replies were there from before"
            )

    return tell


def _read(run: Path, unit: Unit) -> dict[str, list[str]]:
    file = run / "answers" / f"{unit.name}.json"
    return dict(json.loads(file.read_text(encoding="utf-8")))
