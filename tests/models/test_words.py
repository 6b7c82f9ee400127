"""Words are split as the ROUGE package splits them, in any script; values are found whole."""

from __future__ import annotations

import pytest
from rouge_score.tokenize import tokenize

from models.words import holds, stop_words, words


@pytest.mark.parametrize(
    "text",
    [
        "Don't stop_now: it's 3.50 (really)!",
        "",
        "  \n\t",
        "A-b_c d/e\\f",
        "".join(map(chr, range(128))),
    ],
)
def test_ascii_text_is_split_as_rouge_splits_it(text: str) -> None:
    assert words(text) == tokenize(text, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Crème brûlée!", ["crème", "brûlée"]),
        ("cre\u0300me", ["crème"]),  # composed and decomposed are one word
        ("Привет, мир", ["привет", "мир"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),  # vowel signs belong to their word
        ("我的猫 is 3岁", ["我", "的", "猫", "is", "3", "岁"]),
    ],
)
def test_other_scripts_have_words_too(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Your dog is fine.", "dog"),
        ("DOG!", "dog"),
        ("you live in  New\nYork, right?", "new york"),
        ("she writes C++ all day", "C++"),
        ("the dog-friendly one", "dog"),
        ("St. John\u2019s it is", "st. john's"),
        ("我的猫在家", "猫"),
        ("it costs 12", "12"),
    ],
)
def test_a_value_that_stands_whole_is_found(text: str, value: str) -> None:
    assert holds(text, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("hotdogs and dogma", "dog"),
        ("New Jersey and York", "new york"),
        ("plain C here", "C++"),
        ("it costs 123", "12"),
        ("anything", ""),
        ("anything", "  "),
        ("", "dog"),
        ("dogé", "dog"),
    ],
)
def test_a_value_inside_another_word_is_not(text: str, value: str) -> None:
    assert not holds(text, value)


def test_stop_words_are_words_themselves() -> None:
    found = stop_words()
    assert {"the", "and", "don", "t", "myself"} <= found
    assert not {"dog", "fire", "system"} & found
    assert all(words(word) == [word] for word in found)
