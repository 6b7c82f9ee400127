"""Measured training costs as a table: each system's trials, and the ratio to Milpa's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from benchmarks.meter import Cost

OURS = "milpa"
ASKER = "ray::Asker"  # what these processes call themselves
PACKER = ("ray::Packer", "ray::milpa")  # the second while it works on a trial, by its name
PHASES = ("start", "load", "train", "score", "bookkeeping")
NAMES = {OURS: "Milpa", "fresh": "Tune + PEFT, fresh", "reused": "Tune + PEFT, reused"}


@dataclass(frozen=True)
class Measured:
    """One system on one data set; `phases` are CPU-seconds and sum to the cost's.

    `loss_apart` and `rouge_apart` are the largest differences of a trial's objectives to Milpa's;
    `busy` is the share of its time that Milpa's packer worked.
    """

    data: str
    dtype: str
    system: str
    cost: Cost
    trials: int
    phases: Mapping[str, float]
    mean_loss_nats: float
    mean_rouge_l: float
    loss_apart: float = 0.0
    rouge_apart: float = 0.0
    busy: float | None = None

    @classmethod
    def of_ours(cls, data: str, dtype: str, cost: Cost, found: Mapping[str, Any]) -> Self:
        """Milpa's: until it is ready all is start and load, what its packer doesn't spend
        afterwards is bookkeeping."""
        spent = found["cpu_seconds"]
        phases = {name: spent[name] for name in ("load", "train", "score")}
        phases["start"] = cost.ready_cpu_seconds - spent["load"]
        return cls(data, dtype, OURS, cost, **_summary(cost, phases, found), busy=found["busy"])

    @classmethod
    def of_theirs(
        cls,
        data: str,
        dtype: str,
        form: str,
        cost: Cost,
        found: Mapping[str, Any],
        ours: Sequence[Mapping[str, Any]],
    ) -> Self:
        """A baseline's: what its trials don't spend is bookkeeping.

        Raises:
            ValueError: it did not run the same trials.
        """
        spent = [trial["cpu_seconds"] for trial in found["trials"]]
        phases = {n: sum(one.get(n, 0.0) for one in spent) for n in PHASES if n != "bookkeeping"}
        phases["start"] += cost.ready_cpu_seconds
        pairs = _paired(ours, found["trials"])
        loss = max(_apart(mine["loss_nats"], other["loss_nats"]) for mine, other in pairs)
        rouge = max(_apart(mine["rouge_l"], other["rouge_l"]) for mine, other in pairs)
        summary = _summary(cost, phases, found)
        return cls(data, dtype, form, cost, **summary, loss_apart=loss, rouge_apart=rouge)

    @property
    def trials_per_hour(self) -> float:
        """By the wall clock."""
        return 3600 * self.trials / self.cost.wall_seconds

    @property
    def cpu_seconds_per_trial(self) -> float:
        """Of everything, starting included."""
        return self.cost.cpu_seconds / self.trials


def _summary(cost: Cost, phases: Mapping[str, float], found: Mapping[str, Any]) -> dict[str, Any]:
    trials = found["trials"]
    rest = cost.cpu_seconds - sum(phases.values())
    return {
        "trials": len(trials),
        "phases": {**phases, "bookkeeping": rest},
        "mean_loss_nats": math.fsum(trial["loss_nats"] for trial in trials) / len(trials),
        "mean_rouge_l": math.fsum(trial["rouge_l"] for trial in trials) / len(trials),
    }


def _paired(
    ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The same trials side by side."""
    by_trial = {_key(trial): trial for trial in theirs}
    if by_trial.keys() != {_key(trial) for trial in ours}:
        raise ValueError("expected the same trials on both sides, got others")
    return [(trial, by_trial[_key(trial)]) for trial in ours]


def _key(trial: Mapping[str, Any]) -> tuple[Any, ...]:
    planned = trial["trial"]
    return (*planned["layers"], planned["person"], planned["rank"], planned["learning_rate"])


def _apart(first: float, second: float) -> float:
    difference = abs(first - second)
    return difference if math.isfinite(difference) else math.inf


def table(measured: Sequence[Measured]) -> str:
    """A Markdown table: a row for each system; phases are CPU-seconds a trial."""
    head = [
        "data", "precision", "system", "trials", "trials/h", "CPU-s/trial", *PHASES,
        "peak GB", "x CPU", "x wall", "loss", "ROUGE-L", "loss apart", "ROUGE-L apart", "busy",
    ]  # fmt: skip
    lines = [head, ["---"] * len(head)]
    for one in measured:
        lines.append(_line(one, _ours(measured, one.data, one.dtype)))
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    profiles = [profile(one) for one in measured if one.system == OURS]
    return "\n\n".join([text, *_mixed(measured), *profiles]) + "\n"


def profile(ours: Measured) -> str:
    """Where Milpa's CPU-seconds went once it was ready, and how long its packer waited."""
    later = ours.cost.later_by_process
    spent = {name: ours.phases[name] for name in ("train", "score")}
    spent["ask"] = later.get(ASKER, 0.0)
    whole = ours.cost.cpu_seconds - ours.cost.ready_cpu_seconds
    others = {name: seconds for name, seconds in later.items() if name not in (*PACKER, ASKER)}
    packer = sum(later.get(name, 0.0) for name in PACKER)
    others[f"{PACKER[0]} itself"] = packer - spent["train"] - spent["score"]
    dearest = sorted(others, key=lambda name: -others[name])[:4]
    text = ", ".join(f"{name} {seconds / whole:.1%}" for name, seconds in spent.items())
    rest = ", ".join(f"{name} {others[name] / whole:.1%}" for name in dearest)
    outside = 1 - sum(spent.values()) / whole
    waited = "" if ours.busy is None else f"; the packer waited {1 - ours.busy:.1%} of its time"
    return (
        f"{ours.data} {ours.dtype}: {whole:.0f} CPU-seconds after the start: {text}, "
        f"outside these {outside:.1%} ({rest}){waited}."
    )


def _line(one: Measured, ours: Measured) -> list[str]:
    """One system; `x` columns say how many times more Milpa does in the same time."""
    return [
        one.data, one.dtype, NAMES[one.system], str(one.trials),
        f"{one.trials_per_hour:.0f}", f"{one.cpu_seconds_per_trial:.2f}",
        *(f"{one.phases[name] / one.trials:.2f}" for name in PHASES),
        f"{one.cost.peak_bytes / 1e9:.2f}",
        f"{one.cpu_seconds_per_trial / ours.cpu_seconds_per_trial:.2f}",
        f"{ours.trials_per_hour / one.trials_per_hour:.2f}",
        f"{one.mean_loss_nats:.4f}", f"{one.mean_rouge_l:.4f}",
        f"{one.loss_apart:.1e}", f"{one.rouge_apart:.3f}",
        "" if one.busy is None else f"{one.busy:.1%}",
    ]  # fmt: skip


def _ours(measured: Sequence[Measured], data: str, dtype: str) -> Measured:
    return next(one for one in measured if (one.data, one.dtype, one.system) == (data, dtype, OURS))


def _mixed(measured: Sequence[Measured]) -> list[str]:
    """Milpa in bfloat16 against the baseline in float32: what it is, and no like with like."""
    found = []
    for one in measured:
        if one.system == OURS and one.dtype == "bfloat16":
            others = [o for o in measured if (o.data, o.dtype) == (one.data, "float32")]
            ratios = ", ".join(
                f"{o.cpu_seconds_per_trial / one.cpu_seconds_per_trial:.2f} times the trials per "
                f"CPU-second of {NAMES[o.system]}"
                for o in others
            )
            if ratios:
                found.append(f"{one.data}: Milpa in bfloat16 against float32: {ratios}.")
    return found
