"""One model on users' test items, as every comparison takes it: losses, answers in words, picks.

Items with options are never answered in words: the likeliest option is picked. Items without are
answered, at most so many of a user. The loss is over all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cluster.chosen import Chosen
from cluster.results import Measured
from models.base import Base
from models.choices import are_labels, choice_items, label_counts, picks
from models.choices import measure as measure_picks
from models.history import History, Interaction, UserSaid, split, user_texts
from models.persona import Persona, anchors
from models.personalizer import Attach, Frame, UserState
from models.scoring import Loss, answer_limit, answers, evaluation_items, losses, scores_of


@dataclass(frozen=True)
class Subject:
    """One user's test items, and what answers are held against.

    `answered` are those of them that are answered in words, `choosing` those that have options.
    """

    items: tuple[Interaction, ...]
    answered: tuple[Interaction, ...]
    choosing: tuple[Interaction, ...]
    train: tuple[Interaction, ...]
    persona: Persona

    @classmethod
    def of(cls, history: History, user_said: UserSaid, items: int) -> Subject:
        """A user's test part, of which at most so many items are answered."""
        parts = split(history)
        persona = Persona.of(user_texts(parts.train, user_said), history.profile)
        every = evaluation_items(parts.test)
        in_words = [item for item in every if item.choices is None]
        answered = evaluation_items(in_words, items)
        return cls(every, answered, choice_items(every), parts.train, persona)


@dataclass(frozen=True)
class Found:
    """One model on one user's test items: its numbers, and its answers in words."""

    measured: Measured
    answers: tuple[str, ...]


def have_labels(subjects: Iterable[Subject]) -> bool:
    """Whether the options of all users' items are labels; False where none have options."""
    items = [item for subject in subjects for item in subject.choosing]
    return bool(items) and are_labels(items)


def measure(
    base: Base,
    attach: Attach,
    frame: Frame | None,
    states: Sequence[UserState | None],
    subjects: Sequence[Subject],
    labels: bool,
) -> list[Found]:
    """What `states[i]` does on the items of `subjects[i]`, for all i in the same batches.

    Args:
        base: the base.
        attach: puts a row under its state.
        frame: puts before a query what a method adds to it.
        states: one for every subject; None is the base.
        subjects: users' test items.
        labels: what `have_labels` says of all compared users.
    """
    found = losses(base, attach, states, [subject.items for subject in subjects], frame)
    written = _answers(base, attach, frame, states, subjects)
    picked = picks(base, attach, states, [s.choosing for s in subjects], labels, frame)
    return [
        Found(_measured(subject, loss, texts, chosen, labels), texts)
        for subject, loss, texts, chosen in zip(subjects, found, written, picked, strict=True)
    ]


def anchors_of(subjects: Sequence[Subject], seed: int) -> dict[str, tuple[float, float]]:
    """Persona-F1 and P-Cover of answers that no model gave, which the models' are read against."""
    known = [subject for subject in subjects if subject.answered]
    if not known:
        return {}
    gold = [[item.response for item in subject.answered] for subject in known]
    found = anchors([subject.persona for subject in known], gold, seed)
    named = {
        "true answer": found.gold,
        "another user's": found.stranger,
        "copying": found.copy_cap,
    }
    return {name: (scores.f1, scores.cover) for name, scores in named.items() if scores}


def _answers(
    base: Base,
    attach: Attach,
    frame: Frame | None,
    states: Sequence[UserState | None],
    subjects: Sequence[Subject],
) -> list[tuple[str, ...]]:
    """Each one's answers in words; none where nothing is to be answered so."""
    some = [i for i, subject in enumerate(subjects) if subject.answered]
    asked = [subjects[i].answered for i in some]
    limits = [answer_limit(base, subjects[i].train) for i in some]
    texts = answers(base, attach, [states[i] for i in some], asked, limits, frame) if some else []
    written = dict(zip(some, texts, strict=True))
    return [written.get(i, ()) for i in range(len(subjects))]


def _measured(
    subject: Subject, loss: Loss, texts: Sequence[str], picked: Sequence[str], labels: bool
) -> Measured:
    if subject.answered:
        measured = Measured.of(scores_of(subject.answered, loss, texts, subject.persona))
    else:
        measured = Measured(loss.nats, sum(loss.tokens))
    if not subject.choosing:
        return measured
    return replace(measured, chosen=_chosen(subject.choosing, picked, labels))


def _chosen(items: Sequence[Interaction], picked: Sequence[str], labels: bool) -> Chosen:
    found = measure_picks(items, picked)
    is_class = labels and found.mae is None
    return Chosen(
        items=found.items,
        accuracy=found.accuracy,
        chance=found.chance,
        label_counts=label_counts(items, picked) if is_class else None,
        mae=found.mae,
        mse=None if found.rmse is None else found.rmse**2,
    )
