"""The page `slots.html` of a comparison: what the slots of each user's state attend to.

A heat map for every user, and of the slots that one item is read from far more than the others,
the items. Items are the user's words: on the page they stand where quotes of users are wanted, else
by their places. The page is as private as the comparison's folder, and knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from cluster import plots, report
from cluster.attention import Shares, newest
from cluster.entrant import Entrant
from cluster.folder import RunFolder
from cluster.private import write_private
from cluster.unit import Unit, Units
from cluster.users import Choice, Searched
from models.history import Histories, split

FILE_NAME = "slots.html"
TOLD_SLOTS, TOLD_ITEMS = 6, 3


@dataclass(frozen=True)
class Told:
    """A slot, and the items that are read from it most, each with its times an even share."""

    slot: int
    items: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Held:
    """One user's slots under one entrant, as the page shows them."""

    label: str
    user_id: str
    figure: str
    slots: int
    items: int
    told: tuple[Told, ...]


def write(run: Path, rows: Sequence[Entrant], examples: bool) -> Path | None:
    """Writes the page of a comparison and returns its path; None where no state has slots.

    Args:
        run: the comparison's folder.
        rows: its entrants.
        examples: whether users' words stand in the page.
    """
    units, users = Units(run), Choice.load(run).searched
    histories = Histories.open(RunFolder(run).data)
    held: list[Held] = []
    figures: dict[str, plots.Figure] = {}
    for row in rows:
        unit = Unit("final", row.label)
        known = units.read(unit).get("attention", {}) if unit in units else {}
        for user in users:
            if user.digest in known:
                shares: Shares = known[user.digest]
                names = _names(histories, user, examples)
                held.append(_held(row, user, shares, names))
                figures[held[-1].figure] = plots.attention(names, shares)
    path = run / FILE_NAME
    if not held:
        path.unlink(missing_ok=True)
        return None
    context = {"held": held, "figures": figures, "examples": examples}
    write_private(path, report.rendered("slots.html.j2", context))
    return path


def told_of(shares: Shares, names: Sequence[str]) -> tuple[Told, ...]:
    """The slots whose items differ most: by the most that an item exceeds the slot's own mean."""
    count = len(shares[0])
    columns = [[item[slot] for item in shares] for slot in range(count)]
    lifts = [max(column) - fmean(column) for column in columns]
    slots = sorted(range(count), key=lambda slot: (-lifts[slot], slot))[:TOLD_SLOTS]
    return tuple(Told(slot, _most(columns[slot], names, count)) for slot in slots)


def _most(
    column: Sequence[float], names: Sequence[str], slots: int
) -> tuple[tuple[str, float], ...]:
    items = sorted(range(len(column)), key=lambda i: (-column[i], i))[:TOLD_ITEMS]
    return tuple((names[i], column[i] * slots) for i in items)


def _held(row: Entrant, user: Searched, shares: Shares, names: Sequence[str]) -> Held:
    return Held(
        label=row.label,
        user_id=user.user_id,
        figure=f"slots-{row.slug}-{user.digest}",
        slots=len(shares[0]),
        items=len(shares),
        told=told_of(shares, names),
    )


def _names(histories: Histories, user: Searched, examples: bool) -> list[str]:
    """What the items are called: by what is asked, or the words of a post; else by their places."""
    train = split(histories.load(user.user_id)).train
    items = newest(train)
    first = len(train) - len(items)
    return [
        (item.query or item.response) if examples else f"item {first + place + 1}"
        for place, item in enumerate(items)
    ]
