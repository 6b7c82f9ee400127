"""How much work a comparison is: which units, in which order, and what they will have cost.

Before it starts it can say how many trainings there are. How long they take it can say only once
one trial of each entrant has ended, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cluster import wording
from cluster.entrant import Entrant, is_searched
from cluster.terms import Terms
from cluster.tuning import trial_count
from cluster.unit import Line, Outcome, Unit
from models.catalog import personalizer


@dataclass
class Effort:
    """The units of all entrants, and the processor time of each one's first trial."""

    terms: Terms
    counts: dict[str, int]
    rows: tuple[Entrant, ...]
    first: dict[str, float] = field(default_factory=dict)
    said: bool = False

    @classmethod
    def of(cls, terms: Terms, rows: tuple[Entrant, ...]) -> Effort:
        """Of these rows; nothing has ended yet."""
        return cls(terms, {row.label: trial_count(row) for row in rows}, rows)

    def lines(self) -> list[str]:
        """What it costs, before anything has started."""
        users, seeds = self.terms.users, self.terms.seeds
        listed = ", ".join(f"{label} ({count})" for label, count in self.counts.items())
        tuning, finals = users * sum(self.counts.values()), users * seeds * len(self.rows)
        return [
            f"entrants, with their trials a user: {listed}",
            f"trainings at most: {tuning} to tune, {finals} for the test ({seeds} seeds), {users} "
            "users each time; a method that only reads trains none of them. What methods share "
            "is learned besides, once for a configuration and a seed",
        ]

    def first_trials(self) -> list[Line]:
        """Each entrant's first trial: from these it can be said what all will cost."""
        return [[Unit("trial", row.label)] for row in self.rows]

    def other_trials(self) -> list[Line]:
        """All others, those that build upon each other in a line: the longest, and begun with."""
        lines: list[Line] = []
        for row in self.rows:
            units = [Unit("trial", row.label, n) for n in range(1, self.counts[row.label])]
            if is_searched(personalizer(row.method)):
                lines.insert(0, units)
            else:
                lines += [[unit] for unit in units]
        return lines

    def finals(self, rows: Sequence[Entrant]) -> list[Line]:
        """The finals of these rows."""
        return [[Unit("final", row.label, n)] for n in range(self.terms.seeds) for row in rows]

    def told(self, unit: Unit, outcome: Outcome) -> str | None:
        """Hears that a unit has ended; what all will have cost, at the first moment it can say."""
        if unit.kind == "trial" and unit.number == 0:
            self.first[unit.entrant] = outcome["cpu_seconds"]
        if self.said or len(self.first) < len(self.rows):
            return None
        self.said = True
        seconds = sum(
            taken * (self.counts[label] + self.terms.seeds) for label, taken in self.first.items()
        )
        return (
            f"an estimate from each one's first trial: {wording.duration(seconds)} of processor "
            "time in all, answers to test items not counted"
        )
