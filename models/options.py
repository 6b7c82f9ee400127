"""Configurations of methods that search no layers: a few named values, drawn from a small space.

A space names each setting and lists its values, the default first. It is small on purpose: methods
are compared at the same number of trials, so a large one would only hide what a method can do.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

Value = int | float | str
Space = Mapping[str, tuple[Value, ...]]
NO_OPTIONS: Space = MappingProxyType({})


@dataclass(frozen=True)
class Options:
    """One value for each setting of a method, in the order of its space."""

    values: tuple[tuple[str, Value], ...] = ()

    @classmethod
    def of(cls, **values: Value) -> Self:
        """Options from keywords."""
        return cls(tuple(values.items()))

    def number(self, name: str) -> float:
        """A setting that is a number.

        Raises:
            ValueError: it is not one of these options, or no number.
        """
        value = self._value(name)
        if isinstance(value, str):
            raise ValueError(f"expected a number for {name}, got {value[:80]!r}")
        return value

    def whole(self, name: str) -> int:
        """A setting that is a whole number.

        Raises:
            ValueError: it is not one of these options, or not whole.
        """
        value = self.number(name)
        if value != int(value):
            raise ValueError(f"expected a whole number for {name}, got {value}")
        return int(value)

    def one_of(self, name: str, known: Sequence[str]) -> str:
        """A setting that is a word.

        Raises:
            ValueError: it is not one of these options, or none of the words.
        """
        value = self._value(name)
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"expected one of {', '.join(known)} for {name}, got {value!r:.80}")
        return value

    def to_json(self) -> dict[str, object]:
        """The options as JSON values."""
        return dict(self.values)

    def _value(self, name: str) -> Value:
        known = dict(self.values)
        if name not in known:
            raise ValueError(f"expected {name} among the options {', '.join(known)}, got none")
        return known[name]


def default(space: Space) -> Options:
    """The first value of every setting."""
    return Options(tuple((name, values[0]) for name, values in space.items()))


def require(configuration: object) -> Options:
    """A task's configuration, of a method that has options.

    Raises:
        ValueError: it is of another kind.
    """
    if not isinstance(configuration, Options):
        got = type(configuration).__name__
        raise ValueError(f"expected options as the task's configuration, got a {got}")
    return configuration


def drawn(space: Space, count: int, seed: int) -> list[Options]:
    """The default, then others at random, each once: `count` in all, or all that there are."""
    names: Sequence[str] = list(space)
    every = [
        Options(tuple(zip(names, values, strict=True)))
        for values in itertools.product(*space.values())
    ]
    first, *others = every
    random.Random(seed).shuffle(others)
    return [first, *others][:count]
