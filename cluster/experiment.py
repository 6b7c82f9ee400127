"""What a person sets for one run: one flat frozen dataclass, whole presets, flags from its fields.

It knows nothing of Ray, models or files: an `Experiment` is only values. Where a run is kept and
which cluster it runs on are no part of it, since a run may be gone on with elsewhere; so two
experiments that are equal give the same results.

A preset is a function that returns a whole experiment. The command line makes one flag of every
field; a flag that isn't given leaves the preset's value.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from cluster.ablations import ABLATIONS, AblationName
from search.samplers import SURROGATES, DesignName, initial_count
from search.space import LEARNING_RATES, PAPER_LEARNING_RATE, RANKS, SearchSpace

PresetName = Literal["scale", "demo", "paper", AblationName]
SamplerName = Literal["map-saas", "gp", "saas", "tpe", "nsga2", "optuna-gp", "sobol", "random"]
UserSaid = Literal["response", "query", "both"]
Transfer = Literal["auto", "off"]
Dtype = Literal["auto", "float32", "bfloat16", "8bit", "4bit"]
MOST_CHOICES = 8  # listed before a flag's help
_PATHS = {"data", "base", "population"}


@dataclass(frozen=True)
class Experiment:
    """One whole run over many users.

    Raises:
        ValueError: a number out of its range.
    """

    data: Annotated[str, "Interactions: JSONL, Parquet, a folder of them, or a datasets name."]
    base: Annotated[str, "The base model: a folder or a hub name."]
    preset: Annotated[
        PresetName,
        "Where every setting that isn't given comes from: scale; demo, the same but small; paper, "
        "as published; or scale with only the named parts searched or trained: "
        + ", ".join(ABLATIONS),
    ] = "scale"
    users: Annotated[int | None, "How many users to search; all if not given."] = None
    min_items: Annotated[int, "Fewest items with a query that a user must have."] = 30
    trials: Annotated[int, "Trials for each user, the base itself not counted."] = 24
    total_trials: Annotated[
        int | None,
        "Trials for all users together. Each gets the initial points, then up to --trials in "
        "proportion to what the sampler expects (map-saas, gp, saas), or all alike.",
    ] = None
    stop_below: Annotated[
        float,
        "End a user's search once three proposals in a row promise to add less than this share "
        "of hypervolume; 0: never. For map-saas, gp and saas.",
    ] = 0.0
    initial: Annotated[int | None, "Initial points; 12, at most half, if not given."] = None
    sampler: Annotated[SamplerName, "What proposes configurations."] = "gp"
    design: Annotated[DesignName, "The sequence that initial points are drawn from."] = "sobol"
    batch: Annotated[
        int, "Trials of a user proposed at once; 1 proposes each as soon as a slot is free."
    ] = 1
    transfer: Annotated[Transfer, "Begin with what was best for earlier users: auto, off."] = "auto"
    stop_early: Annotated[bool, "Stop trials whose loss promises too little."] = False
    population: Annotated[str, "Learn first what users share: auto, off, or a file."] = "auto"
    user_said: Annotated[UserSaid, "Which text is the user's own."] = "response"
    seed: Annotated[int, "Decides every random draw."] = 0
    ranks: Annotated[tuple[int, ...], "Ranks searched, rising; the flag once for each."] = RANKS
    learning_rates: Annotated[
        tuple[float, ...], "Learning rates searched, rising; the flag once for each."
    ] = LEARNING_RATES
    search_layers: Annotated[bool, "Search which layers hold a memory."] = True
    search_number: Annotated[bool, "Search how many layers hold a memory."] = True
    injection_epochs: Annotated[int, "Epochs of memory injection in a trial; 0: none."] = 3
    tuning_epochs: Annotated[int, "Epochs of instruction tuning in a trial; 0: none."] = 3
    rehearse: Annotated[bool, "Tune with the user's other words between answers."] = True
    epoch_tokens: Annotated[int, "Most tokens of a trial's epoch, newest first."] = 8192
    winner_epochs: Annotated[int, "Most epochs of each stage for a winner."] = 10
    repeat_winner: Annotated[int, "Train winner and runner-up so often again, to be sure."] = 0
    items: Annotated[int, "Most validation items answered and scored."] = 32
    dtype: Annotated[Dtype, "The base's numbers; auto: bfloat16 where it is native."] = "auto"
    recompute: Annotated[
        bool, "Keep layers' inputs alone for the backward pass: less memory, one more forward."
    ] = False
    slots: Annotated[
        int | None, "Trials at once: 4 on a CPU, 16 on each GPU. A cluster declares its own."
    ] = None

    def __post_init__(self) -> None:
        lowest = {
            "users": 1, "min_items": 1, "trials": 1, "total_trials": 1, "initial": 1, "batch": 1,
            "seed": 0, "injection_epochs": 0, "tuning_epochs": 0, "epoch_tokens": 1,
            "winner_epochs": 1, "items": 1, "slots": 1, "repeat_winner": 0,
        }  # fmt: skip
        for name, least in lowest.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{_flag(name)}: expected at least {least}, got {value}")
        if not 0 <= self.stop_below < 1:
            raise ValueError(f"--stop-below: expected from 0 to below 1, got {self.stop_below}")
        if self.stop_below and self.sampler not in SURROGATES:
            raise ValueError(
                f"--stop-below: expected with a sampler that says what it expects "
                f"({', '.join(SURROGATES)}), got {self.sampler}: leave it out"
            )
        if not self.injection_epochs and not self.tuning_epochs:
            raise ValueError(
                "--injection-epochs and --tuning-epochs: expected one of them above 0, got 0 and 0"
            )
        object.__setattr__(self, "ranks", tuple(self.ranks))
        object.__setattr__(self, "learning_rates", tuple(self.learning_rates))
        try:
            SearchSpace(1, self.ranks, self.learning_rates)
        except ValueError as error:
            raise ValueError(f"--ranks, --learning-rates: {error}") from error

    @property
    def initial_points(self) -> int:
        """Trials of a user before the surrogate takes over."""
        given = initial_count(self.trials) if self.initial is None else self.initial
        return max(1, min(given, self.trials))

    def check_total(self, users: int) -> None:
        """Raises a ValueError where the total is less than so many users' initial points."""
        least = users * self.initial_points
        if self.total_trials is not None and self.total_trials < least:
            raise ValueError(
                f"--total-trials: expected at least {least}, {self.initial_points} initial points "
                f"for each of {users} users, got {self.total_trials}: give more, fewer --users, or "
                "fewer --initial"
            )

    def to_json(self) -> dict[str, object]:
        """The settings as JSON values."""
        return {name: _plain(value) for name, value in asdict(self).items()}

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
    """MiLP's search as published (arXiv 2404.03565), with the settings it takes from AutoPEFT.

    100 random configurations, then 100 in rounds of four, each round proposed by SAAS under NUTS
    (128 steps of warm-up, 64 samples, every fourth kept) and the expected hypervolume improvement
    itself, not its logarithm; a fixed learning rate; nothing learned from other users.

    Corrected, since taken literally the search would avoid good configurations:
    - Equation 4 has a minus sign. The improvement is maximised, as in AutoPEFT.
    - Its reference point is "the best-known values", which leaves nothing to improve upon. It is
      the nadir of the random configurations less a tenth of their range, no worse than the base,
      and never moves.
    - Its kernel is "log-Normal", which is no kernel but a prior. It is SAASBO's Matern-5/2.
    AutoPEFT's release is corrected too: the configuration that is tried is the one that the search
    of the acquisition function ended at, none is tried twice, all is in float64, and objectives are
    standardised instead of passed through a copula, which loses where the reference point lies;
    values far on the bad side are pulled in first, which a copula does too.
    """
    return Experiment(
        data=data, base=base, preset="paper", trials=200, initial=100, sampler="saas",
        design="random", batch=4, learning_rates=(PAPER_LEARNING_RATE,),
        transfer="off", population="off", stop_early=False, rehearse=False,
    )  # fmt: skip


def ablation(name: AblationName, data: str, base: str) -> Experiment:
    """The default experiment without a part of it (see `cluster/ablations.py`)."""
    return replace(scale(data, base), preset=name, **ABLATIONS[name])


PRESETS: Mapping[str, Callable[[str, str], Experiment]] = {
    "scale": scale,
    "demo": demo,
    "paper": paper,
    **{name: partial(ablation, name) for name in ABLATIONS},
}


def seed_of(*parts: object) -> int:
    """A seed that depends on its parts alone: the same on every machine, in every version.

    A user's is of (experiment seed, user id), a trial's of (user's seed, configuration).
    """
    told = "\0".join(map(str, parts))
    digest = hashlib.sha256(told.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def experiment_from(given: Mapping[str, Any]) -> Experiment:
    """The preset's experiment with every flag that was given (is not None).

    Raises:
        ValueError: an unknown preset, or a number out of its range.
    """
    values = {name: value for name, value in given.items() if value not in (None, [], ())}
    preset = values.pop("preset", "scale")
    if preset not in PRESETS:
        raise ValueError(f"--preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    for name in _PATHS & values.keys():
        values[name] = _absolute(values[name])
    whole = PRESETS[preset](values.pop("data"), values.pop("base"))
    return replace(whole, **{name: _tupled(value) for name, value in values.items()})


def flags() -> list[inspect.Parameter]:
    """One command line parameter for every field; those without a default are required."""
    hints = get_type_hints(Experiment, include_extras=True)
    return [_parameter(setting, *get_args(hints[setting.name])) for setting in fields(Experiment)]


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """The command with one flag for every field of `Experiment`, given to it by name."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    kept = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.kind is not p.VAR_KEYWORD]
    signature = inspect.Signature([*flags(), *kept])
    command.__signature__ = signature  # type: ignore[attr-defined]  # where typer looks
    command.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()}
    return command


def _parameter(setting: Field[Any], hint: Any, help_text: str) -> inspect.Parameter:
    required = setting.default is MISSING
    name = _flag(setting.name)
    name = f"{name}/--no-{name[2:]}" if hint is bool else name
    is_long = len(get_args(hint)) > MOST_CHOICES  # then its help names the values
    metavar = setting.name.upper() if is_long else None
    option = typer.Option(name, help=help_text, show_default=_shown(setting), metavar=metavar)
    kind = hint if required else _optional(hint)
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else None,
        annotation=Annotated[kind, option],
    )


def _shown(setting: Field[Any]) -> str | bool:
    """The default as a flag's help shows it; False where the help says what none means."""
    if setting.default is MISSING or setting.default is None:
        return False
    if isinstance(setting.default, bool):
        return "on" if setting.default else "off"
    return ", ".join(map(str, value)) if isinstance(value := setting.default, tuple) else str(value)


def _optional(hint: Any) -> Any:
    """The hint of a flag that may be left out; a tuple's flag is given once for each value."""
    return list[get_args(hint)[0]] | None if get_origin(hint) is tuple else hint | None  # type: ignore[misc]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _absolute(name: str) -> str:
    """A path that exists, from wherever it is read later; other names as they are."""
    return str(Path(name).resolve()) if Path(name).exists() else name


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
