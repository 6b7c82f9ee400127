"""A comparison as tables: in Markdown for a file or a README, and for a terminal.

Both show the same: means of every model, differences with their intervals, and every user. Ids of
users are data: what could be read as markup in either is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster import wording
from cluster.comparison import METRICS, MODELS, Compared, Comparison, Contrast, Metric, chance

METRIC = {metric.name: metric for metric in METRICS}
_NAME_LENGTH = 40
_OF_ANSWERS = ("ROUGE-L", "recall, all")  # shown for every user


@dataclass(frozen=True)
class Grid:
    """One table: a title, headings, and rows of texts. The first column is of names."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def markdown(comparison: Comparison) -> str:
    """The comparison as a Markdown document."""
    parts = ["# Comparison on test words", *introduction(comparison)]
    for grid in grids(comparison):
        parts += [f"## {grid.title}", _pipes(grid)]
    return "\n\n".join(parts) + "\n"


def show(comparison: Comparison, console: Console) -> None:
    """Prints the comparison."""
    for paragraph in introduction(comparison):
        console.print(Text(paragraph.replace("`", "")))
    for grid in grids(comparison):
        table = Table(title=grid.title, title_justify="left", box=box.SIMPLE_HEAD)
        for place, heading in enumerate(grid.headings):
            table.add_column(heading, justify="left" if place == 0 else "right")
        for row in grid.rows:
            table.add_row(*map(Text, row))
        console.print(table)


def introduction(comparison: Comparison) -> list[str]:
    """What was compared, on whom, and how to read it."""
    headline, users = comparison.headline, comparison.users
    split = sum(user.by_session for user in users)
    who = f"{len(users)} users, {split} of them split between sessions"
    if split and split < len(users):
        who += "; the headline is on those, the others are marked *"
    elif not split:
        who += ": training and test words of all may share a conversation"
    return [
        f"Data `{_quoted(comparison.data)}`, base `{_quoted(comparison.original)}`. {who}. "
        f"{sum(user.items for user in headline)} test items; {comparison.strangers} strangers' "
        f"memories a user at most; seed {comparison.seed}.",
        "Loss in nats per token (less is better); ROUGE, Persona-F1 and recall x100 (more is "
        "better). Differences are taken within a user; in brackets 95 % bootstrap intervals over "
        "users.",
    ]


def grids(comparison: Comparison) -> list[Grid]:
    """All tables."""
    headline, users = comparison.headline, comparison.users
    of = f"{len(headline)} users"
    tables = [
        _means(comparison, headline, f"Means over {of}"),
        _contrasts(comparison.contrasts(headline), f"Differences over {of}"),
    ]
    if len(headline) < len(users):
        everybody = f"all {len(users)} users, those not split between sessions too"
        tables.append(_contrasts(comparison.contrasts(users), f"Differences over {everybody}"))
    if comparison.anchors:
        rows = [
            (name, wording.percent(f1), f"{cover:.2f}")
            for name, (f1, cover) in comparison.anchors.items()
        ]
        title = "What Persona-F1 and P-Cover are to be read against"
        tables.append(Grid(title, ("answer", "Persona-F1", "P-Cover"), tuple(rows)))
    tables += [_losses(users), _answers(users)]
    if comparison.withdrawn:
        names = tuple((_plain(name),) for name in comparison.withdrawn)
        tables.append(Grid("Left out: nothing is published for them any more", ("user",), names))
    return tables


def _means(comparison: Comparison, users: Sequence[Compared], title: str) -> Grid:
    by_chance = {f"recall, {kind}": count for kind, count in chance(users).items()}
    means = comparison.means(users)
    models = [model for model in MODELS if any(model in row for row in means.values())]
    rows = []
    for name, row in means.items():
        metric, count = METRIC[name], by_chance.get(name)
        values = [_number(metric, row.get(model)) for model in models]
        share = None if count is None else count.chance_sum / count.asked
        rows.append((name, *values, "" if share is None else wording.percent(share)))
    return _without_empty(Grid(title, ("", *models, "chance"), tuple(rows)))


def _contrasts(contrasts: Sequence[Contrast], title: str) -> Grid:
    rows = [
        (
            f"{each.of} - {each.to}: {each.metric}",
            _signed(METRIC[each.metric], each.mean),
            _interval(each),
            f"{each.better} of {each.users}",
            _signed(METRIC[each.metric], each.worst),
        )
        for each in contrasts
    ]
    return Grid(title, ("difference", "mean", "95 %", "better for", "worst"), tuple(rows))


def _losses(users: Sequence[Compared]) -> Grid:
    loss = METRIC["loss"]
    rows = [
        (
            _named(user),
            str(user.items),
            *(_number(loss, user.value(loss, model)) for model in MODELS),
            _signed(loss, user.difference(loss, "own", "base")),
            _signed(loss, user.difference(loss, "own", "strangers")),
        )
        for user in users
    ]
    headings = ("user", "items", *MODELS, "own - base", "own - strangers")
    return _without_empty(Grid("Every user: loss", headings, tuple(rows)))


def _answers(users: Sequence[Compared]) -> Grid:
    columns = [(METRIC[name], model) for name in _OF_ANSWERS for model in MODELS[1:]]
    rows = [
        (
            _named(user),
            str(user.answered),
            *(_number(metric, user.value(metric, model)) for metric, model in columns),
        )
        for user in users
    ]
    headings = ("user", "answered", *(f"{metric.name}, {model}" for metric, model in columns))
    return _without_empty(Grid("Every user: answers", headings, tuple(rows)))


def _named(user: Compared) -> str:
    return _plain(user.user_id) + ("" if user.by_session else " *")


def _without_empty(grid: Grid) -> Grid:
    """The columns in which some row says something."""
    keep = [
        place
        for place in range(len(grid.headings))
        if any(row[place] not in ("", wording.NOTHING) for row in grid.rows)
    ]
    rows = tuple(tuple(row[place] for place in keep) for row in grid.rows)
    return Grid(grid.title, tuple(grid.headings[place] for place in keep), rows)


def _number(metric: Metric, value: float | None) -> str:
    if value is None:
        return wording.NOTHING
    return wording.percent(value) if metric.fraction else wording.loss(value)


def _signed(metric: Metric, value: float | None) -> str:
    return wording.change(value, "percent" if metric.fraction else "loss")


def _interval(contrast: Contrast) -> str:
    """ "[-0.041, -0.012]", or nothing for a single user."""
    if contrast.low is None or contrast.high is None:
        return wording.NOTHING
    metric = METRIC[contrast.metric]
    return f"[{_signed(metric, contrast.low)}, {_signed(metric, contrast.high)}]"


def _plain(text: str) -> str:
    return wording.short(text, _NAME_LENGTH)


def _quoted(text: str) -> str:
    return wording.short(text, 200).replace("`", "'")


def _pipes(grid: Grid) -> str:
    """The table in Markdown."""
    lines = [
        grid.headings,
        ("---", *("---:" for _ in grid.headings[1:])),
        *map(_escaped, grid.rows),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _escaped(row: tuple[str, ...]) -> tuple[str, ...]:
    """A user id is no markup: every sign that Markdown or HTML might read is escaped."""
    return (re.sub(r"([\\`*_{}\[\]<>|#&~])", r"\\\1", row[0]), *row[1:])
