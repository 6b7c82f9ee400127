"""What a person sets for one run: one flat frozen dataclass, whole presets, flags from its fields.

It knows nothing of Ray, models or files: an `Experiment` is only values. Where a run is kept and
which cluster it runs on are no part of it, since a run may be gone on with elsewhere; so two
experiments that are equal give the same results.

A preset is a function that returns a whole experiment. The command line makes one flag of every
field; a flag that isn't given leaves the preset's value.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields, replace
from typing import Annotated, Any, Literal, get_args, get_type_hints

import typer

from search.space import LEARNING_RATES, PAPER_LEARNING_RATE, RANKS

PresetName = Literal["scale", "demo", "paper"]
SamplerName = Literal["map-saas", "gp", "sobol", "random", "saas"]
UserSaid = Literal["response", "query", "both"]


def _setting(help_text: str, default: Any) -> Any:
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True)
class Experiment:
    """One whole run over many users.

    Raises:
        ValueError: a number out of its range.
    """

    data: str = field(metadata={"help": "Interactions: JSONL, Parquet, a folder, a datasets name."})
    base: str = field(metadata={"help": "The base model: a folder or a hub name."})
    preset: PresetName = _setting("Where every setting that isn't given comes from.", "scale")
    users: int | None = _setting("How many users to search; all if not given.", None)
    min_items: int = _setting("Fewest items with a query that a user must have.", 30)
    trials: int = _setting("Trials for each user, the base itself not counted.", 24)
    initial: int | None = _setting("Initial points; min(12, half of the trials) if not given.", None)
    batch: int = _setting("Proposals asked for at once (the paper's q).", 1)
    sampler: SamplerName = _setting("What proposes configurations.", "map-saas")
    population: str = _setting("Learn first what users share: auto, off, or a file of others.", "auto")
    user_said: UserSaid = _setting("Which text is the user's own.", "response")
    seed: int = _setting("Decides every random draw.", 0)
    ranks: tuple[int, ...] = _setting("Ranks searched.", RANKS)
    learning_rates: tuple[float, ...] = _setting("Learning rates searched.", LEARNING_RATES)
    search_layers: bool = _setting("Search which layers hold a memory.", True)
    search_number: bool = _setting("Search how many layers hold a memory.", True)
    injection_epochs: int = _setting("Epochs of memory injection in a trial; 0: none.", 3)
    tuning_epochs: int = _setting("Epochs of instruction tuning in a trial; 0: none.", 3)
    epoch_tokens: int = _setting("Most tokens of an epoch in a trial, newest first.", 8192)
    winner_epochs: int = _setting("Most epochs of each stage for a winner.", 10)
    items: int = _setting("Most validation items answered and scored.", 32)
    slots: int | None = _setting("Places in a pack: 4 on a CPU, 16 on a GPU if not given.", None)

    def __post_init__(self) -> None:
        lowest = {
            "users": 1, "min_items": 1, "trials": 1, "initial": 1, "batch": 1, "seed": 0,
            "injection_epochs": 0, "tuning_epochs": 0, "epoch_tokens": 1, "winner_epochs": 1,
            "items": 1, "slots": 1,
        }  # fmt: skip
        for name, least in lowest.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{_flag(name)}: expected at least {least}, got {value}")
        if not self.injection_epochs and not self.tuning_epochs:
            raise ValueError(
                "--injection-epochs and --tuning-epochs: expected one of them above 0, got 0 and 0"
            )
        object.__setattr__(self, "ranks", tuple(self.ranks))
        object.__setattr__(self, "learning_rates", tuple(self.learning_rates))

    @property
    def initial_points(self) -> int:
        """Trials of a user before the surrogate takes over."""
        given = min(12, self.trials // 2) if self.initial is None else self.initial
        return max(1, min(given, self.trials))

    def to_json(self) -> dict[str, object]:
        """The settings as JSON values."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Experiment:
        """The inverse of `to_json`; other keys are left alone."""
        return cls(**{f.name: _tupled(values[f.name]) for f in fields(cls) if f.name in values})

    def differences(self, stored: Mapping[str, Any]) -> list[str]:
        """What differs from stored settings, one line for each: flag, stored, given."""
        return [
            f"{_flag(name)}: the run has {stored.get(name)!r}, got {value!r}"
            for name, value in self.to_json().items()
            if stored.get(name) != value
        ]


def scale(data: str, base: str) -> Experiment:
    """The default: few trials for each of many users."""
    return Experiment(data=data, base=base)


def demo(data: str, base: str) -> Experiment:
    """The same path and defaults, with fewer users, trials and steps."""
    return Experiment(data=data, base=base, preset="demo", users=2, trials=6, winner_epochs=8)


def paper(data: str, base: str) -> Experiment:
    """The schedule of MiLP (arXiv 2404.03565, sections 4 and 5, after AutoPEFT's code)."""
    return Experiment(
        data=data,
        base=base,
        preset="paper",
        trials=200,
        initial=100,
        batch=4,
        sampler="saas",
        population="off",
        learning_rates=(PAPER_LEARNING_RATE,),
    )


PRESETS: Mapping[str, Callable[[str, str], Experiment]] = {
    "scale": scale,
    "demo": demo,
    "paper": paper,
}


def experiment_from(given: Mapping[str, Any]) -> Experiment:
    """The preset's experiment with every flag that was given (is not None).

    Raises:
        ValueError: an unknown preset, or a number out of its range.
    """
    values = {name: value for name, value in given.items() if value not in (None, [], ())}
    preset = values.pop("preset", "scale")
    if preset not in PRESETS:
        raise ValueError(f"--preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    whole = PRESETS[preset](values.pop("data"), values.pop("base"))
    return replace(whole, **{name: _tupled(value) for name, value in values.items()})


def flags() -> list[inspect.Parameter]:
    """One command line parameter for every field; those without a default are required."""
    hints = get_type_hints(Experiment)
    return [_parameter(setting, hints[setting.name]) for setting in fields(Experiment)]


def _parameter(setting: Field[Any], hint: Any) -> inspect.Parameter:
    required = setting.name in ("data", "base")
    names = [_flag(setting.name)]
    if hint is bool:
        names = [f"{names[0]}/--no-{names[0][2:]}"]
    kind = hint if required else _optional(hint)
    option = typer.Option(*names, help=setting.metadata["help"], show_default=False)
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else None,
        annotation=Annotated[kind, option],
    )


def _optional(hint: Any) -> Any:
    if getattr(hint, "__origin__", None) is tuple:
        return list[get_args(hint)[0]] | None  # type: ignore[misc]  # built at run time
    return hint | None if not _allows_none(hint) else hint


def _allows_none(hint: Any) -> bool:
    return type(None) in get_args(hint)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
