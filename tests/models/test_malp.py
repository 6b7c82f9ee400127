"""Two memories: what is promoted and when, what a look-up finds, and what a query gets of both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

import models.promotion
from models.base import Base
from models.history import Interaction
from models.malp import Malp
from models.options import Options, default
from models.personalizer import Task, UserState, fit
from models.promotion import (
    CAP,
    Fact,
    is_specific,
    lived,
    long_term,
    looked_up,
    matched,
    sentences,
)
from models.published import BaseIdentity
from models.registry import Registry
from tests.models.test_text import HOSTILE, added, wide
from tests.tiny import tiny_base, tiny_interactions


def item(query: str | None, response: str) -> Interaction:
    return Interaction("ann", 0.0, query, response)


def state(base: Base, items: Sequence[Interaction], **options: float) -> UserState:
    configuration = Options.of(**{**default(Malp().space).to_json(), **options})  # type: ignore[arg-type]
    wanted = Task("ann/x", "ann", tuple(items), (), configuration, 0, profile="A baker")
    found = fit(Malp(), base, [wanted])[0]
    assert found.error is None
    assert found.state is not None
    return found.state


class _Letters:
    """An encoder of how often a text has each of a few letters: cosines by hand."""

    name, width = "letters", 3

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        counts = torch.tensor([[float(text.count(c)) for c in "xyz"] for text in texts])
        return torch.nn.functional.normalize(counts, dim=1)


def test_sentences_are_cut_in_any_script_and_the_short_ones_left_out() -> None:
    text = "I live in Lisbon. Ok! My dog is\nold and grey?  Yes"
    assert sentences(text) == ["I live in Lisbon.", "My dog is", "old and grey?"]
    assert sentences("我住在里斯本。我的狗很老。") == ["我住在里斯本。", "我的狗很老。"]
    assert sentences(" \n ") == []


@pytest.mark.parametrize(
    ("sentence", "specific"),
    [
        ("my dog is old", True),
        ("the dog is called Rex", True),
        ("it has 4 legs", True),
        ("我住在里斯本", True),
        ("The soup is hot today", False),
        ("that is not so bad", False),
    ],
)
def test_what_says_something_about_a_person_is_told_by_its_form(
    sentence: str, specific: bool
) -> None:
    assert is_specific(sentence) is specific


def test_an_exchange_is_promoted_when_it_is_matched_twice() -> None:
    items = [
        item("how is the soup", "it is quite hot"),
        item("how is the soup", "the soup has cooled"),
        item("tell something else", "a word or two"),
    ]
    assert lived(items, "response", 8).recent[0].matches == 1
    assert [len(p) for p in lived(items, "response", 8).promoted] == [0, 0, 0, 0]
    again = [*items[:1], *([item("how was the soup", "it was all gone")] * 3)]
    past = lived(again, "response", 8)
    # Each question matches the likest before it, of those alike the newest.
    assert [exchange.matches for exchange in past.recent] == [1, 1, 1, 0]
    twice = [
        item("where do i live now", "in that old house"),
        item("where do you live now", "in a small flat"),
        item("where do i live now", "still the same house"),
    ]
    past = lived([*twice, item("bye", "see you later then")], "response", 8)
    assert past.recent[0].matches == 2
    assert [[fact.text for fact in facts] for facts in past.promoted] == [
        [], [], [], ["in that old house"], [],
    ]  # fmt: skip


def test_what_is_forgotten_leaves_its_specific_sentences() -> None:
    items = [
        item("q one", "The soup is hot today. My dog is called Rex."),
        item("q two", "nothing much to say"),
        item(None, "I am a baker in town"),
    ]
    past = lived(items, "response", 1)
    assert [exchange.number for exchange in past.recent] == [2]
    assert [[(f.number, f.text) for f in facts] for facts in past.promoted] == [
        [], [], [(0, "My dog is called Rex.")], [],
    ]  # fmt: skip
    assert [e.number for e in lived(items, "response", 3).recent] == [0, 1, 2]


def test_whose_words_are_kept_is_said() -> None:
    items = [item("My cat is called Tom", "I see, Tom it is"), item("q two", "a b c")]
    kept = {said: lived(items, said, 1).promoted[-1] for said in ("query", "response", "both")}  # type: ignore[arg-type]
    assert [fact.text for fact in kept["query"]] == ["My cat is called Tom"]
    assert [fact.text for fact in kept["response"]] == ["I see, Tom it is"]
    assert len(kept["both"]) == 2


def test_the_short_term_memory_finds_the_likest_query_of_equals_the_newest() -> None:
    items = [
        item("where is my old dog", "a"),
        item("where is my cat", "b"),
        item("where is my dog", "c"),
        item(None, "where is my dog"),
    ]
    recent = lived(items, "response", 8).recent
    found = matched(recent, "Where is my DOG?")
    assert found is not None
    assert found.number == 3
    old = matched(recent[:3], "where is my old dog now")
    assert old is not None
    assert old.number == 0
    assert matched(recent, "tell a story about carrots") is None
    assert matched(recent, "") is matched([], "where is my dog") is None


def test_a_look_up_finds_what_is_near_enough_the_most_used_first() -> None:
    facts = [Fact(str(i), i, count) for i, count in enumerate([0, 2, 2, 0, 9, 1, 1])]
    cosines = np.array([0.9, 0.8, 0.8, 0.7, 0.2, 0.5, 0.6], dtype=np.float32)
    assert looked_up(cosines, facts, 0.55) == [0, 2, 1, 3]
    assert looked_up(cosines, facts, 0.85) == [0]
    assert looked_up(cosines, facts, 0.95) == []
    assert len(looked_up(cosines, facts, 0.0)) == CAP


def test_every_training_query_counts_what_it_looks_up_and_never_what_comes_later() -> None:
    items = [
        item("xx", "I know x x x here"),
        item("zz", "filler words only here"),
        item("xx xx", "I know y y y here"),
        item("yy", "filler words only here"),
        item("xx yy", "filler words only here"),
    ]
    past = lived(items, "response", 1)
    facts, vectors_nE = long_term(past, [i.query for i in items], _Letters(), 0.9)
    assert [(fact.text, fact.number, fact.count) for fact in facts] == [
        ("I know x x x here", 0, 1),  # looked up by the third query, not by the first
        ("I know y y y here", 2, 0),  # enters after the fourth
    ]
    assert torch.equal(vectors_nE, torch.eye(3)[:2])


def test_a_full_memory_forgets_what_was_used_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.promotion, "LARGEST", 2)
    items = [
        item("q one", "I know x x x here"),
        item("q two", "I know y y y here"),
        item("xx", "I know z z z here"),
        item("q four", "I know x x z here"),
        item("q five", "filler words only here"),
    ]
    past = lived(items, "response", 1)
    facts, _ = long_term(past, [i.query for i in items], _Letters(), 0.9)
    assert [(fact.text, fact.count) for fact in facts] == [
        ("I know x x x here", 1),
        ("I know x x z here", 0),
    ]


def test_a_query_gets_the_matching_exchange_and_the_nearest_facts_in_time_order() -> None:
    base = wide()
    items = [
        item(None, "My dog is called Rex."),
        *(item(f"chatter {i}", f"the weather of day number {i}") for i in range(6)),
        item("what should i cook tonight", "a soup"),
        item("anything else", "no, thanks a lot"),
    ]
    made = state(base, items, short_term=4, threshold=-1, budget=256)
    query = "what should i cook?"
    lines = Malp().frame(base, made, query).query.split("\n")
    assert lines[0] == "A baker"
    assert lines[-2:] == ["what should i cook tonight a soup", query]
    assert len(lines[1:-2]) == CAP
    said = ["My dog is called Rex.", *(f"the weather of day number {i}" for i in range(6))]
    places = [said.index(line) for line in lines[1:-2]]
    assert places == sorted(places)
    strict = state(base, items, short_term=4, threshold=1.1, budget=64)
    assert Malp().frame(base, strict, "tell a story").query == "A baker\ntell a story"
    assert Malp().frame(base, strict, "").query == "A baker\n"


def test_a_fact_that_only_the_long_term_memory_holds_is_found_and_nobody_elses_is() -> None:
    base = tiny_base()
    chatter = [item(f"chatter {i}", "carrots and bread") for i in range(40)]
    query = "My parrot is called what?"
    for own, other in (("Quixote", "Sancho"), ("Sancho", "Quixote")):
        made = state(base, [item(None, f"My parrot is called {own}."), *chatter], budget=64)
        framed = Malp().frame(base, made, query).query
        assert own in framed
        assert other not in framed


def test_budgets_hold_for_hostile_words_and_a_published_state_frames_as_before(
    registry: Registry,
) -> None:
    base = tiny_base()
    items = [*tiny_interactions("ann", 30), *(item(None, text) for text in HOSTILE)]
    items += [item(f"q {text}", text) for text in HOSTILE]
    made = state(base, items, threshold=-1, budget=512)
    registry.publish(made, BaseIdentity.of(base), {})
    loaded = registry.load("ann", base)
    assert loaded is not None
    for query in ("my dog?", *HOSTILE[:3]):
        framed = Malp().frame(base, made, query)
        assert added(base, framed.query, query) <= base.context // 2
        assert framed == Malp().frame(base, loaded, query)
    assert Malp().frame(base, made, "my dog?").query != "my dog?"


def test_nothing_but_the_training_part_is_kept_and_nothing_makes_nothing() -> None:
    base = tiny_base()
    held_out = (item("my codeword?", "My codeword is Quixote"),)
    wanted = Task("x", "ann", (), held_out, default(Malp().space), 0)
    found = fit(Malp(), base, [wanted])[0].state
    assert found is not None
    assert found.is_base
    assert Malp().frame(base, found, "q").query == Malp().frame(base, None, "q").query == "q"
