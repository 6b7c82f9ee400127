"""Units of a comparison's work, and where each one's outcome is kept: one JSON file, written once.

A file is named by a digest of what it is the outcome of, so a comparison that is begun again finds
what is done. Users stand there by their digests, and no text does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cluster.private import write_private

Kind = Literal["bare", "trial", "shared", "final", "untrained"]
BASE, ORIGINAL = "base", "original base"
BY_USER = ("users", "stored_bytes", "attention")  # what of an outcome may be told by user

Content = Mapping[str, Any]


@dataclass(frozen=True)
class Unit:
    """One piece of work, for all users together.

        bare       the base that all methods stand on: validation losses
        trial      an entrant's trial of a number: trained, and its validation losses
        shared     what a method learns from others under a configuration and a seed of a number
        final      an entrant trained under a seed of a number: scores on the test part
        untrained  a base, as given or as methods stand on it: scores on the test part

    `entrant` is its label; of what is shared, the method; of what is untrained, `BASE` or
    `ORIGINAL`.
    """

    kind: Kind
    entrant: str = ""
    number: int = 0
    configuration: str = ""

    @property
    def name(self) -> str:
        """The digest that the unit's file is named by."""
        told = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:32]


Line = Sequence[Unit]
"""Units that build upon each other, in order."""

Outcome = dict[str, Any]
"""What a unit took, in seconds, and why it was refused; or why it is `broken`."""


class Units:
    """The outcomes in a folder."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "units"

    def __contains__(self, unit: Unit) -> bool:
        return self._file(unit).is_file()

    def read(self, unit: Unit) -> dict[str, Any]:
        """A unit's outcome.

        Raises:
            FileNotFoundError: it is not done.
            ValueError: the file is damaged.
        """
        return _content(self._file(unit))

    def every(self) -> list[dict[str, Any]]:
        """All outcomes, in the order of their files' names.

        Raises:
            ValueError: a file is damaged.
        """
        return [_content(file) for file in sorted(self.folder.glob("[0-9a-f]*.json"))]

    def write(self, unit: Unit, content: Content) -> None:
        """Keeps a unit's outcome; a kill leaves all of it or nothing."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        whole = json.dumps({"unit": asdict(unit), **content}, allow_nan=False)
        write_private(self._file(unit), whole)

    def _file(self, unit: Unit) -> Path:
        return self.folder / f"{unit.name}.json"


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if Unit(**content["unit"]).name != file.stem:
            raise ValueError("another unit's outcome")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file}: expected the outcome of a unit ({type(error).__name__}); remove the file, "
            "and it is done again"
        ) from error
    return dict(content)


def told(units: Units, entrant: str, count: int | None = None) -> list[dict[str, Any]]:
    """The outcomes of an entrant's first trials in order; of all that are done if none is given."""
    found: list[dict[str, Any]] = []
    while len(found) != count and (unit := Unit("trial", entrant, len(found))) in units:
        found.append(units.read(unit))
    return found


def canonical(configuration: Mapping[str, object]) -> str:
    """A configuration as text that is the same for the same settings."""
    return json.dumps(dict(configuration), sort_keys=True)
