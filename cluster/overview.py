"""What a run comes to, as the page shows it: a row a user, the means, a few numbers, the settings.

It turns results into values and short texts, and knows no HTML: escaping is the template's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from cluster import facts, gains, wording
from cluster.courses import Course
from cluster.results import Measured, Results, UserResult


@dataclass(frozen=True)
class Row:
    """One user as the page shows them; `course` only where the user is drawn in full."""

    user: UserResult
    drawn: bool
    course: Course | None

    @property
    def loss_change(self) -> float:
        """Winner less base, nats per token."""
        return self.user.winner.loss_nats - self.user.anchor.loss_nats

    @property
    def rouge_change(self) -> float | None:
        """Winner less base, in [-1, 1]."""
        base, winner = self.user.anchor.rouge_l, self.user.winner.rouge_l
        return None if base is None or winner is None else winner - base

    @property
    def recall(self) -> Mapping[str, facts.Shares]:
        """Facts recalled by kind; empty where the data has no facts."""
        return facts.shares([(self.user.anchor, self.user.winner)])


@dataclass(frozen=True)
class Card:
    """One number and what it is."""

    value: str
    says: str


def means(rows: Sequence[Row]) -> dict[str, float | None]:
    """Means over users; of ROUGE-L over those whose answers were scored."""
    users = [row.user for row in rows]
    return {
        "base_loss": _mean([user.anchor.loss_nats for user in users]),
        "loss": _mean([user.winner.loss_nats for user in users]),
        "loss_change": _mean([row.loss_change for row in rows]),
        "base_rouge": _mean([user.anchor.rouge_l for user in users]),
        "rouge": _mean([user.winner.rouge_l for user in users]),
        "rouge_change": _mean([row.rouge_change for row in rows]),
        "parameters": _mean([user.parameters for user in users]),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def cards(results: Results, rows: Sequence[Row]) -> list[Card]:
    """The few numbers that sum the run up."""
    mean = means(rows)
    memories = sum(user.kind == "milp" for user in results.users)
    return [
        Card(f"{memories} of {len(rows)}", "users got a memory; the others keep the base"),
        Card(
            f"{wording.loss(mean['base_loss'])} → {wording.loss(mean['loss'])}",
            "mean validation loss, nats per token: base → winner",
        ),
        Card(
            f"{wording.percent(mean['base_rouge'])} → {wording.percent(mean['rouge'])}",
            "mean ROUGE-L x100: base → winner",
        ),
        *_recall_card([(row.user.anchor, row.user.winner) for row in rows]),
        *_trials_card(rows, results.seconds.get("total")),
    ]


def _recall_card(measured: Sequence[tuple[Measured, Measured]]) -> list[Card]:
    every = facts.shares(measured).get("all")
    if every is None:
        return []
    value = f"{wording.percent(every.base)} → {wording.percent(every.winner)} %"
    return [Card(value, f"facts recalled: base → winner; chance {wording.percent(every.chance)} %")]


def _trials_card(rows: Sequence[Row], seconds: float | None) -> list[Card]:
    kept = [row.course for row in rows if row.course]
    if not kept:
        return []
    trials = sum(bool(trial.configuration.layers) for course in kept for trial in course.trials)
    of = f", of the {len(kept)} users drawn" if len(kept) < len(rows) else ""
    spent = "" if seconds is None else f"; {wording.duration(seconds)}"
    stopped, failed = (sum(c.stopped for c in kept), sum(c.failed for c in kept))
    early = f", {stopped} stopped early" if stopped else ""
    advised = sum(course.advised for course in kept)
    carried = f", {advised} begun from what was best for earlier users" if advised else ""
    says = f"trials completed{early}, {failed} failed{carried}{of}{spent}"
    return [Card(wording.count(trials), says)]


def settings(results: Results) -> dict[str, dict[str, object]]:
    """What the run resolved to, under headings."""
    experiment = dict(results.experiment)
    versions = experiment.pop("versions", {})
    if "storage" in experiment:
        experiment["storage"] = _without_password(str(experiment["storage"]))
    base = {
        "name": results.base.original,
        "searched on": results.base.name,
        "layers": results.base.layer_count,
        "fingerprint": results.base.fingerprint[:16],
    }
    parts: dict[str, dict[str, object]] = {
        "Base": base,
        "Population": _flat(results.population or {"learned": "nothing"}),
        "Settings": _flat(experiment),
        "Versions": dict(versions),
        "Time": _time(results),
    }
    return {heading: part for heading, part in parts.items() if part}


def _time(results: Results) -> dict[str, object]:
    """How long each part took, and how full the packs were."""
    spent: dict[str, object] = {n: wording.duration(s) for n, s in results.seconds.items()}
    if results.occupancy is not None:
        spent["places filled"] = f"{wording.percent(results.occupancy)} %, mean over steps"
    return spent


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Nested values under names joined by spaces."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        name = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            flat.update(_flat(value, prefix=f"{name} "))
        else:
            flat[name] = _shown(value)
    return flat


def _shown(value: object) -> object:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not given" if value is None else value


def _without_password(address: str) -> str:
    """A database's address without who may open it."""
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def personal_gain(results: Results, drawn: int) -> dict[str, object] | None:
    """The personal gain's rows and means; None where no memory was tried on a stranger.

    Args:
        results: the run.
        drawn: the most users that the figure shows.
    """
    if results.gain is None:
        return None
    users = {user.digest: user for user in results.users}
    rows = gains.personal_gains(results.gain, {d: u.anchor.loss_nats for d, u in users.items()})
    mean = gains.mean_gain(rows)
    if mean is None or mean.personal is None:
        return None
    own, others = gains.own_and_others(results.gain.recall or {})
    named = [(users[row.digest].user_id, row) for row in rows]
    return {"rows": named, "mean": mean, "recall": own, "others_recall": others, "drawn": drawn}
