"""Who a person is: their facts, their manner, how much they say, and in which words they ask.

For one user the questions of the training, validation and test parts are disjoint sets, so a right
answer to a test question can't come from having seen that question. A third of a user's facts are
told and never asked about before the cut. People of the population, from whom a base learns to
talk, use all phrasings and are asked about everything.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from statistics import fmean

from examples.manners import Manner, draw_manner
from examples.questions import QUESTIONS
from examples.world import ATTRIBUTES, CONSEQUENCES, FOLLOWS_FROM

Facts = Mapping[str, str]

TRAINING_EACH, VALIDATION_EACH, TEST_EACH = 3, 2, 3
TELLING_SHARE = 0.7  # of a user's own texts before the cut, questions left out
FAIR_DRAWS = 200


@dataclass(frozen=True)
class Questions:
    """The words in which one person asks one thing, by the part of the log."""

    training: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class Volume:
    """How much a person says: pairs and posts in all (both multiples of ten, so that a tenth of
    the log is a whole number of each), and before the cut how often each fact is told, and how
    often each is asked about.
    """

    pairs: int
    posts: int
    tellings: int
    questions: int


@dataclass(frozen=True)
class Person:
    """One invented person. `asks` is what they ask about before the cut."""

    user_id: str
    facts: Facts
    asks: tuple[str, ...]
    manner: Manner
    questions: Mapping[str, Questions]
    volume: Volume

    def value(self, topic: str) -> str:
        """What is true of this person, for an attribute or for what follows from one."""
        if topic in ATTRIBUTES:
            return self.facts[topic]
        return CONSEQUENCES[topic][self.facts[FOLLOWS_FROM[topic]]]

    def kind(self, topic: str) -> str:
        """How the training part treats a topic: asked, unasked or inferred."""
        if topic in CONSEQUENCES:
            return "inferred"
        return "asked" if topic in self.asks else "unasked"


def draw_user(rng: random.Random, user_id: str, facts: Facts, size: float) -> Person:
    """A user to personalise for. `size` in [0, 1]: from the shortest history to the longest."""
    names = sorted(ATTRIBUTES)
    asks = tuple(rng.sample(names, len(names) - len(names) // 3))
    questions = {topic: _draw_questions(rng, topic) for topic in QUESTIONS}
    return Person(user_id, facts, asks, draw_manner(rng), questions, user_volume(size, len(asks)))


def draw_stranger(rng: random.Random, user_id: str) -> Person:
    """One of the population. What follows from a fact is asked twice as often: it is the hardest
    to learn.
    """
    questions = {topic: Questions(words, words, words) for topic, words in QUESTIONS.items()}
    asks = (*ATTRIBUTES, *CONSEQUENCES, *CONSEQUENCES)
    volume = Volume(pairs=60, posts=30, tellings=3, questions=2)
    return Person(user_id, draw_facts(rng), asks, draw_manner(rng), questions, volume)


def draw_facts(rng: random.Random) -> Facts:
    """A value for every attribute, each as likely as any other."""
    return {name: rng.choice(values) for name, values in ATTRIBUTES.items()}


def draw_fair_facts(rng: random.Random, count: int) -> list[Facts]:
    """Facts of several users who agree about as often as chance would have it.

    A stranger's memory is right about a user where the two agree. Among few users that share
    strays far from chance by luck, so the fairest of many draws is taken.
    """
    draws = [[draw_facts(rng) for _ in range(count)] for _ in range(FAIR_DRAWS if count > 1 else 1)]
    chance = fmean(1 / len(values) for values in ATTRIBUTES.values())
    return min(draws, key=lambda draw: abs(_agreement(draw) - chance))


def user_volume(size: float, asked: int) -> Volume:
    """From 80 interactions (size 0) to 800 (size 1), evenly on a log scale.

    Longer histories are richer in posts; in all, most of a user's own texts tell a fact.
    """
    pairs, posts = 10 * round(4 * 6**size), 10 * round(4 * 14**size)
    questions = round(4**size)
    own_texts = 7 * (pairs + posts) // 10 - asked * questions
    tellings = round(TELLING_SHARE * own_texts / len(ATTRIBUTES))
    return Volume(pairs, posts, tellings, questions)


def _agreement(draw: Sequence[Facts]) -> float:
    """The share of (two users, attribute) with equal values."""
    same = sum(
        comb(count, 2)
        for name in ATTRIBUTES
        for count in Counter(facts[name] for facts in draw).values()
    )
    return same / max(1, comb(len(draw), 2) * len(ATTRIBUTES))


def _draw_questions(rng: random.Random, topic: str) -> Questions:
    """Three disjoint sets of phrasings; what follows from a fact is never asked before the cut."""
    words = rng.sample(QUESTIONS[topic], len(QUESTIONS[topic]))
    cut = TRAINING_EACH if topic in ATTRIBUTES else 0
    after = cut + VALIDATION_EACH
    return Questions(tuple(words[:cut]), tuple(words[cut:after]), tuple(words[after:][:TEST_EACH]))
