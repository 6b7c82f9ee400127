"""The figures of a run's page, as plotly's own dictionaries.

They know no page and no study: a caller hands over plain numbers. plotly checks every figure here,
in Python; the page draws them in the browser, when they come into sight. Colours are names of CSS
variables (`var(--winner)`), so that one figure stands on light and on dark paper.

plotly reads a little HTML in its texts. So whatever a user chose (a user id) is escaped here;
all other texts are ours.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any, cast

import plotly.graph_objects as go

from cluster import wording
from cluster.courses import Course, Point, Trial
from search.space import MemoryConfig

Figure = dict[str, Any]
NAME_LENGTH = 24  # characters of a user id that fit on an axis
NAMED_ROWS = 60  # more users than that are rows without a name
NAMED_COLUMNS = 24


def front(course: Course) -> Figure:
    """Every trial on loss against ROUGE-L, the front as a line, base, winner, reference point."""
    rest = [t for t in course.trials if not t.on_front and t.configuration.layers]
    best = sorted((t for t in course.trials if t.on_front), key=lambda t: t.at)
    figure = go.Figure(
        [
            _marks(rest, "trial", color="var(--trial)", size=7, opacity=0.75),
            _marks(best, "front", color="var(--front)", size=9),
        ]
    )
    figure.data[1].update(mode="lines+markers", line={"color": "var(--front)", "shape": "hv"})
    figure.add_trace(
        _marks(
            [t for t in course.trials if not t.configuration.layers],
            "base (anchor)",
            color="var(--anchor)",
            size=12,
            symbol="diamond",
        )
    )
    winner = [t for t in course.trials if t.configuration == course.winner]
    figure.add_trace(_marks(winner, "winning trial", color="var(--winner)", size=16, symbol="star"))
    figure.add_trace(
        _single(course.published, "winner, trained in full", "star-open", "var(--winner)")
    )
    if course.reference is not None:
        figure.add_trace(
            _single(course.reference, "reference point", "x-thin-open", "var(--reference)")
        )
    figure.update_xaxes(title="validation loss, nats per token (less is better)")
    figure.update_yaxes(title="ROUGE-L x100 (more is better)")
    return _finish(figure, height=430, legend=True)


def hypervolume(values: Sequence[float]) -> Figure:
    """The hypervolume after each trial."""
    steps = list(range(len(values)))
    line = go.Scatter(
        x=steps,
        y=_rounded([100 * value for value in values]),
        mode="lines+markers",
        line={"color": "var(--front)", "shape": "hv", "width": 2},
        marker={"size": 4},
        hovertemplate="after trial %{x}: %{y}<extra></extra>",
    )
    figure = go.Figure(line)
    figure.update_xaxes(title="trial, in the order asked (0 is the base)")
    figure.update_yaxes(title="hypervolume, nats x ROUGE-L x100", rangemode="tozero")
    return _finish(figure, height=430)


def layers(names: Sequence[str], winners: Sequence[MemoryConfig], layer_count: int) -> Figure:
    """A row a user, a column a layer; the colour is the rank of the LoRA there, if there is one."""
    ranks = sorted({winner.rank for winner in winners if winner.layers})
    step = {rank: float(place) for place, rank in enumerate(ranks)}
    z = [
        [step[winner.rank] if layer in winner.layers else None for layer in range(layer_count)]
        for winner in winners
    ]
    chosen = go.Heatmap(
        z=z,
        customdata=[[winner.rank] * layer_count for winner in winners],
        colorscale=_steps(len(ranks)),
        zmin=-0.5,
        zmax=max(len(ranks), 1) - 0.5,
        showscale=bool(ranks),
        hovertemplate="%{y}<br>layer %{x}: rank %{customdata}<extra></extra>",
        colorbar=_bar("rank", list(step.values()), [str(rank) for rank in ranks]),
    )
    figure = go.Figure(chosen)
    figure.update_xaxes(title="layer", side="top", dtick=_every(layer_count), showgrid=False)
    return _rows(figure, names)


def layer_ranks(winners: Sequence[MemoryConfig], layer_count: int) -> Figure:
    """A row a rank, a column a layer: how many of the winners hold a LoRA of that rank there."""
    ranks = sorted({winner.rank for winner in winners if winner.layers})
    counts = [
        [sum(w.rank == rank and layer in w.layers for w in winners) for layer in range(layer_count)]
        for rank in ranks
    ]
    cells = go.Heatmap(
        z=[[count or None for count in row] for row in counts],
        colorscale=[[place / 9, f"var(--step-{place})"] for place in range(10)],
        zmin=0,
        zmax=max((count for row in counts for count in row), default=0) or 1,
        xgap=1,
        ygap=1,
        showscale=bool(ranks),
        hovertemplate="layer %{x}, rank %{customdata}: %{z} users<extra></extra>",
        customdata=[[rank] * layer_count for rank in ranks],
        colorbar=_bar("users"),
    )
    figure = go.Figure(cells)
    figure.update_xaxes(title="layer", dtick=_every(layer_count), showgrid=False)
    figure.update_yaxes(title="rank", showgrid=False, **_ticks([str(rank) for rank in ranks]))
    return _finish(figure, height=max(28 * len(ranks), 150) + 110)


def layer_counts(winners: Sequence[MemoryConfig], layer_count: int) -> Figure:
    """How many of the winners hold a LoRA in each layer."""
    counts = [sum(layer in winner.layers for winner in winners) for layer in range(layer_count)]
    bars = go.Bar(
        x=list(range(layer_count)),
        y=counts,
        marker={"color": "var(--front)"},
        hovertemplate="layer %{x}: %{y} users<extra></extra>",
    )
    figure = go.Figure(bars)
    figure.update_xaxes(title="layer", dtick=_every(layer_count), showgrid=False)
    figure.update_yaxes(title="users", rangemode="tozero")
    return _finish(figure, height=240)


def personal_gain(names: Sequence[str], change: Sequence[Sequence[float | None]]) -> Figure:
    """Memory i (row) on user j's words (column): change of loss against the base, in nats."""
    shown = [value for row in change for value in row if value is not None]
    limit = max((abs(value) for value in shown), default=0.0) or 1.0
    labels = [label(name) for name in names]
    cells = go.Heatmap(
        z=[_rounded(row) for row in change],
        customdata=[labels] * len(labels),
        zmin=-limit,
        zmax=limit,
        colorscale=[[0.0, "var(--better)"], [0.5, "var(--even)"], [1.0, "var(--worse)"]],
        hovertemplate="memory of %{y}<br>on words of %{customdata}<br>%{z:+.3f}<extra></extra>",
        colorbar=_bar("nats"),
    )
    figure = go.Figure(cells)
    if len(names) <= NAMED_COLUMNS // 2:
        figure.update_traces(texttemplate="%{z:+.3f}")
    frames = [_frame(i) for i in range(len(names))]
    figure.update_layout(shapes=frames)
    figure.update_xaxes(
        title="on the words of",
        side="top",
        showgrid=False,
        tickangle=-40,
        showticklabels=len(names) <= NAMED_COLUMNS,
        **_ticks(labels),
    )
    figure.update_yaxes(title="memory of")
    if len(names) <= NAMED_COLUMNS:
        return _rows(figure, names, row_height=34, head=190)
    return _rows(figure, names, row_height=18)


def attention(names: Sequence[str], shares: Sequence[Sequence[float]]) -> Figure:
    """A row an item, a column a slot: the slot's share of the attention, to an even share."""
    slots = len(shares[0])
    times = [[share * slots for share in row] for row in shares]
    cells = go.Heatmap(
        z=[_rounded(row) for row in times],
        colorscale=[[place / 9, f"var(--step-{place})"] for place in range(10)],
        zmin=0,
        zmax=max(max(row) for row in times),
        hovertemplate="%{y}<br>slot %{x}: x %{z:.2f}<extra></extra>",
        colorbar=_bar("x even"),
    )
    figure = go.Figure(cells)
    figure.update_xaxes(title="slot", side="top", dtick=_every(slots), showgrid=False)
    return _rows(figure, names)


def label(user_id: str) -> str:
    """A user id that fits on an axis and that plotly cannot read as anything but text."""
    return html.escape(wording.short(user_id, NAME_LENGTH))


def _marks(trials: Sequence[Trial], name: str, **marker: object) -> go.Scatter:
    return go.Scatter(
        x=_rounded([trial.at[0] for trial in trials]),
        y=_rounded([100 * trial.at[1] for trial in trials]),
        mode="markers",
        name=name,
        marker=marker,
        customdata=[wording.describe(trial.configuration) for trial in trials],
        hovertemplate="%{customdata}<br>loss %{x:.4f} · ROUGE-L %{y:.2f}",
    )


def _single(at: Point, name: str, symbol: str, color: str) -> go.Scatter:
    return go.Scatter(
        x=_rounded([at[0]]),
        y=_rounded([100 * at[1]]),
        mode="markers",
        name=name,
        marker={"symbol": symbol, "size": 14, "color": color, "line": {"width": 2, "color": color}},
        hovertemplate="loss %{x:.4f} · ROUGE-L %{y:.2f}",
    )


def _rows(figure: go.Figure, names: Sequence[str], row_height: int = 22, head: int = 110) -> Figure:
    """The users as rows from top to bottom, named where the names fit."""
    fits = len(names) <= NAMED_ROWS
    height = max(row_height * len(names), 110) if fits else 720
    figure.update_traces(xgap=1, ygap=1 if fits else 0)
    figure.update_yaxes(
        autorange="reversed",
        showgrid=False,
        showticklabels=fits,
        **_ticks([label(name) for name in names]),
    )
    return _finish(figure, height=height + head)


def _every(layer_count: int) -> int:
    """One layer in so many is numbered."""
    return max(1, math.ceil(layer_count / 40))


def _ticks(labels: Sequence[str]) -> dict[str, object]:
    return {"tickvals": list(range(len(labels))), "ticktext": list(labels)}


def _steps(count: int) -> list[list[float | str]]:
    """A colour scale of `count` even steps between two ends."""
    if count <= 1:
        return [[0.0, "var(--high)"], [1.0, "var(--high)"]]
    return [
        [end, f"var(--step-{round(9 * place / (count - 1))})"]
        for place in range(count)
        for end in (place / count, (place + 1) / count)
    ]


def _frame(i: int) -> dict[str, object]:
    """A frame around a cell of the diagonal."""
    low, high = i - 0.5, i + 0.5
    line = {"color": "var(--ink)", "width": 2}
    return {"type": "rect", "x0": low, "x1": high, "y0": low, "y1": high, "line": line}


def _bar(title: str, at: Sequence[float] = (), text: Sequence[str] = ()) -> dict[str, Any]:
    """A colour bar at the top right; ticks of its own where no places are given."""
    ticks = {"tickvals": list(at), "ticktext": list(text)} if at else {}
    place = {"thickness": 12, "lenmode": "pixels", "len": 150, "y": 1, "yanchor": "top"}
    return {"title": {"text": title}, "outlinewidth": 0, **place, **ticks}


def _finish(figure: go.Figure, height: int, legend: bool = False) -> Figure:
    figure.update_layout(
        template="none",
        height=height,
        showlegend=legend,
        margin={"l": 64, "r": 24, "t": 24, "b": 56},
        legend={"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0},
    )
    figure.update_xaxes(automargin=True, zeroline=False)
    figure.update_yaxes(automargin=True, zeroline=False)
    return cast(Figure, figure.to_plotly_json())


def _rounded(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else round(value, 5) for value in values]
