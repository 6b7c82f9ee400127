"""Pieces of a growing answer are certain, and together they are the answer."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from models.prompt import PlainPrompt
from serve.words import Words
from tests.tiny import VOCABULARY, tiny_tokenizer

PROMPT = PlainPrompt(tiny_tokenizer(), 128)


def spoken(tokens: Sequence[int], stops: Sequence[str] = ()) -> tuple[list[str], Words]:
    words = Words(PROMPT.decode, stops)
    pieces = []
    for token in tokens:
        pieces.append(words.add(token))
        if words.stopped:
            break
    return [*pieces, words.rest()], words


@pytest.mark.parametrize("seed", range(20))
def test_pieces_of_any_tokens_join_to_the_decoded_answer(seed: int) -> None:
    tokens = random.Random(seed).choices(range(VOCABULARY - 2), k=40)
    pieces, words = spoken(tokens)
    assert "".join(pieces) == PROMPT.decode(tokens) == words.said


@pytest.mark.parametrize("text", ["naïve 日本語 🌽 café", "a  b   c"])
def test_characters_of_several_tokens_are_never_cut(text: str) -> None:
    tokens = PROMPT.text(text)
    pieces, _ = spoken(tokens)
    assert "".join(pieces) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert len(tokens) > len(text.split())


def test_bytes_that_are_no_character_come_out_at_the_end() -> None:
    tokens = PROMPT.text("é")[:1]
    pieces, _ = spoken(tokens)
    assert pieces == ["", PROMPT.decode(tokens)]
    assert pieces[-1]


@pytest.mark.parametrize(
    ("stops", "expected"),
    [
        (["sleeps"], "My dog "),
        (["s i"], "My dog sleep"),
        (["garden", "dog"], "My "),
        (["dog sleeps in", "in"], "My "),
        (["M"], ""),
        (["cat", "gardens"], "My dog sleeps in the garden"),
    ],
)
def test_an_answer_ends_before_the_first_stop_text(stops: list[str], expected: str) -> None:
    pieces, words = spoken(PROMPT.text("My dog sleeps in the garden"), stops)
    assert "".join(pieces) == expected
    assert words.stopped == any(stop in "My dog sleeps in the garden" for stop in stops)


def test_the_beginning_of_a_stop_text_is_held_back_until_it_is_none() -> None:
    words = Words("".join, ["abc"])  # type: ignore[arg-type]
    assert [words.add(letter) for letter in "xabab"] == ["x", "", "", "ab", ""]  # type: ignore[arg-type]
    assert words.add("d") == "abd"  # type: ignore[arg-type]
    assert words.add("a") == ""  # type: ignore[arg-type]
    assert words.rest() == "a"
