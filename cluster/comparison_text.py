"""A comparison as tables: in Markdown for a file or a README, and for a terminal.

Both show the same: means of every model, differences with their intervals, and every user.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from cluster import wording
from cluster.comparison import METRICS, MODELS, Compared, Comparison, Contrast, Printed, chance
from cluster.grid import Grid
from cluster.pooled import POOLED

_EVERY: tuple[Printed, ...] = (*METRICS, *POOLED)
METRIC = {metric.name: metric for metric in _EVERY}
_NAME_LENGTH = 40
_OF_ANSWERS = [metric for metric in METRICS if metric.name in ("ROUGE-L", "recall, all")]


def markdown(comparison: Comparison) -> str:
    """The comparison as a Markdown document."""
    parts = ["# Comparison on test words", *introduction(comparison)]
    for grid in grids(comparison):
        parts += [f"## {grid.title}", grid.pipes()]
    return "\n\n".join(parts) + "\n"


def show(comparison: Comparison, console: Console) -> None:
    """Prints the comparison."""
    for paragraph in introduction(comparison):
        console.print(Text(paragraph.replace("`", "")))
    for grid in grids(comparison):
        console.print(grid.table())


def introduction(comparison: Comparison) -> list[str]:
    """What was compared, on whom, and how to read it."""
    headline, users = comparison.headline, comparison.users
    split = sum(user.by_session for user in users)
    drawn = f" drawn from {comparison.drawn_from}" if comparison.drawn_from else ""
    who = f"{len(users)} users{drawn}, {split} of them split between sessions"
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
    by_chance = {f"recall, {kind}": share for kind, share in chance(users).items()}
    means = comparison.means(users)
    models = [model for model in MODELS if any(model in row for row in means.values())]
    rows = []
    for name, row in means.items():
        metric, share = METRIC[name], by_chance.get(name)
        values = [number(metric, row.get(model)) for model in models]
        rows.append((name, *values, "" if share is None else wording.percent(share)))
    return Grid(title, ("", *models, "chance"), tuple(rows)).without_empty()


def _contrasts(contrasts: Sequence[Contrast], title: str) -> Grid:
    rows = [
        (
            f"{each.of} - {each.to}: {each.metric}",
            signed(METRIC[each.metric], each.mean),
            _interval(each),
            f"{each.better} of {each.users}",
            signed(METRIC[each.metric], each.worst),
        )
        for each in contrasts
    ]
    return Grid(title, ("difference", "mean", "95 %", "better for", "worst"), tuple(rows))


def _losses(users: Sequence[Compared]) -> Grid:
    loss = METRICS[0]
    rows = [
        (
            _named(user),
            str(user.items),
            *(number(loss, user.value(loss, model)) for model in MODELS),
            signed(loss, user.difference(loss, "own", "base")),
            signed(loss, user.difference(loss, "own", "strangers")),
        )
        for user in users
    ]
    headings = ("user", "items", *MODELS, "own - base", "own - strangers")
    return Grid("Every user: loss", headings, tuple(rows)).without_empty()


def _answers(users: Sequence[Compared]) -> Grid:
    columns = [(metric, model) for metric in _OF_ANSWERS for model in MODELS[1:]]
    rows = [
        (
            _named(user),
            str(user.answered),
            *(number(metric, user.value(metric, model)) for metric, model in columns),
        )
        for user in users
    ]
    headings = ("user", "answered", *(f"{metric.name}, {model}" for metric, model in columns))
    return Grid("Every user: answers", headings, tuple(rows)).without_empty()


def _named(user: Compared) -> str:
    return _plain(user.user_id) + ("" if user.by_session else " *")


def number(metric: Printed, value: float | None) -> str:
    """A metric's value as it is printed."""
    if value is None:
        return wording.NOTHING
    return wording.percent(value) if metric.fraction else wording.loss(value)


def signed(metric: Printed, value: float | None) -> str:
    """A difference of a metric as it is printed."""
    return wording.change(value, "percent" if metric.fraction else "loss")


def _interval(contrast: Contrast) -> str:
    """ "[-0.041, -0.012]", or nothing for a single user."""
    if contrast.low is None or contrast.high is None:
        return wording.NOTHING
    metric = METRIC[contrast.metric]
    return f"[{signed(metric, contrast.low)}, {signed(metric, contrast.high)}]"


def _plain(text: str) -> str:
    return wording.short(text, _NAME_LENGTH)


def _quoted(text: str) -> str:
    return wording.short(text, 200).replace("`", "'")
