"""How the numbers and names of a run are written, on its page and in a terminal.

Fractions are printed x100, losses with three decimals, a change with its sign. What a user chose
as an id is shortened and freed of what can't be printed; escaping is the business of whoever
prints, since a page, a figure and a terminal each escape otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from search.space import MemoryConfig

NOTHING = "\N{EN DASH}"


def loss(value: float | None) -> str:
    """Nats per token: "3.699"."""
    return NOTHING if value is None else f"{value:.3f}"


def percent(value: float | None) -> str:
    """A fraction x100: "12.5"."""
    return NOTHING if value is None else f"{100 * value:.1f}"


def change(value: float | None, form: Literal["loss", "percent"]) -> str:
    """A difference with its sign: "-0.023", "+1.4"."""
    if value is None:
        return NOTHING
    return f"{value:+.3f}" if form == "loss" else f"{100 * value:+.1f}"


def verdict(value: float, less_is_better: bool = False) -> str:
    """Whether a change is "good" or "bad"; "" where it is neither as printed."""
    if abs(value) < 5e-4:
        return ""
    return "good" if (value < 0) == less_is_better else "bad"


def count(value: float | None) -> str:
    """A number of things: "512", "12.3 K", "1.45 M"."""
    if value is None:
        return NOTHING
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e4, "K")):
        if value >= size:
            return f"{value / min(size, 1e3 if sign == 'K' else size):.3g} {sign}"
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    """ "48 s", "12 min", "3 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def short(text: str, length: int) -> str:
    """At most `length` characters, none of which moves the cursor or turns the writing around."""
    printable = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    return printable if len(printable) <= length else printable[: length - 1] + "…"


def token(text: str) -> str:
    """A token as it is seen: blanks at its ends and line breaks have signs; nothing is "∅"."""
    inner = text.strip(" ")
    before = len(text) - len(text.lstrip(" "))
    after = len(text) - before - len(inner)
    shown = "␣" * before + inner.replace("\n", "⏎").replace("\t", "⇥") + "␣" * after
    return short(shown, 40) or "∅"


def describe(configuration: MemoryConfig) -> str:
    """ "layers 0–3, 7 · rank 16 · rate 5.6e-4", or "the base itself"."""
    if not configuration.layers:
        return "the base itself"
    word = "layer" if len(configuration.layers) == 1 else "layers"
    rate = f"{configuration.learning_rate:.1e}".replace("e-0", "e-")
    return f"{word} {ranges(configuration.layers)} · rank {configuration.rank} · rate {rate}"


def ranges(numbers: Sequence[int]) -> str:
    """Sorted numbers with runs drawn together: "0–3, 7"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(_run(run) for run in runs)


def _run(run: Sequence[int]) -> str:
    return str(run[0]) if len(run) == 1 else f"{run[0]}\N{EN DASH}{run[-1]}"
