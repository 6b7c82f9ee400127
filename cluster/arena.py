"""What a comparison's units are done with: a base on a device, and the users who are compared.

It holds things and does nothing: `validation.py` and `finals.py` do, `station.py` orders them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cluster.entrant import Entrant, entrants
from cluster.folder import RunFolder
from cluster.subjects import Subjects
from cluster.terms import Terms
from cluster.trainings import Trainings
from cluster.unit import Unit, Units
from cluster.users import Choice
from models.base import Base
from models.catalog import attach_all, frame_all

Own = dict[str, Any]
"""What is known of one user, or the outcome of a unit."""


@dataclass(frozen=True)
class ArenaSettings:
    """What an arena is set up with."""

    run: Path
    base: str
    terms: Terms
    device: str = "auto"
    threads: int = 1


class Arena:
    """A base, the users, and all that is known of them so far."""

    def __init__(self, settings: ArenaSettings) -> None:
        if settings.device == "cpu":
            torch.set_num_threads(settings.threads)
        self.terms, self.folder = settings.terms, RunFolder(settings.run)
        self._lock = self.folder.write_lock()
        self.base = Base.load(settings.base, settings.device, settings.terms.dtype)
        self.attach, self.frame = attach_all(self.base), frame_all(self.base)
        self.subjects = Subjects(self.folder, self.base, settings.terms.items)
        self.users = Choice.load(self.folder.path).searched
        self.units = Units(self.folder.path)
        self.trainings = Trainings(self.folder, self.base, self.terms, self.subjects)
        self._rows = {entrant.label: entrant for entrant in entrants(self.terms)}

    def entrant(self, unit: Unit) -> Entrant:
        """Whose unit it is."""
        return self._rows[unit.entrant]

    def close(self) -> None:
        """Lets another driver in."""
        self._lock.close()
