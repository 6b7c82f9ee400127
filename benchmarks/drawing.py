"""Lines with bands as an SVG, which needs no script and no network to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 860, 460
LEFT, RIGHT, TOP, BOTTOM = 60, 170, 40, 50  # margins; the legend stands in the right one
COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#7f7f7f", "#111111",
           "#bcbd22", "#8c564b", "#e377c2")  # fmt: skip
TICKS = 5


@dataclass(frozen=True)
class Line:
    """Values at x = 1, 2, ...; a band around them, or none where `low` and `high` are empty."""

    name: str
    values: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class _Frame:
    """From values between `low` and `high` at x = 1 to `last` to places on the page."""

    last: int
    low: float = 0.0
    high: float = 1.0

    def x(self, value: float) -> float:
        return LEFT + (value - 1) / max(1, self.last - 1) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def points(self, values: Sequence[float]) -> list[str]:
        return [f"{self.x(i + 1):.1f},{self.y(value):.1f}" for i, value in enumerate(values)]


def drawing(
    title: str,
    x_title: str,
    lines: Sequence[Line],
    scale: tuple[float, float] = (0.0, 1.0),
    names: Sequence[str] = (),
) -> str:
    """An SVG of lines.

    Args:
        title: above it.
        x_title: below it.
        lines: one at least.
        scale: the least and the greatest value that fit.
        names: of x = 1, 2, ...; their numbers, a few of them, if not given.
    """
    frame = _Frame(max(len(line.values) for line in lines), *scale)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, TOP - 16, title, "start"),
        _text(frame.x((1 + frame.last) / 2), HEIGHT - 10, x_title),
        *_axes(frame),
        *_places(frame, names),
    ]
    coloured = [(line, COLOURS[i % len(COLOURS)]) for i, line in enumerate(lines)]
    parts += [_band(frame, line, colour) for line, colour in coloured if line.low]
    for i, (line, colour) in enumerate(coloured):
        y, x = TOP + 20 * i + 10, WIDTH - RIGHT + 12
        points = " ".join(frame.points(line.values))
        parts += [
            f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>',
            f'<path d="M{x} {y}h22" stroke="{colour}" stroke-width="2"/>',
            _text(x + 28, y + 4, line.name, "start"),
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _axes(frame: _Frame) -> list[str]:
    """Grid lines with their values."""
    left, right, parts = frame.x(1), frame.x(frame.last), list[str]()
    for i in range(TICKS + 1):
        value = frame.low + (frame.high - frame.low) * i / TICKS
        y = frame.y(value)
        parts.append(f'<path d="M{left} {y:.1f}H{right}" stroke="#ddd"/>')
        shown = f"{value:.1f}" if frame.high - frame.low >= 1 else f"{value:.3g}"
        parts.append(_text(left - 8, y + 4, shown, "end"))
    return parts


def _places(frame: _Frame, names: Sequence[str]) -> list[str]:
    """What stands below the axis."""
    every = [round(1 + (frame.last - 1) * i / TICKS) for i in range(TICKS + 1)]
    named = list(enumerate(names, start=1)) or [(at, str(at)) for at in every]
    return [_text(frame.x(at), HEIGHT - BOTTOM + 18, name) for at, name in named]


def _band(frame: _Frame, line: Line, colour: str) -> str:
    around = " ".join([*frame.points(line.low), *reversed(frame.points(line.high))])
    return f'<polygon fill="{colour}" fill-opacity="0.12" points="{around}"/>'


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
