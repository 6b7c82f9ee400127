"""Whether a search should begin with the memory that one would train without a search.

    python -m benchmarks.beginnings --out FOLDER [--trials 10 20 --seeds 3]
    python -m benchmarks.beginnings --out FOLDER --trials 100 --seeds 2

The default sampler on made-up users, its initial design with that memory first and without it. The
search itself begins with it in short designs alone (`search/design.py`). Searches are kept in
FOLDER and never run twice.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cohorts import DEFAULT, Cohort, Extent, made_up
from benchmarks.samplers import compare
from benchmarks.searches import Contender
from search.bayesian import SurrogateSampler
from search.design import Design
from search.samplers import Sampler, SamplerSettings, initial_count

WITHOUT, FIRST = "without", "default-first"


@dataclass(frozen=True)
class Beginning(Contender):
    """The default sampler, after a design that begins so."""

    with_default: bool = False

    def sampler(self) -> Sampler:
        """Who proposes."""
        design = Design(self.settings.design, self.settings.initial)
        design.begins_with_default = self.with_default
        return SurrogateSampler(self.settings.name, design)


def cohort(layers: int, extent: Extent) -> Cohort:
    """Made-up users, searched after both beginnings."""
    users = made_up(layers, [DEFAULT], extent, note=", beginnings")
    settings = SamplerSettings(DEFAULT, initial_count(extent.trials))
    both = (
        Beginning(FIRST, settings, extent.trials, with_default=True),
        Beginning(WITHOUT, settings, extent.trials),
    )
    return Cohort(users.title, users.problems, both, extent.seeds, FIRST)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--users", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, nargs="+", default=[10, 20])
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args(arguments)
    extents = [Extent(given.users, given.seeds, trials) for trials in given.trials]
    compare([cohort(given.layers, extent) for extent in extents], given.out, given.processes)


if __name__ == "__main__":
    main()
