"""Table and plots of memories against history length: means over users, with intervals.

Differences to the base are taken within a user; intervals are 95 % bootstrap intervals over users.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks.drawing import Line, drawing
from cluster import wording
from models.gain import paired_interval

SHARES = (0.25, 0.5, 0.75, 1.0)
NAMES = [f"{share:.0%}" for share in SHARES]
BASE = "base"


@dataclass(frozen=True)
class Measurement:
    """One user under one method that read `read` interactions; the base has read none."""

    user: int
    method: str
    share: float
    read: int
    loss_nats: float
    rouge_l: float
    recall: float | None


def table(found: Sequence[Measurement], seed: int) -> str:
    """A row for each method and share, in Markdown."""
    users = len({each.user for each in found})
    headings = ("method", "history", "interactions", "loss", "less base's", "ROUGE-L", "recall")
    lines = [
        f"# Test words of {users} users against the length of the history",
        "",
        _line(headings),
        _line(["---", *("---:" for _ in headings[1:])]),
        _line([BASE, "", "", *_means(_of(found, BASE, 0.0))]),
    ]
    for method in _methods(found):
        for share in SHARES:
            rows = _of(found, method, share)
            read = f"{fmean(row.read for row in rows):.0f}"
            cells = _means(rows)
            cells[1] = _interval(changes(found, method, share), seed)
            lines.append(_line([method, f"{share:.0%}", read, *cells]))
    return "\n".join(lines) + "\n"


def figures(found: Sequence[Measurement], seed: int) -> dict[str, str]:
    """SVGs by name: the change of loss against the base, and recall where there are facts."""
    losses = [_loss_line(found, method, seed) for method in _methods(found)]
    none = Line(BASE, [0.0] * len(SHARES))
    title = "newest part of the training history"
    drawn = {
        "loss": drawing(
            "test loss less the base's, nats per token", title, [none, *losses],
            _scale([none, *losses]), NAMES,
        )
    }  # fmt: skip
    if any(each.recall is not None for each in found):
        base = _recall(_of(found, BASE, 0.0)) or 0.0
        recalls = [
            Line(method, [_recall(_of(found, method, share)) or 0.0 for share in SHARES])
            for method in _methods(found)
        ]
        lines = [Line(BASE, [base] * len(SHARES)), *recalls]
        drawn["recall"] = drawing("share of facts recalled", title, lines, names=NAMES)
    return drawn


def changes(found: Sequence[Measurement], method: str, share: float) -> list[float]:
    """Each user's loss less the base's."""
    base = {each.user: each.loss_nats for each in _of(found, BASE, 0.0)}
    return [each.loss_nats - base[each.user] for each in _of(found, method, share)]


def _loss_line(found: Sequence[Measurement], method: str, seed: int) -> Line:
    intervals = [paired_interval(changes(found, method, share), seed) for share in SHARES]
    means = [each.mean for each in intervals]
    if math.isnan(intervals[0].low):  # a single user
        return Line(method, means)
    return Line(method, means, [each.low for each in intervals], [each.high for each in intervals])


def _scale(lines: Sequence[Line]) -> tuple[float, float]:
    """What all lines and their bands fit into, with a little room."""
    values = [
        value for line in lines for part in (line.values, line.low, line.high) for value in part
    ]
    room = 0.05 * (max(values) - min(values)) or 0.01
    return min(values) - room, max(values) + room


def _methods(found: Sequence[Measurement]) -> list[str]:
    return list(dict.fromkeys(each.method for each in found if each.method != BASE))


def _of(found: Sequence[Measurement], method: str, share: float) -> list[Measurement]:
    return [each for each in found if (each.method, each.share) == (method, share)]


def _means(rows: Sequence[Measurement]) -> list[str]:
    loss, rouge = fmean(row.loss_nats for row in rows), fmean(row.rouge_l for row in rows)
    return [wording.loss(loss), "", wording.percent(rouge), wording.percent(_recall(rows))]


def _recall(rows: Sequence[Measurement]) -> float | None:
    known = [row.recall for row in rows if row.recall is not None]
    return fmean(known) if known else None


def _interval(values: Sequence[float], seed: int) -> str:
    found = paired_interval(values, seed)
    if math.isnan(found.low):
        return f"{found.mean:+.3f}"
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
