"""Options by likelihood: what is picked, and the measures by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from models.base import Base
from models.catalog import attach_all
from models.choices import ChoiceScores, are_labels, choice_items, measure, picks
from models.history import Interaction
from models.milp import Milp
from models.personalizer import Budget, Framed, Task, UserState, attach, fit
from search.space import MemoryConfig
from tests.states import a_state
from tests.tiny import tiny_base

TAGS = ("comedy", "based on a book", "war")


def item(query: str, response: str, choices: tuple[str, ...] | None = TAGS) -> Interaction:
    return Interaction("ann", 1.0, query, response, choices=choices)


ITEMS = [item(f"which tag has film {n}?", TAGS[n % 3]) for n in range(5)]
SENTENCES = [
    item("what now?", "go home", ("go home", "please do stay here with us for a while", "sleep")),
    item("and then?", "a long walk in the garden", ("a long walk in the garden", "no")),
]


def nats_of(base: Base, state: UserState | None, query: str, option: str) -> tuple[float, int]:
    """Summed nats of an answer and its end, and their number, by the logits alone."""
    row = base.prompt.pair(query, option)
    tokens = torch.tensor([row.tokens])
    with torch.no_grad(), attach_all(base)([state]):
        logits = base.logits(base.hidden(tokens))[0].log_softmax(-1)
    answer = range(row.predict_from, len(row.tokens))
    return -sum(float(logits[t - 1, row.tokens[t]]) for t in answer), len(answer)


@pytest.mark.parametrize(("items", "labels"), [(ITEMS, True), (SENTENCES, False)])
def test_each_state_picks_its_likeliest_option(items: list[Interaction], labels: bool) -> None:
    base = tiny_base(dtype=torch.float64)
    states = [None, a_state("ann"), a_state("bob", seed=4)]
    assert are_labels(items) is labels
    found = picks(base, attach_all(base), states, [items, items, items[:1]], labels)
    for state, picked, own in zip(states, found, (items, items, items[:1]), strict=True):
        for one, got in zip(own, picked, strict=True):
            costs = {}
            for option in one.choices or ():
                nats, tokens = nats_of(base, state, str(one.query), option)
                costs[option] = nats if labels else nats / tokens
            assert got == min(costs, key=costs.__getitem__)
    assert picks(base, attach_all(base), states[1:2], [items], labels) == found[1:2]


def test_a_frame_comes_before_the_query() -> None:
    base = tiny_base(dtype=torch.float64)
    longer = [replace(one, query=f"likes war. {one.query}") for one in ITEMS]
    framed = picks(
        base,
        attach_all(base),
        [None],
        [ITEMS],
        True,
        lambda _, query: Framed(f"likes war. {query}"),
    )
    assert framed == picks(base, attach_all(base), [None], [longer], True)


def test_a_memory_learns_what_its_user_would_pick() -> None:
    base, method = tiny_base(), Milp()
    mine = tuple(item(f"which tag has film {n}?", "based on a book") for n in range(24))
    task = Task("a/x", "ann", mine[:20], mine[20:], MemoryConfig((0, 1, 2, 3), 8, 1e-2), 1)
    (done,) = fit(method, base, [replace(task, budget=Budget(0, 20, patience_epochs=20))])
    before, after = picks(base, attach(method, base), [None, done.state], [mine, mine], True)
    assert measure(mine, after).accuracy > 0.6
    assert measure(mine, before).accuracy < 0.4


def test_measures_by_hand() -> None:
    truth = [item("q", tag) for tag in ("comedy", "comedy", "war", "war", "war")]
    picked = ("comedy", "war", "war", "war", "based on a book")
    assert measure(truth, picked) == ChoiceScores(5, 3 / 5, pytest.approx(1 / 3), None, None)
    stars = ("1", "2", "3", "4", "5")
    rated = [item("q", star, stars) for star in ("1", "5", "4")]
    found = measure(rated, ("1", "2", "5"))
    assert (found.mae, found.rmse) == (pytest.approx(4 / 3), pytest.approx(math.sqrt(10 / 3)))
    assert measure(SENTENCES, ("go home", "no")) == ChoiceScores(
        2, 0.5, pytest.approx((1 / 3 + 1 / 2) / 2), None, None
    )


def test_only_queries_with_options_are_items() -> None:
    post = Interaction("ann", 2.0, None, "a post")
    assert choice_items([*ITEMS, post, item("q", "r", None)]) == tuple(ITEMS)


def test_a_true_answer_that_is_no_option_is_refused() -> None:
    base, wrong = tiny_base(), [ITEMS[0], item("q", "western")]
    message = "item 1: expected the true answer to be one of 3 options, 'comedy', .* got 'western'"
    for ask in (
        lambda: picks(base, attach_all(base), [None], [wrong], True),
        lambda: measure(wrong, ["comedy", "war"]),
        lambda: are_labels(wrong),
    ):
        with pytest.raises(ValueError, match=message):
            ask()
    with pytest.raises(ValueError, match="item 0: expected a query with options"):
        measure([item("q", "war", None)], ["war"])
    with pytest.raises(ValueError, match="at least one item"):
        measure([], [])
