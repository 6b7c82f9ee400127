"""What a person sets for a comparison of methods: users, trials and seeds, alike for all.

It knows no method, no Ray and no file: `Terms` are only values. Two comparisons of equal terms give
the same table on one kind of machine; where it is kept and which cluster works on it are no part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.experiment import Dtype, Experiment, UserSaid
from models.encoder import BASE
from models.personalizer import Budget

# May change between calls on a folder: each method's part is the same beside any other.
_FREE = {"methods", "default_budget"}
_LOWEST = {
    "users": 1, "seeds": 1, "trials": 1, "min_items": 1, "items": 1, "seed": 0,
    "injection_epochs": 0, "tuning_epochs": 0, "epoch_tokens": 1, "skip": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Terms:
    """What all methods have in common.

    `trials` is what each tunes with, on its own space; `default_budget` adds the main method as a
    row with the trials it has in a search. `items` bounds how many test items are answered.
    `encoder` is whose vectors methods learn with that read texts as vectors. `skip` leaves out the
    users who are drawn first: those of a comparison with as many users and this seed.

    Raises:
        ValueError: a number out of its range.
    """

    data: str
    base: str
    methods: tuple[str, ...]
    users: int = 12
    seeds: int = 3
    trials: int = 8
    default_budget: bool = False
    min_items: int = 30
    population: str = "auto"
    user_said: UserSaid = "response"
    items: int = 32
    seed: int = 0
    dtype: Dtype = "auto"
    injection_epochs: int = 3
    tuning_epochs: int = 3
    epoch_tokens: int = 8192
    encoder: str = BASE
    skip: int = 0

    def __post_init__(self) -> None:
        for name, least in _LOWEST.items():
            if (value := getattr(self, name)) < least:
                raise ValueError(f"{_flag(name)}: expected at least {least}, got {value}")
        for name in ("data", "base", "population", "encoder"):
            value = getattr(self, name)
            if (name, value) != ("encoder", BASE) and Path(value).exists():
                object.__setattr__(self, name, str(Path(value).resolve()))
        self.experiment()  # refuses what no search could do either

    def experiment(self) -> Experiment:
        """A search of the same users on the same base."""
        return Experiment(
            data=self.data,
            base=self.base,
            users=self.users,
            min_items=self.min_items,
            population=self.population,
            user_said=self.user_said,
            seed=self.seed,
            injection_epochs=self.injection_epochs,
            tuning_epochs=self.tuning_epochs,
            epoch_tokens=self.epoch_tokens,
            items=self.items,
            dtype=self.dtype,
        )

    @property
    def budget(self) -> Budget:
        """How long one training is, of any method, while it tunes and at the end."""
        return Budget(self.injection_epochs, self.tuning_epochs, epoch_tokens=self.epoch_tokens)

    def to_json(self) -> dict[str, object]:
        """The terms as JSON values."""
        return {**asdict(self), "methods": list(self.methods)}

    def differences(self, stored: Mapping[str, Any]) -> list[str]:
        """What differs from stored terms, one line for each: flag, stored, given.

        Who takes part is no difference: methods may join later, or be left out of a table.
        """
        return [
            f"{_flag(name)}: the folder has {then!r}, got {value!r}"
            for name, value in self.to_json().items()
            # What was stored before a term was there has its default.
            if name not in _FREE and (then := stored.get(name, getattr(Terms, name, None))) != value
        ]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def refuse_with(form: str, given: dict[str, Any]) -> None:
    """Refuses flags that have no meaning with another.

    Raises:
        ValueError: names those that were given.
    """
    wrong = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: has no meaning with {form}; leave it out")
