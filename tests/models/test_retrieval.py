"""What finds a user's texts: scores by hand, ties, queries that find nothing, any script."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoConfig, AutoModel

from models.base import Base
from models.encoder import BASE
from models.retrieval import Dense, Encoders, Lexical, Newest, edit_similarity
from models.words import words
from tests.tiny import VOCABULARY, tiny_tokenizer

TEXTS = [
    "my dog Rex sleeps in the garden",
    "the soup has carrots and bread",
    "the dog of my aunt is old and the dog barks",
    "nothing to say",
]


def bm25(texts: Sequence[str], query: str) -> list[float]:
    """Lucene's BM25 (k1 1.5, b 0.75), written down from its formula."""
    words_of = [words(text) for text in texts]
    mean = sum(map(len, words_of)) / len(texts)
    scores = []
    for found in words_of:
        score = 0.0
        for word in set(words(query)):
            with_word = sum(word in other for other in words_of)
            rarity = math.log(1 + (len(texts) - with_word + 0.5) / (with_word + 0.5))
            count = found.count(word)
            score += rarity * count / (count + 1.5 * (0.25 + 0.75 * len(found) / mean))
        scores.append(score)
    return scores


def test_words_are_found_by_bm25() -> None:
    assert Lexical(TEXTS).rank("dog") == [2, 0]
    assert Lexical(TEXTS).rank("Where is REX, the dog?") == [0, 2, 1]
    generator = random.Random(1)
    letters = [f"w{i}" for i in range(30)]
    texts = [" ".join(generator.choices(letters, k=generator.randint(1, 20))) for _ in range(60)]
    for _ in range(20):
        query = " ".join(generator.choices(letters, k=4))
        scores = bm25(texts, query)
        found = Lexical(texts).rank(query)
        assert set(found) == {i for i, score in enumerate(scores) if score > 0}
        in_order = [scores[i] for i in found]
        assert in_order == pytest.approx(sorted(in_order, reverse=True), rel=1e-5)


def test_of_equals_the_newest_comes_first() -> None:
    assert Lexical(["a dog", "a cat", "a dog", "a dog"]).rank("dog") == [3, 2, 0]
    assert Newest(3).rank("anything") == [2, 1, 0]
    dense = Dense(torch.eye(3)[[0, 1, 0, 0]], _Fixed(torch.eye(3)[0]))
    assert dense.rank("query") == [3, 2, 0, 1]


def test_what_came_later_is_left_out() -> None:
    assert Lexical(TEXTS).rank("dog", before=2) == [0]
    assert Lexical(TEXTS).rank("dog", before=0) == []
    assert Newest(4).rank("", before=2) == [1, 0]
    dense = Dense(torch.eye(4), _Fixed(torch.eye(4)[3]))
    assert dense.rank("query")[0] == 3
    assert 3 not in dense.rank("query", before=3)
    assert dense.rank("query", before=0) == []


@pytest.mark.parametrize("query", ["", "   \n", "?!", "unheard of", "zzz"])
def test_a_query_without_a_common_word_finds_nothing(query: str) -> None:
    assert Lexical(TEXTS[:2]).rank(query) == []


def test_no_texts_and_texts_without_words_find_nothing() -> None:
    assert Lexical([]).rank("dog") == []
    assert Lexical(["?!", "..."]).rank("dog ?!") == []
    assert Lexical(["?!", "a dog"]).rank("dog") == [1]
    assert Newest(0).rank("dog") == []
    assert Dense(torch.zeros(0, 3), _Fixed(torch.ones(3))).rank("dog") == []
    assert Dense(torch.eye(3), _Fixed(torch.ones(3))).rank("  ") == []


@pytest.mark.parametrize(
    ("texts", "query", "found"),
    [
        (["моя собака спит", "суп и хлеб"], "СОБАКА?", [0]),
        (["我的狗在花园里", "今天下雨"], "狗", [0]),
        (["كلبي ينام", "حساء وخبز"], "حساء", [1]),
        (["मेरा कुत्ता सोता है", "सूप और रोटी"], "कुत्ता", [0]),
    ],
)
def test_every_script_has_words(texts: list[str], query: str, found: list[int]) -> None:
    assert Lexical(texts).rank(query) == found


def test_a_repeated_word_of_the_query_counts_once() -> None:
    assert Lexical(TEXTS).rank("soup dog Rex" + " soup" * 500) == Lexical(TEXTS).rank(
        "soup dog Rex"
    )


def test_meaning_is_the_cosine_of_mean_hidden_states(base: Base) -> None:
    encoder = Encoders().of(base, BASE)
    dense = Dense(encoder.encode(TEXTS), encoder)
    query = "Where is my dog?"

    def mean(text: str) -> torch.Tensor:
        tokens = [*base.prompt.begin, *base.prompt.text(text)]
        with torch.no_grad():
            return base.hidden(torch.tensor([tokens]))[0].mean(0)

    expected = torch.stack([torch.cosine_similarity(mean(t), mean(query), 0) for t in TEXTS])
    assert_close(torch.from_numpy(dense.cosines(query)), expected, rtol=0, atol=1e-5)
    assert dense.rank(query) == expected.argsort(descending=True).tolist()


def test_an_encoder_is_loaded_once_by_its_name(base: Base, tmp_path: Path) -> None:
    encoders = Encoders()
    assert encoders.of(base, BASE) is encoders.of(base, BASE)
    name = save_encoder(tmp_path / "encoder")
    encoder = encoders.of(base, name)
    assert encoders.of(base, name) is encoder
    dense = Dense(encoder.encode(TEXTS), encoder)
    assert dense.rank(TEXTS[1])[0] == 1
    assert dense.cosines(TEXTS[1])[1] == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="expected an encoder's folder or hub name"):
        encoders.of(base, str(tmp_path / "nowhere"))


def test_edit_similarity_by_hand() -> None:
    assert edit_similarity(words("where do i live"), words("where do you live?")) == 0.75
    assert edit_similarity("abc", "abc") == 1
    assert edit_similarity("ab", "ba") == 0
    assert edit_similarity("abcd", "a") == 0.25
    assert edit_similarity("abcd", "a", least=0.5) == 0
    assert edit_similarity([], []) == edit_similarity(["a"], []) == 0


def test_edit_similarity_equals_its_definition() -> None:
    generator = random.Random(2)
    for _ in range(200):
        left, right = (generator.choices("abc", k=generator.randint(1, 6)) for _ in range(2))

        @cache
        def distance(i: int, j: int, a: str = "".join(left), b: str = "".join(right)) -> int:
            if not i or not j:
                return i + j
            change = distance(i - 1, j - 1) + (a[i - 1] != b[j - 1])
            return min(change, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

        expected = 1 - distance(len(left), len(right)) / max(len(left), len(right))
        if set(left) & set(right):
            assert edit_similarity(left, right) == pytest.approx(expected)
        assert edit_similarity(left, right) == edit_similarity(right, left)


class _Fixed:
    """An encoder that turns every text into the same vector."""

    name = "fixed"

    def __init__(self, vector_E: torch.Tensor) -> None:
        self._vector_E, self.width = vector_E, len(vector_E)

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        return self._vector_E.repeat(len(texts), 1)


def save_encoder(folder: Path) -> str:
    """A tiny random encoder, as it would come from the hub."""
    torch.manual_seed(3)
    settings = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2}
    config = AutoConfig.for_model(
        "bert", num_attention_heads=2, intermediate_size=32, pad_token_id=1, **settings
    )
    AutoModel.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)
