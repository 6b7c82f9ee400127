"""What one person and their assistant said, line by line, in three parts.

The parts hold 70, 10 and 20 % of the person's pairs and of their posts. The first tells every fact
and asks about some, each after its first telling; the others ask in words of their own. Small talk
stands between. Two tellings of three are posts; the third stands before a request that has nothing
to do with it, so no answer repeats what was only told.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TypeVar

from examples.people import Person
from examples.questions import STATEMENTS
from examples.smalltalk import POSTS, REQUESTS, TASKS
from examples.tellings import TELLINGS
from examples.world import ATTRIBUTES, CONSEQUENCES, FOLLOWS_FROM

T = TypeVar("T")

QUESTION_SHARE = 0.75  # of the pairs after the cut, while there are phrasings left


@dataclass(frozen=True)
class Line:
    """One interaction without its time: a post where `query` is None."""

    query: str | None
    response: str
    topic: str | None = None  # what a question asks for


def parts(person: Person, rng: random.Random) -> tuple[list[Line], list[Line], list[Line]]:
    """The lines of training, validation and test, each in the order in which they were said."""
    pairs, posts = person.volume.pairs // 10, person.volume.posts // 10
    validation = {topic: asked.validation for topic, asked in person.questions.items()}
    test = {topic: asked.test for topic, asked in person.questions.items()}
    return (
        _training(person, rng, 7 * pairs, 7 * posts),
        _later(person, rng, validation, pairs, posts),
        _later(person, rng, test, 2 * pairs, 2 * posts),
    )


def _training(person: Person, rng: random.Random, pairs: int, posts: int) -> list[Line]:
    """Tellings of every fact, questions after the first of them, and small talk."""
    timed: list[tuple[float, Line]] = []
    first_told: dict[str, float] = {}
    for n, name in enumerate(ATTRIBUTES):
        times = [rng.random() for _ in range(person.volume.tellings)]
        first_told[name] = min(times)
        for i, sentence in enumerate(_deal(rng, TELLINGS[name], len(times))):
            timed.append((times[i], _telling(person, rng, name, sentence, post=(n + i) % 3 > 0)))
    for topic in person.asks:
        earliest = first_told[FOLLOWS_FROM.get(topic, topic)]
        for words in _deal(rng, person.questions[topic].training, person.volume.questions):
            timed.append((rng.uniform(earliest, 1.0), _question(person, topic, words)))
    small_talk = _small_talk(person, rng, [line for _, line in timed], pairs, posts)
    timed += [(rng.random(), line) for line in small_talk]
    return [line for _, line in sorted(timed, key=lambda pair: pair[0])]


def _later(
    person: Person, rng: random.Random, asked: dict[str, tuple[str, ...]], pairs: int, posts: int
) -> list[Line]:
    """Questions about everything, each phrasing once at most, and small talk."""
    ranked = [
        (turn, rng.random(), _question(person, topic, words))
        for topic, phrasings in asked.items()
        for turn, words in enumerate(_shuffled(rng, phrasings))
    ]
    ranked.sort(key=lambda row: row[:2])  # every topic once, in random order, before any twice
    questions = [line for *_, line in ranked][: round(QUESTION_SHARE * pairs)]
    return _shuffled(rng, questions + _small_talk(person, rng, questions, pairs, posts))


def _telling(person: Person, rng: random.Random, name: str, sentence: str, post: bool) -> Line:
    told = person.manner.say(sentence.format(person.facts[name]))
    if post:
        return Line(None, told)
    request, answer = _request(person, rng)
    return Line(f"{told} {request}", answer)


def _question(person: Person, topic: str, words: str) -> Line:
    reason = [person.facts[FOLLOWS_FROM[topic]]] if topic in CONSEQUENCES else []
    statement = STATEMENTS[topic].format(*reason, person.value(topic))
    return Line(words, person.manner.say(statement), topic)


def _small_talk(
    person: Person, rng: random.Random, said: Sequence[Line], pairs: int, posts: int
) -> list[Line]:
    """What is missing to the given numbers of pairs and posts."""
    missing_posts = posts - sum(line.query is None for line in said)
    missing_pairs = pairs - sum(line.query is not None for line in said)
    idle = [Line(None, person.manner.say(post)) for post in _deal(rng, POSTS, missing_posts)]
    return idle + [Line(*_request(person, rng)) for _ in range(missing_pairs)]


def _request(person: Person, rng: random.Random) -> tuple[str, str]:
    task, answer = rng.choice(TASKS)
    return rng.choice(REQUESTS).format(task), person.manner.say(answer)


def _deal(rng: random.Random, sentences: Sequence[str], count: int) -> list[str]:
    """So many of the sentences in random order, none again before all have been used."""
    return list(islice(cycle(_shuffled(rng, sentences)), count))


def _shuffled(rng: random.Random, items: Sequence[T]) -> list[T]:
    return rng.sample(items, len(items))
