"""Persona-F1, P-Cover and their anchors, against values worked out by hand."""

from __future__ import annotations

import itertools
import math

import pytest

from models.persona import Anchors, Persona, PersonaScores, anchors, mean

TEXTS = ["I love my red dog", "The dog sleeps", "We drink tea"]
# Without stop words: love red dog sleeps drink tea.


def test_f1_is_over_sets_of_words_without_stop_words() -> None:
    persona = Persona.of(TEXTS)
    assert persona.vocabulary == {"love", "red", "dog", "sleeps", "drink", "tea"}
    # Said: dog dog tea cat -> {dog, tea, cat}; 2 in common; P = 2/3, R = 2/6.
    assert persona.f1("The dog, the DOG and tea: a cat?") == pytest.approx(2 * 2 / (3 + 6))
    assert persona.f1("the and of") == 0
    assert persona.f1("") == 0
    assert persona.f1("love red dog sleeps drink tea") == 1


def test_stop_words_may_be_kept() -> None:
    persona = Persona.of(["the dog"], without_stop_words=False)
    assert persona.f1("the cat") == pytest.approx(2 * 1 / (2 + 2))
    assert Persona.of(["the dog"]).f1("the cat") == 0


def test_a_profile_counts_for_f1_but_is_no_text_of_p_cover() -> None:
    persona = Persona.of(TEXTS, profile="Works as a baker")
    assert "baker" in persona.vocabulary
    assert persona.cover("baker") == 0


def test_p_cover_is_the_best_text_by_inverse_document_frequency() -> None:
    persona = Persona.of(TEXTS)
    # dog stands in 2 of 3 texts, red and love in 1; text 0 holds all three.
    best = math.log(3 / 2) + 2 * math.log(3)
    assert persona.cover("love that red dog, red red") == pytest.approx(best)
    # Text 1 would give dog and sleeps; tea is in another text and does not add.
    assert persona.cover("dog sleeps tea") == pytest.approx(math.log(3 / 2) + math.log(3))
    assert persona.cover("nothing known") == 0
    assert best > 1  # not bounded by 1, as published


def test_no_text_at_all_scores_zero() -> None:
    assert Persona.of([]).scores("anything") == PersonaScores(0.0, 0.0)
    assert Persona.of([]).copied("anything") == PersonaScores(0.0, 0.0)


def test_the_copy_cap_is_the_best_of_all_answers_of_that_length() -> None:
    persona = Persona.of(TEXTS)
    known = ["love", "red", "dog", "sleeps", "drink", "tea", "cat"]
    of_two = [persona.scores(" ".join(pair)) for pair in itertools.combinations(known, 2)]
    cap = persona.copied("the house")  # a stop word takes a place that another could have had
    assert cap.f1 == pytest.approx(max(s.f1 for s in of_two))
    assert cap.cover == pytest.approx(max(s.cover for s in of_two))


def test_anchors_of_two_users() -> None:
    ann, bob = Persona.of(["red dog"]), Persona.of(["green tea"])
    found = anchors([ann, bob], [["red dog"], ["green tea", "cat"]], seed=0)
    assert found.gold.f1 == pytest.approx((1 + (1 + 0) / 2) / 2)
    # One other user each: Ann's item gets an answer of Bob's, Bob's two get Ann's.
    assert found.stranger == PersonaScores(0.0, 0.0)
    # "cat" alone could at most copy one of two words: 2 * 1 / (1 + 2).
    assert found.copy_cap.f1 == pytest.approx((1 + (1 + 2 / 3) / 2) / 2)


def test_strangers_words_are_drawn_by_the_seed() -> None:
    personas = [Persona.of([f"word{u} shared"]) for u in range(5)]
    gold = [[f"word{u}", "shared"] for u in range(5)]
    found = {seed: anchors(personas, gold, seed) for seed in range(8)}
    assert found[3] == anchors(personas, gold, 3)
    assert len({a.stranger for a in found.values()}) > 1
    assert len({a.gold for a in found.values()}) == 1


def test_a_single_user_has_no_strangers() -> None:
    found = anchors([Persona.of(["red dog"])], [["red dog"]], seed=0)
    assert found == Anchors(PersonaScores(1.0, 0.0), None, PersonaScores(1.0, 0.0))


def test_mean_is_over_both() -> None:
    assert mean([PersonaScores(0.0, 1.0), PersonaScores(1.0, 4.0)]) == PersonaScores(0.5, 2.5)
