"""ROUGE by hand, and as the package of that name has it."""

from __future__ import annotations

import math
import random

import pytest
from rouge_score.rouge_scorer import RougeScorer

from models.rouge import mean_rouge_l, rouge


def test_by_hand() -> None:
    # Three of four words in common in any order; "the cat" and "sat" in order.
    found = rouge("the cat sat down", "sat, the cat!")
    assert found.rouge_1 == pytest.approx(2 * (3 / 3) * (3 / 4) / (3 / 3 + 3 / 4))
    assert found.rouge_l == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert rouge("the cat", "") == rouge("", "the cat") == rouge("", "") == (0, 0)


@pytest.mark.parametrize("vocabulary", [2, 5, 40])
def test_the_packages_own_to_the_last_bit(vocabulary: int) -> None:
    theirs = RougeScorer(["rouge1", "rougeL"], use_stemmer=False)
    drawn = random.Random(vocabulary)
    names = ["Cats", "weren't", "a", "b", "c", "5", "running_here", *map(str, range(100, 133))]
    for _ in range(300):
        reference, answer = (
            " ".join(drawn.choices(names[:vocabulary], k=drawn.randrange(90))) for _ in range(2)
        )
        found = theirs.score(reference, answer)
        assert rouge(reference, answer) == (found["rouge1"].fmeasure, found["rougeL"].fmeasure)


def test_words_of_other_scripts_count() -> None:
    assert rouge("я люблю чай", "я люблю кофе").rouge_l == pytest.approx(2 / 3)


def test_a_mean_comes_with_its_error() -> None:
    mean, error = mean_rouge_l(["the cat", "the cat", "a"], ["the cat", "a dog", "a"])
    assert (mean, error) == pytest.approx((2 / 3, math.sqrt(1 / 3) / math.sqrt(3)))
    assert mean_rouge_l(["the cat"], ["the cat"]) == (1.0, 0.0)
