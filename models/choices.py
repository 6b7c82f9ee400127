"""Which of its options a model picks for a query, by likelihood, and how often that is right.

Every option is scored as the answer it would be: its tokens and the end of the answer, under the
user's state. No text is generated, so an answer in other words can't be counted wrong.

Options are of two kinds. *Labels* are the same for all items (a category, a rating): the one with
the highest summed log-likelihood is picked, since that is the probability of answering exactly
this. Options that differ from item to item are whole answers, of unequal lengths; a sum would pick
the shortest, so they are compared by their mean log-likelihood per token.

Accuracy is LaMP's measure for classification, MAE and RMSE its measures for ratings. Its other one
for classification, F1 over labels, is taken from `label_counts` over all users' items at once.

Reference: Salemi et al., LaMP: When Large Language Models Meet Personalization, arXiv 2304.11406.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from models.base import Base
from models.history import Interaction
from models.loss import row_losses
from models.personalizer import Attach, Frame, Framed, UserState
from models.prompt import Row
from models.soft import with_soft

LabelCounts = tuple[int, int, int]
"""How often a label was picked rightly, was true, was picked."""


@dataclass(frozen=True)
class ChoiceScores:
    """Picks against the truth. Fractions in [0, 1]; MAE and RMSE are in steps of the rating.

    `chance` is the accuracy of guessing. `mae` and `rmse` are None where options are no numbers.
    """

    items: int
    accuracy: float
    chance: float
    mae: float | None
    rmse: float | None


def choice_items(interactions: Sequence[Interaction]) -> tuple[Interaction, ...]:
    """The interactions with a query and options for its answer."""
    return tuple(i for i in interactions if i.query is not None and i.choices is not None)


def are_labels(items: Sequence[Interaction]) -> bool:
    """Whether all items of a data set have the same options; ask it of the whole data set."""
    return len({frozenset(options_of(item, i)) for i, item in enumerate(items)}) == 1


def options_of(item: Interaction, place: int) -> tuple[str, ...]:
    """An item's options.

    Raises:
        ValueError: there are none, or the true answer is not among them.
    """
    if item.query is None or item.choices is None:
        raise ValueError(f"item {place}: expected a query with options, got one without")
    if item.response not in item.choices:
        raise ValueError(
            f"item {place}: expected the true answer to be one of {len(item.choices)} options, "
            f"{', '.join(_shown(each) for each in item.choices[:5])}, got {_shown(item.response)}"
        )
    return item.choices


def picks(
    base: Base,
    attach: Attach,
    states: Sequence[UserState | None],
    items_of: Sequence[Sequence[Interaction]],
    labels: bool,
    frame: Frame | None = None,
) -> list[tuple[str, ...]]:
    """What `states[i]` picks for `items_of[i]`, all options of all items in the same batches.

    Args:
        base: the base.
        attach: puts a row under its state.
        states: one for every user.
        items_of: their items, each with options.
        labels: whether options are labels, as `are_labels` says of the whole data set.
        frame: puts before a query what a method adds to it.

    Raises:
        ValueError: an item without options, or whose true answer is not among them.
    """
    rows: list[Row] = []
    owners: list[UserState | None] = []
    for state, items in zip(states, items_of, strict=True):
        for i, item in enumerate(items):
            rows += _rows(base, state, item, options_of(item, i), frame)
            owners += [state] * (len(rows) - len(owners))
    found = row_losses(base, rows, owners, attach) if rows else []
    nats = iter([total if labels else total / count for total, count in found])
    return [tuple(_likeliest(item.choices or (), nats) for item in items) for items in items_of]


def measure(items: Sequence[Interaction], picked: Sequence[str]) -> ChoiceScores:
    """How right picks are. Strings and numbers alone, no device.

    Raises:
        ValueError: no items, or one without options or the true answer among them.
    """
    if not items:
        raise ValueError("expected at least one item with options, got none")
    options = [options_of(item, i) for i, item in enumerate(items)]
    truth = [item.response for item in items]
    hits = [pick == true for pick, true in zip(picked, truth, strict=True)]
    errors = _errors(options, truth, picked)
    return ChoiceScores(
        items=len(items),
        accuracy=statistics.fmean(hits),
        chance=statistics.fmean(1 / len(each) for each in options),
        mae=None if errors is None else statistics.fmean(errors),
        rmse=None if errors is None else math.sqrt(statistics.fmean(e * e for e in errors)),
    )


def label_counts(items: Sequence[Interaction], picked: Sequence[str]) -> tuple[LabelCounts, ...]:
    """Of each label, in the order of their names: times picked rightly, times true, times picked.

    They can be added over users, whose F1 can't.
    """
    truth = [item.response for item in items]
    return tuple(
        (
            sum(true == pick == label for true, pick in zip(truth, picked, strict=True)),
            truth.count(label),
            list(picked).count(label),
        )
        for label in sorted(items[0].choices or ())
    )


def _rows(
    base: Base,
    state: UserState | None,
    item: Interaction,
    options: Sequence[str],
    frame: Frame | None,
) -> list[Row]:
    """A row for every option of an item."""
    query = item.query or ""
    framed = frame(state, query) if frame else Framed(query)
    pairs = [base.prompt.pair(framed.query, option) for option in options]
    return [with_soft(p, framed.soft_tokens, base.prompt.begin, base.context) for p in pairs]


def _likeliest(options: Sequence[str], nats: Iterator[float]) -> str:
    """The option of the fewest nats; the first of equals."""
    costs = [next(nats) for _ in options]
    return options[costs.index(min(costs))]


def _errors(
    options: Sequence[Sequence[str]], truth: Sequence[str], picked: Sequence[str]
) -> list[float] | None:
    """How far each pick is off, where every option is a number."""
    try:
        values = {option: float(option) for each in options for option in each}
    except ValueError:
        return None
    return [abs(values[p] - values[t]) for p, t in zip(picked, truth, strict=True)]


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
