"""One table of texts, in Markdown for a file or a README, and for a terminal.

Names in it are data: what could be read as markup in either is escaped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from cluster import wording


@dataclass(frozen=True)
class Grid:
    """One table: a title, headings, and rows of texts. The first column is of names."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def without_empty(self) -> Grid:
        """The columns in which some row says something."""
        keep = [
            place
            for place in range(len(self.headings))
            if any(row[place] not in ("", wording.NOTHING) for row in self.rows)
        ]
        rows = tuple(tuple(row[place] for place in keep) for row in self.rows)
        return Grid(self.title, tuple(self.headings[place] for place in keep), rows)

    def pipes(self) -> str:
        """The table in Markdown."""
        lines = [
            self.headings,
            ("---", *("---:" for _ in self.headings[1:])),
            *map(_escaped, self.rows),
        ]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def table(self) -> Table:
        """The table for a terminal."""
        table = Table(title=self.title, title_justify="left", box=box.SIMPLE_HEAD)
        for place, heading in enumerate(self.headings):
            table.add_column(heading, justify="left" if place == 0 else "right")
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table


def _escaped(row: tuple[str, ...]) -> tuple[str, ...]:
    """A user id is no markup: every sign that Markdown or HTML might read is escaped."""
    return (re.sub(r"([\\`*_{}\[\]<>|#&~])", r"\\\1", row[0]), *row[1:])
