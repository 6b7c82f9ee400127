"""Who takes part in a comparison: a method with so many trials, one row of the table.

It names no method but two: the control, which is always there, since the others are held against
it; and the main method, whose space is that of layers, rank and learning rate. What is built upon
the main method and has no options of its own is searched in the same space.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.experiment import Experiment
from cluster.terms import Terms
from models.catalog import PERSONALIZERS, personalizer
from models.options import Options
from models.personalizer import Configuration, Personalizer
from search.space import MemoryConfig

CONTROL = "none"
MAIN = "milp"
EVERY = "all"


@dataclass(frozen=True)
class Entrant:
    """A method with so many trials for each user; `label` is what its row is called."""

    label: str
    method: str
    trials: int

    @property
    def slug(self) -> str:
        """The label as a folder's name."""
        return self.label.replace(", ", "-").replace(" ", "-")


def methods_of(text: str) -> tuple[str, ...]:
    """The methods that `all`, or names with commas, stand for: the control first, each once.

    Raises:
        ValueError: no such method; names those there are.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ValueError("--methods: expected all, or names with commas between them, got none")
    named = list(PERSONALIZERS) if names == [EVERY] else names
    for name in named:
        try:
            personalizer(name)
        except ValueError as error:
            raise ValueError(f"--methods: {error}; or give {EVERY}") from error
    return tuple(dict.fromkeys([CONTROL, *named]))


def entrants(terms: Terms) -> tuple[Entrant, ...]:
    """All rows, in order.

    Raises:
        ValueError: the main method is wanted at its default budget, and is not there.
    """
    found = [Entrant(name, name, terms.trials) for name in terms.methods]
    if terms.default_budget:
        if MAIN not in terms.methods:
            raise ValueError(f"--default-budget: expected {MAIN} among --methods, got none")
        usual = Experiment(terms.data, terms.base).trials
        found.append(Entrant(f"{MAIN}, {usual} trials", MAIN, usual))
    return tuple(found)


def is_searched(method: Personalizer) -> bool:
    """Whether a method's configurations are those of a LoRA, proposed by a sampler."""
    return not method.space and method.name.partition("+")[0] == MAIN


def configuration_of(method: Personalizer, stored: Mapping[str, Any]) -> Configuration:
    """A method's configuration, from its JSON values."""
    return MemoryConfig.from_json(stored) if is_searched(method) else Options(tuple(stored.items()))
