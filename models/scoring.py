"""How good a model is on a user's held-out items: loss, ROUGE, Persona-F1, P-Cover and recall.

The device computes two things, for many users and memories in the same batches: the loss of the
true responses (nats per token, over all tokens of a user's items) and a greedy answer to each
query. The rest is arithmetic on strings and runs after the device is done.

Recall asks whether the value of an item's fact stands in the answer as a whole word; it is counted
for each kind of fact, beside what chance would give.

This file knows no method: a memory is whatever `attach` makes of a user state.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from models.base import Base
from models.decoding import generate
from models.history import Interaction
from models.loss import row_losses
from models.persona import Persona, mean
from models.personalizer import Attach, Frame, Framed, UserState
from models.prompt import Row, fit
from models.rouge import rouge, standard_error
from models.soft import with_soft
from models.words import holds

LONGEST_ANSWER = 64


class Recall(NamedTuple):
    """Facts found in answers, facts asked about, and how many of them chance would find."""

    hits: int
    asked: int
    chance_sum: float


@dataclass(frozen=True)
class Scores:
    """One memory on one user's items. ROUGE and F1 are means over items, fractions in [0, 1].

    `recall` has an entry for each kind of fact and, where there is any, for `"all"`.
    `rouge_l_error` is the standard error of `rouge_l` over the items, 0 for a single one.
    """

    loss_nats: float
    token_count: int
    rouge_1: float
    rouge_l: float
    rouge_l_error: float
    persona_f1: float | None
    p_cover: float | None
    recall: Mapping[str, Recall]
    answers: tuple[str, ...]


class Loss(NamedTuple):
    """Loss of a user's true responses: nats per token, and the tokens of each item."""

    nats: float
    tokens: tuple[int, ...]
    item_nats: tuple[float, ...]


def evaluation_items(
    interactions: Sequence[Interaction], limit: int | None = None
) -> tuple[Interaction, ...]:
    """The interactions with a query; of more than `limit`, so many evenly spaced in time."""
    pairs = [i for i in interactions if i.query is not None]
    if limit is None or len(pairs) <= limit:
        return tuple(pairs)
    return tuple(pairs[(2 * k + 1) * len(pairs) // (2 * limit)] for k in range(limit))


def answer_limit(base: Base, train: Sequence[Interaction]) -> int:
    """How many tokens an answer may have: the 90th percentile of training responses, at most 64."""
    rows = [base.prompt.pair(i.query, i.response) for i in train if i.query is not None]
    if not rows:
        return LONGEST_ANSWER
    # The token that ends a response is no part of the answer.
    lengths = sorted(row.predicted - (row.tokens[-1] in base.prompt.stop_ids) for row in rows)
    percentile = lengths[math.ceil(0.9 * len(lengths)) - 1]
    return max(1, min(percentile, LONGEST_ANSWER))


def score(
    base: Base,
    attach: Attach,
    states: Sequence[UserState | None],
    items_of: Sequence[Sequence[Interaction]],
    answer_limits: Sequence[int],
    personas: Sequence[Persona | None] | None = None,
    frame: Frame | None = None,
    loss_items_of: Sequence[Sequence[Interaction]] | None = None,
) -> list[Scores]:
    """Scores of `states[i]` on `items_of[i]`, for all i in the same batches.

    Args:
        attach: opens a context in which row j of a batch runs under state j.
        states: a memory each; None is the base. The same one may stand there several times.
        items_of: evaluation items, at least one each.
        answer_limits: the most tokens an answer may have.
        personas: whose words Persona-F1 and P-Cover compare with; None leaves them out.
        frame: puts before a query what a method adds to it.
        loss_items_of: what the loss is taken on, where that is more than what is answered.
    """
    found = losses(base, attach, states, loss_items_of or items_of, frame)
    answers_of = answers(base, attach, states, items_of, answer_limits, frame)
    who = personas or [None] * len(states)
    return [
        scores_of(items, loss, texts, persona)
        for items, loss, texts, persona in zip(items_of, found, answers_of, who, strict=True)
    ]


def losses(
    base: Base,
    attach: Attach,
    states: Sequence[UserState | None],
    items_of: Sequence[Sequence[Interaction]],
    frame: Frame | None = None,
) -> list[Loss]:
    """Loss of `states[i]` on the true responses of `items_of[i]`, for all i in the same batches."""
    flat = _flat(states, items_of, frame)
    rows = [_soft(base, base.prompt.pair(f.query, item.response), f) for _, f, item in flat]
    sums = iter(row_losses(base, rows, [state for state, _, _ in flat], attach))
    return [_loss([next(sums) for _ in items]) for items in items_of]


def answers(
    base: Base,
    attach: Attach,
    states: Sequence[UserState | None],
    items_of: Sequence[Sequence[Interaction]],
    answer_limits: Sequence[int],
    frame: Frame | None = None,
) -> list[tuple[str, ...]]:
    """Greedy answers of `states[i]` to the queries of `items_of[i]`, for all i in the same batches.

    A query that leaves no room for its answer loses its oldest words.
    """
    flat = _flat(states, items_of, frame)
    limits = [n for items, n in zip(items_of, answer_limits, strict=True) for _ in items]
    prompts = [
        prompt_tokens(base, framed, limit)
        for (_, framed, _), limit in zip(flat, limits, strict=True)
    ]
    written = generate(base, prompts, [state for state, _, _ in flat], attach, limits)
    texts = iter([base.prompt.decode(tokens) for tokens in written])
    return [tuple(next(texts) for _ in items) for items in items_of]


def prompt_tokens(base: Base, framed: Framed, limit: int) -> tuple[int, ...]:
    """What is run before an answer of at most `limit` tokens: soft tokens and words, cut to fit."""
    row = fit(base.prompt.prompt(framed.query), [0] * limit, base.context)
    row = _soft(base, row, framed)
    return row.tokens[: row.predict_from]


def scores_of(
    items: Sequence[Interaction], loss: Loss, texts: Sequence[str], persona: Persona | None = None
) -> Scores:
    """Scores of finished answers: strings and numbers alone, no device."""
    overlaps = [rouge(item.response, text) for item, text in zip(items, texts, strict=True)]
    rouge_l = tuple(overlap.rouge_l for overlap in overlaps)
    of_user = None if persona is None else mean([persona.scores(text) for text in texts])
    return Scores(
        loss_nats=loss.nats,
        token_count=sum(loss.tokens),
        rouge_1=statistics.fmean(overlap.rouge_1 for overlap in overlaps),
        rouge_l=statistics.fmean(rouge_l),
        rouge_l_error=standard_error(rouge_l),
        persona_f1=None if of_user is None else of_user.f1,
        p_cover=None if of_user is None else of_user.cover,
        recall=recall(items, texts),
        answers=tuple(texts),
    )


def recall(items: Sequence[Interaction], texts: Sequence[str]) -> dict[str, Recall]:
    """Recall of the facts that items ask about: for each kind in order of its name, and for all."""
    counts: dict[str, Recall] = {}
    for item, text in zip(items, texts, strict=True):
        if item.fact is None:
            continue
        hit, chance = int(holds(text, item.fact.value)), 1 / item.fact.choices
        for kind in ("all", item.fact.kind):
            hits, asked, chance_sum = counts.get(kind, Recall(0, 0, 0.0))
            counts[kind] = Recall(hits + hit, asked + 1, chance_sum + chance)
    return dict(sorted(counts.items()))


def _flat(
    states: Sequence[UserState | None],
    items_of: Sequence[Sequence[Interaction]],
    frame: Frame | None,
) -> list[tuple[UserState | None, Framed, Interaction]]:
    """(state, query with what a method adds, item) of every item of every user."""
    if not all(items_of):
        raise ValueError(
            "expected at least one evaluation item for every user, got a user with none"
        )
    flat = []
    for state, items in zip(states, items_of, strict=True):
        for item in items:
            if item.query is None:
                raise ValueError("expected items with a query, got a post; use evaluation_items")
            flat.append((state, frame(state, item.query) if frame else Framed(item.query), item))
    return flat


def _soft(base: Base, row: Row, framed: Framed) -> Row:
    return with_soft(row, framed.soft_tokens, base.prompt.begin, base.context)


def _loss(sums: Sequence[tuple[float, int]]) -> Loss:
    """Token-weighted loss of a user's items from each one's (summed nats, tokens)."""
    nats = math.fsum(total for total, _ in sums) / sum(count for _, count in sums)
    tokens = tuple(count for _, count in sums)
    return Loss(nats, tokens, tuple(total / count for total, count in sums))
