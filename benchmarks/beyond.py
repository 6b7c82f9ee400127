"""How much of what a comparison shows lies beyond the windows that its base was trained on.

    python -m benchmarks.beyond --comparison FOLDER [--edge 256] [--methods oppu lora-all milp]

Takes a finished comparison's folder, and its test items apart: tokens of answers at positions
before `--edge`, query and answer counted, and those from there on. Printed are the users' loss on
either part under the base as it was given, less the shared base's, and under each method's
published states (of the first seed), likewise. A gain that lies beyond the edge alone repairs
positions which the base never learned; it is no user's manner. Methods that put words or vectors
before a query are not for this: they move an answer's positions.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.folder import RunFolder
from cluster.measuring import Subject
from cluster.users import Choice
from models.base import Base
from models.catalog import attach_all
from models.gain import paired_interval
from models.history import Histories
from models.loss import row_losses
from models.personalizer import UserState
from models.prompt import Row
from models.registry import Registry

AS_GIVEN, SHARED = "the base as given", "the shared base"
Nats = tuple[float, int]  # summed, and over how many tokens


@dataclass(frozen=True)
class Parts:
    """A user's loss before the edge and from there on; None where there are no tokens."""

    before: Nats
    beyond: Nats

    @property
    def means(self) -> tuple[float | None, float | None]:
        """Nats per token."""
        return _mean(self.before), _mean(self.beyond)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comparison", type=Path, required=True)
    parser.add_argument("--edge", type=int, default=256)
    parser.add_argument("--methods", nargs="+", default=["oppu", "lora-all", "milp"])
    given = parser.parse_args(arguments)
    folder = RunFolder(given.comparison)
    found = measured(folder, given.edge, given.methods)
    print(table(found, given.edge))


def measured(folder: RunFolder, edge: int, methods: Sequence[str]) -> dict[str, dict[str, Parts]]:
    """Each user's parts by model; users by id."""
    settings, choice = folder.stored(), Choice.load(folder.path)
    shared = folder.base if folder.base.is_dir() else settings["base"]
    histories, base = Histories.open(folder.data), Base.load(shared, "cpu")
    users = [user.user_id for user in choice.searched]
    rows = {user: _rows(base, Subject.of(histories.load(user), settings["user_said"], 1))
            for user in users}  # fmt: skip
    nobody: dict[str, UserState | None] = dict.fromkeys(users)
    found = {SHARED: parts(base, rows, nobody, edge)}
    for method in methods:
        registry = Registry(folder.path / "registries" / method)
        states = {user: registry.load(user, base) for user in users}
        found[method] = parts(base, rows, states, edge)
    given = Base.load(settings["base"], "cpu")
    return {AS_GIVEN: parts(given, rows, nobody, edge), **found}


def parts(
    base: Base,
    rows_of: Mapping[str, Sequence[Row]],
    states: Mapping[str, UserState | None],
    edge: int,
) -> dict[str, Parts]:
    """Each user's loss before the edge and from there on, under the user's state."""
    whole = [(user, row) for user, rows in rows_of.items() for row in rows]
    short = [(user, cut) for user, row in whole if (cut := _before(row, edge)) is not None]
    sums = {user: [(0.0, 0), (0.0, 0)] for user in rows_of}
    for place, some in enumerate((whole, short)):
        own = [states[user] for user, _ in some]
        losses = row_losses(base, [row for _, row in some], own, attach_all(base))
        for (user, _), (nats, count) in zip(some, losses, strict=True):
            before = sums[user][place]
            sums[user][place] = (before[0] + nats, before[1] + count)
    return {
        user: Parts(within, (every[0] - within[0], every[1] - within[1]))
        for user, (every, within) in sums.items()
    }


def table(found: Mapping[str, Mapping[str, Parts]], edge: int) -> str:
    """Each model's losses less those of the shared base, with 95 % intervals over users."""
    control = found[SHARED]
    beyond = sum(own.beyond[1] for own in control.values())
    every = beyond + sum(own.before[1] for own in control.values())
    lines = [
        f"{beyond} of {every} tokens of answers ({beyond / every:.1%}) stand beyond {edge}",
        "",
        f"| model | loss before {edge} | less the shared base's | loss beyond | likewise |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for model, users in found.items():
        cells = [model]
        for place in (0, 1):
            pairs = [(own.means[place], control[user].means[place]) for user, own in users.items()]
            cells += _cells([(x, y) for x, y in pairs if x is not None and y is not None])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(pairs: Sequence[tuple[float, float]]) -> tuple[str, str]:
    if not pairs:
        return "", ""
    found = paired_interval([x - y for x, y in pairs], 0)
    mean = sum(x for x, _ in pairs) / len(pairs)
    return f"{mean:.3f}", f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def _rows(base: Base, subject: Subject) -> list[Row]:
    return [base.prompt.pair(item.query or "", item.response) for item in subject.items]


def _before(row: Row, edge: int) -> Row | None:
    """The row up to the edge; None where it predicts nothing there."""
    return Row(row.tokens[:edge], row.predict_from) if row.predict_from < edge else None


def _mean(part: Nats) -> float | None:
    return part[0] / part[1] if part[1] else None


if __name__ == "__main__":
    main()
