"""A standing as tables, in Markdown and for a terminal, and as JSON.

What was compared, on whom and how stands first, in the words that the numbers may be told with.
Nobody is named in any of them: users stand in the JSON by their digests.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.text import Text

from cluster import wording
from cluster.comparison import Metric, Printed
from cluster.comparison_text import number, signed
from cluster.entrant import MAIN
from cluster.grid import Grid
from cluster.pooled import PooledMetric
from cluster.standing import TIE, Cost, Difference, Row, Standing
from models.encoder import BASE

_OWN_TITLE = (
    "What a user with a state costs: parameters trained and stored, bytes of all files, tokens a "
    "request beyond the query's, speeds to the base's, seconds of one training and of all tuning "
    "on the machine that did it"
)
_OPTIONS = (
    "Of an item's options the likeliest is picked: by its whole likelihood where all items have "
    "the same, which are labels then, else by its mean per token. Accuracy and F1 x100 (more is "
    "better), MAE and RMSE in steps of the rating (less is better). F1, over labels alike, and "
    "RMSE are of all users' items at once; their intervals are percentiles over users drawn anew, "
    "their wins by each user's own items."
)
_LOST_TITLE = (
    "What users' texts lost on their way into states, first seed, added over users with a state: "
    "the oldest beyond a prompt's budget, the context or an epoch's limit; line breaks"
)
_SHARED_TITLE = "What is shared costs once, apart from any user: for a configuration and a seed"

Column = tuple[str, Callable[[Cost], str]]

_OWN: tuple[Column, ...] = (
    ("trained", lambda cost: wording.count(cost.trained_parameters)),
    ("stored", lambda cost: wording.count(cost.stored_parameters)),
    ("bytes", lambda cost: wording.count(cost.stored_bytes)),
    ("tokens", lambda cost: _decimal(cost.extra_tokens, 1)),
    ("first token", lambda cost: _times(cost.first_token)),
    ("tokens/s", lambda cost: _times(cost.tokens_per_second)),
    ("training s", lambda cost: _decimal(cost.train_seconds, 2)),
    ("tuning s", lambda cost: _decimal(cost.tuning_seconds, 2)),
)
_SHARED: tuple[Column, ...] = (
    ("learned", lambda cost: str(cost.shared_times)),
    ("seconds each", lambda cost: _decimal(cost.shared_seconds, 1)),
    ("parameters", lambda cost: wording.count(cost.shared_parameters)),
    ("bytes", lambda cost: wording.count(cost.shared_bytes)),
)


def as_json(standing: Standing) -> str:
    """Everything: settings, values of every user, costs, and differences to the reference."""
    differences = {
        row.label: {
            metric.name: asdict(found)
            for metric in standing.metrics
            if (found := standing.difference(row, metric)) is not None
        }
        for row in standing.rows
    }
    content = {**asdict(standing), "tie": TIE, "differences": differences}
    return json.dumps(content, indent=1, allow_nan=False)


def markdown(standing: Standing) -> str:
    """The standing as a Markdown document."""
    parts = ["# Methods compared on test words", *introduction(standing)]
    for grid in grids(standing):
        parts += [f"## {grid.title}", grid.pipes()]
    return "\n\n".join(parts) + "\n"


def show(standing: Standing, console: Console) -> None:
    """Prints the standing."""
    for paragraph in introduction(standing):
        console.print(Text(paragraph.replace("`", "")))
    for grid in grids(standing):
        console.print(grid.table())


def introduction(standing: Standing) -> list[str]:
    """What was compared, on whom, and how to read it."""
    s, report = standing.settings, standing.population
    merged = "as it was given, nothing learned from other users"
    if report is not None:
        merged = (
            f"with what {report['users']} other users share ({report['interactions']} of their "
            "interactions, in sessions that no compared user's later words come from) merged in, "
            "for all methods alike"
        )
    if (encoder := s.get("encoder", BASE)) != BASE:
        merged += f"; texts as vectors by `{_quoted(encoder)}`"
    seeds = "one seed" if s["seeds"] == 1 else f"{s['seeds']} seeds"
    commits = ", ".join(commit[:12] for commit in standing.commits) or "unknown"
    return [
        f"Data `{_quoted(s['data'])}`, base `{_quoted(s['base'])}`, {merged}. {s['users']} users, "
        f"drawn by seed {s['seed']} from those with {s['min_items']} items or more whose history "
        f"can be split between sessions; {_items(standing)}; {seeds}; commit {commits}. "
        f"{wording.duration(standing.cpu_seconds)} of processor time.",
        f"Every method was tuned with {s['trials']} trials a user of its own space (fewer where it "
        "holds fewer), on one seed, by validation loss; where no trial was better than the base, "
        "the user is answered by the base, under every method alike, and so where the final "
        "training is no better on validation words. A LoRA is kept at the strength that these "
        "words are sure of, as a search publishes it. "
        "What users share, where a method has such a part, is chosen for all of them together. "
        f"A user's training reads as many tokens under every method as {MAIN}'s, which is at most "
        f"{s['injection_epochs']} + {s['tuning_epochs']} epochs of {s['epoch_tokens']} tokens, a "
        "whole number of times more where that makes fewer than 20 steps; "
        "`oppu` keeps its own fixed epochs. The test part was read once, after all choices. "
        f"The main method, {MAIN}, learns from no other user's trials here.",
        "Loss in nats per token (less is better); ROUGE, Persona-F1 and recall x100 (more is "
        "better). A user's value is the mean over seeds; differences are taken within users, in "
        f"brackets are 95 % bootstrap intervals over users. A tie is a difference of {TIE} "
        f"(x100: {100 * TIE:.2f}) or less. Differences are to `{standing.reference}`.",
        *([_OPTIONS] if standing.with_options else []),
    ]


def _items(standing: Standing) -> str:
    """How many test items there are, and what is done with them."""
    items, picked, most = standing.items, standing.with_options, standing.settings["items"]
    if picked == items:
        return f"{items} test items, all with options to pick from"
    said = f"of which each user answers {most} at most"
    if picked:
        said = f"{picked} of them with options to pick from, the others answered, {most} a user"
    return f"{items} test items, {said}"


def grids(standing: Standing) -> list[Grid]:
    """All tables."""
    tables = [_means(standing), *(_differences(standing, m) for m in standing.metrics)]
    if standing.win_rates:
        tables.append(_verdicts(standing))
    entrants = [row for row in standing.rows if row.trials]
    tables += [_efforts(entrants), _costs(entrants, _OWN, _OWN_TITLE)]
    if sharing := [row for row in entrants if row.cost.shared_times]:
        tables.append(_costs(sharing, _SHARED, _SHARED_TITLE))
    if losing := [row for row in entrants if row.lost]:
        tables.append(_losses(losing))
    if standing.anchors:
        rows = [
            (name, wording.percent(f1), f"{cover:.2f}")
            for name, (f1, cover) in standing.anchors.items()
        ]
        title = "What Persona-F1 and P-Cover are to be read against"
        tables.append(Grid(title, ("answer", "Persona-F1", "P-Cover"), tuple(rows)))
    if standing.left_out:
        reasons = tuple(standing.left_out.items())
        tables.append(Grid("Left out", ("method", "why"), reasons))
    return tables


def _means(standing: Standing) -> Grid:
    metrics = standing.metrics
    rows = [(row.label, *(number(m, row.mean(m)) for m in metrics)) for row in standing.rows]
    by_chance = {f"recall, {kind}": share for kind, share in standing.chance.items()}
    if standing.guessing is not None:
        by_chance["accuracy"] = standing.guessing
    if by_chance:
        rows.append(("chance", *(wording.percent(by_chance.get(m.name)) for m in metrics)))
    return Grid("Means over users", ("method", *(m.name for m in metrics)), tuple(rows))


def _differences(standing: Standing, metric: Metric | PooledMetric) -> Grid:
    rows = [
        (row.label, *_told(metric, standing.difference(row, metric)))
        for row in standing.rows
        if row.label != standing.reference
    ]
    better = "less" if metric.less_is_better else "more"
    title = f"{metric.name} less that of {standing.reference}, {better} is better"
    return Grid(title, ("method", "mean", "95 %", "wins", "ties", "losses"), tuple(rows))


def _verdicts(standing: Standing) -> Grid:
    rows = [
        (
            label,
            wording.percent(found.rate),
            f"[{wording.percent(found.low)}, {wording.percent(found.high)}]",
            *map(str, (found.wins, found.ties, found.losses, found.contradictions)),
            f"{found.unreadable} of {found.replies}",
        )
        for label, found in standing.win_rates.items()
    ]
    headings = (
        "method",
        "win rate",
        "95 %",
        "wins",
        "ties",
        "losses",
        "contradicted",
        "unreadable",
    )
    title = f"By a judge against {standing.reference}, first seed; 50 is even"
    return Grid(title, headings, tuple(rows))


def _told(metric: Printed, found: Difference | None) -> tuple[str, ...]:
    if found is None:
        return (wording.NOTHING,) * 5
    interval = wording.NOTHING
    if found.low is not None and found.high is not None:
        interval = f"[{signed(metric, found.low)}, {signed(metric, found.high)}]"
    counts = (found.wins, found.ties, found.losses)
    return (signed(metric, found.mean), interval, *map(str, counts))


def _efforts(entrants: Sequence[Row]) -> Grid:
    rows = [
        (
            r.label,
            str(r.trials),
            *map(_gain, (r.promised, r.kept)),
            *map(str, (r.on_base, r.no_gain, r.failed, r.failed_trials)),
        )
        for r in entrants
    ]
    headings = (
        "method",
        "trials",
        "promised",
        "kept",
        "users on the base",
        "no gain",
        "failed",
        "failed trials",
    )
    title = (
        "Trials a user; nats per token over the base that the best of them promised on validation "
        "words, and that final trainings kept on test words; users for whom none was better than "
        "the base; final trainings that were no gain on validation words after all, and that failed"
    )
    return Grid(title, headings, tuple(rows))


def _gain(nats: float | None) -> str:
    return wording.NOTHING if nats is None else f"{round(nats, 3) + 0:+.3f}"  # never -0.000


def _costs(entrants: Sequence[Row], columns: Sequence[Column], title: str) -> Grid:
    """One row for each entrant."""
    rows = [(row.label, *(tell(row.cost) for _, tell in columns)) for row in entrants]
    return Grid(title, ("method", *(name for name, _ in columns)), tuple(rows))


def _losses(rows: Sequence[Row]) -> Grid:
    names = sorted({name for row in rows for name in row.lost})
    told = tuple((r.label, *(wording.count(r.lost.get(name, 0)) for name in names)) for r in rows)
    return Grid(_LOST_TITLE, ("method", *(name.replace("_", " ") for name in names)), told)


def _times(value: float | None) -> str:
    return wording.NOTHING if value is None else f"x {value:.2f}"


def _decimal(value: float | None, digits: int) -> str:
    return wording.NOTHING if value is None else f"{value:.{digits}f}"


def _quoted(text: str) -> str:
    return wording.short(text, 200).replace("`", "'")
