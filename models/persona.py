"""How much of a user's own words an answer holds: Persona-F1 and P-Cover, and their anchors.

Persona-F1 is the F1 between two sets of words: those of the answer, and those of all that the user
wrote in the training part (with the profile, where there is one), stop words left out of both. The
MiLP paper prints values above 1 for it, which no F1 can reach, and published evaluators differ;
this is the set-based reading, as a fraction in [0, 1].

P-Cover (DHAP) is the largest sum, over the user's texts, of the inverse document frequencies
ln(texts / texts with the word) of the distinct answer words in one text. It is not bounded by 1.

Neither number means anything alone: both rise with longer answers and with copied history. So each
is shown between three anchors (`anchors`): the true answer, another user's true answer, and the
most that an answer as long as the true one could reach by copying.

References: MiLP, arXiv 2404.03565, section 4; Ma et al. 2021, One Chatbot Per Person (DHAP).
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from models.words import stop_words, words


class PersonaScores(NamedTuple):
    """Both measures of one answer, or their means over answers."""

    f1: float
    cover: float


@dataclass(frozen=True)
class Persona:
    """A user's own words, ready to be compared with answers.

    `texts_with` maps each word to the numbers of the texts it stands in.
    """

    vocabulary: frozenset[str]
    texts_with: Mapping[str, tuple[int, ...]]
    text_count: int
    left_out: frozenset[str]

    @classmethod
    def of(
        cls, texts: Sequence[str], profile: str | None = None, without_stop_words: bool = True
    ) -> Persona:
        """The persona of a user's training texts; never give it what is to be answered.

        Args:
            texts: the user's own words, one text an interaction.
            profile: counts for Persona-F1; not a text of P-Cover, which is about utterances.
            without_stop_words: leave English function words out of Persona-F1.
        """
        left_out = stop_words() if without_stop_words else frozenset()
        texts_with: dict[str, list[int]] = {}
        for number, text in enumerate(texts):
            for word in set(words(text)):
                texts_with.setdefault(word, []).append(number)
        vocabulary = frozenset(texts_with).union(words(profile or "")) - left_out
        return cls(vocabulary, {w: tuple(n) for w, n in texts_with.items()}, len(texts), left_out)

    def scores(self, answer: str) -> PersonaScores:
        """Both measures of one answer."""
        return PersonaScores(self.f1(answer), self.cover(answer))

    def f1(self, answer: str) -> float:
        """F1 of the answer's distinct words and the user's, in [0, 1]."""
        said = set(words(answer)) - self.left_out
        return _f1(len(said & self.vocabulary), len(said), len(self.vocabulary))

    def cover(self, answer: str) -> float:
        """The largest total weight of the answer's distinct words found in one text."""
        totals: dict[int, float] = {}
        for word in sorted(set(words(answer))):
            for number in self.texts_with.get(word, ()):
                totals[number] = totals.get(number, 0.0) + self.weight(word)
        return max(totals.values(), default=0.0)

    def weight(self, word: str) -> float:
        """Inverse document frequency of one of the user's words."""
        return math.log(self.text_count / len(self.texts_with[word]))

    def copied(self, answer: str) -> PersonaScores:
        """The most that any answer with as many distinct words as this one could reach."""
        distinct = len(set(words(answer)))  # a stop word's place could hold another word
        copied = min(distinct, len(self.vocabulary))
        return PersonaScores(
            _f1(copied, copied, len(self.vocabulary)), self._largest_cover(distinct)
        )

    def _largest_cover(self, count: int) -> float:
        """The largest total weight of `count` distinct words of one text."""
        return max((sum(weights[:count]) for weights in self._weights), default=0.0)

    @cached_property
    def _weights(self) -> list[list[float]]:
        """For each text, the weights of its distinct words, largest first."""
        weights: list[list[float]] = [[] for _ in range(self.text_count)]
        for word, numbers in self.texts_with.items():
            for number in numbers:
                weights[number].append(self.weight(word))
        return [sorted(w, reverse=True) for w in weights]


@dataclass(frozen=True)
class Anchors:
    """What Persona-F1 and P-Cover of a data set are to be read against; means over its users.

    `stranger` is None where there is one user only.
    """

    gold: PersonaScores
    stranger: PersonaScores | None
    copy_cap: PersonaScores


def anchors(personas: Sequence[Persona], gold_of: Sequence[Sequence[str]], seed: int) -> Anchors:
    """The anchors of a data set.

    Args:
        personas: one for each user.
        gold_of: the true answers to each user's evaluation items, at least one a user.
        seed: draws whose answer stands in for each item.
    """
    generator = random.Random(seed)
    users = range(len(personas))
    drawn = [[_other(gold_of, user, generator) for _ in gold_of[user]] for user in users]
    pairs = list(zip(personas, gold_of, strict=True))
    return Anchors(
        gold=mean([mean([p.scores(text) for text in texts]) for p, texts in pairs]),
        stranger=mean([mean([personas[u].scores(t) for t in drawn[u]]) for u in users])
        if len(personas) > 1
        else None,
        copy_cap=mean([mean([p.copied(text) for text in texts]) for p, texts in pairs]),
    )


def mean(scores: Sequence[PersonaScores]) -> PersonaScores:
    """The mean of both measures over answers, or over users."""
    f1, cover = zip(*scores, strict=True)
    return PersonaScores(sum(f1) / len(f1), sum(cover) / len(cover))


def _other(gold_of: Sequence[Sequence[str]], user: int, generator: random.Random) -> str:
    """A random true answer of a random other user; nothing where there is no other."""
    if len(gold_of) < 2:
        return ""
    place = generator.randrange(len(gold_of) - 1)
    return generator.choice(gold_of[place + (place >= user)])


def _f1(common: int, said: int, known: int) -> float:
    return 2 * common / (said + known) if common else 0.0
