"""From the outcomes of a comparison's units to its standing: who gets which value.

It knows no Ray and no model. A user without a state of a row, whether the base was best or the
training failed, has the base's own values there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from cluster.comparison import METRICS
from cluster.entrant import Entrant
from cluster.facts import chance_of_users
from cluster.folder import RunFolder
from cluster.pooled import POOLED, Counts, mean_counts
from cluster.results import Measured
from cluster.standing import Cost, Row, Standing, Values
from cluster.terms import Terms
from cluster.tuning import Best, chosen, refusal
from cluster.unit import BASE, ORIGINAL, Unit, Units, told

Content = Mapping[str, Any]

_LOSS = METRICS[0]


def standing_of(
    terms: Terms,
    run: Path,
    entrants: Sequence[Entrant],
    reference: str,
    broken: Mapping[str, str],
) -> Standing:
    """The standing of a comparison all of whose units are done, but for those of broken entrants.

    Args:
        terms: the comparison's.
        run: its folder.
        entrants: its rows.
        reference: the label of the row that differences are taken to.
        broken: entrants that broke off, and why.

    Raises:
        ValueError: the reference has no row.
    """
    units, folder = Units(run), RunFolder(run)
    base = units.read(Unit("untrained", BASE))
    left_out = {label: f"broke off: {why}" for label, why in broken.items()}
    rows = []
    if (unit := Unit("untrained", ORIGINAL)) in units:
        seeds = [measured_of(units.read(unit)["users"])]
        rows.append(Row(ORIGINAL, values_of(seeds), counts=counts_of(seeds)))
    for entrant in entrants:
        trials = told(units, entrant.label)
        if entrant.label in broken:
            continue
        if (why := refusal(trials)) is not None:
            left_out[entrant.label] = why
            continue
        rows.append(_row(terms, units, entrant, base, trials))
    if reference in left_out:
        raise ValueError(
            f"--reference: {reference} was left out ({left_out[reference]}); what was done is "
            "kept, give another one"
        )
    bare = measured_of(base["users"])
    report = folder.population / "report.json"
    return Standing(
        reference=reference,
        rows=tuple(rows),
        left_out=left_out,
        anchors=base["anchors"],
        chance=chance_of_users([own.recall for own in bare.values()]),
        guessing=_mean(own.chosen.chance for own in bare.values() if own.chosen),
        with_options=sum(own.get("with_options", 0) for own in base["users"].values()),
        settings={**folder.stored(), **terms.to_json()},
        population=json.loads(report.read_text(encoding="utf-8")) if report.is_file() else None,
        commits=tuple(sorted({each["commit"] for each in units.every() if each.get("commit")})),
        items=sum(own["items"] for own in base["users"].values()),
        cpu_seconds=sum(each["cpu_seconds"] for each in units.every() if "commit" in each),
    )


def measured_of(users: Mapping[str, Content]) -> dict[str, Measured]:
    """The users who were measured."""
    return {
        digest: Measured.from_json(own["measured"])
        for digest, own in users.items()
        if "measured" in own
    }


def values_of(seeds: Sequence[Mapping[str, Measured]]) -> dict[str, Values]:
    """By metric and user, the mean over seeds of what every seed measured."""
    table = {}
    for metric in METRICS:
        values = {user: [metric.read(seed[user]) for seed in seeds] for user in seeds[0]}
        table[metric.name] = {
            user: fmean(known)
            for user, found in values.items()
            if len(known := [value for value in found if value is not None]) == len(found)
        }
    return {name: values for name, values in table.items() if values}


def counts_of(seeds: Sequence[Mapping[str, Measured]]) -> dict[str, Mapping[str, Counts]]:
    """By pooled metric and user, what it is taken of."""
    table = {metric.name: mean_counts(seeds, metric) for metric in POOLED}
    return {name: counts for name, counts in table.items() if counts}


def _row(
    terms: Terms, units: Units, entrant: Entrant, base: Content, trials: Sequence[Content]
) -> Row:
    bare = measured_of(base["users"])
    finals = [units.read(Unit("final", entrant.label, n)) for n in range(terms.seeds)]
    seeds = [{**bare, **measured_of(final["users"])} for final in finals]
    best, values = chosen(units, entrant), values_of(seeds)
    losses = values.get(_LOSS.name, {})
    return Row(
        label=entrant.label,
        values=values,
        counts=counts_of(seeds),
        cost=_cost(terms, units, entrant, finals, trials),
        trials=len(trials),
        on_base=sum(one is None for one in best.values()),
        no_gain=sum("no_gain" in own for final in finals for own in final["users"].values()),
        failed=sum("failed" in own for final in finals for own in final["users"].values()),
        failed_trials=sum(
            own["loss_nats"] is None for trial in trials for own in trial["users"].values()
        ),
        promised=_promised(units.read(Unit("bare")), best, trials),
        kept=_mean(bare[user].loss_nats - loss for user, loss in losses.items()),
        lost=_lost(finals[0]["users"].values()),
    )


def _promised(
    bare: Content, best: Mapping[str, Best | None], trials: Sequence[Content]
) -> float | None:
    """How much less the validation loss of a user's best trial is than the base's, on average."""
    return _mean(
        bare["users"][user]["loss_nats"] - trials[one.number]["users"][user]["loss_nats"]
        if one
        else 0.0
        for user, one in best.items()
    )


def _lost(users: Iterable[Content]) -> dict[str, int]:
    """Added over users; outcomes of before this was kept say nothing."""
    found: Counter[str] = Counter()
    for own in users:
        found.update(own.get("lost", {}))
    return dict(sorted(found.items()))


def _cost(
    terms: Terms,
    units: Units,
    entrant: Entrant,
    finals: Sequence[Content],
    trials: Sequence[Content],
) -> Cost:
    users = [own for final in finals for own in final["users"].values() if "measured" in own]
    first = {d for d, own in finals[0]["users"].items() if "measured" in own}
    trained = sum(final["trained"] for final in finals)
    first_token, tokens_per_second = finals[0]["pace"] or (None, None)
    shared = [
        content
        for content in units.every()
        if content["unit"]["kind"] == "shared" and content["unit"]["entrant"] == entrant.method
    ]
    return Cost(
        trained_parameters=_mean(own["trained_parameters"] for own in users),
        stored_parameters=_mean(own["stored_parameters"] for own in users),
        stored_bytes=_mean(finals[0]["stored_bytes"][digest] for digest in sorted(first)),
        extra_tokens=_mean(own["extra_tokens"] for own in users),
        first_token=first_token,
        tokens_per_second=tokens_per_second,
        train_seconds=sum(f["train_seconds"] for f in finals) / trained if trained else None,
        tuning_seconds=sum(trial["train_seconds"] for trial in trials) / terms.users,
        shared_times=len(shared),
        shared_seconds=_mean(each["seconds"] for each in shared),
        shared_parameters=_mean(each["parameters"] for each in shared),
        shared_bytes=_mean(each["stored_bytes"] for each in shared),
    )


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return fmean(known) if known else None
