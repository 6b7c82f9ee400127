"""A leak check: with strangers' histories in the place of users' own, no method may gain by them.

    python -m benchmarks.leaks --data DATA --base BASE --out FOLDER [--methods all] [--users 12]
        [--seeds 3] [--trials 8] [--strangers 4] [--own] [--slots N] [others of the comparison]

Draws users as `milpa compare` does, gives each a stranger's training part (`permuted.py`), and runs
that very comparison on these data: the same tuning, trainings and scores. Then each method's test
loss is held against its control's (`controls.py`): what it gives with nothing of the user's. A
method that beats it by more than the interval knows something of a user's later words that no
history told it.

`against strangers` is the same difference to the method under other strangers' histories. A method
that beats its control and not those gains by what every history of these data has in common, which
is no leak: what it stands on had not learned that yet. One that beats both has a leak, or luck: by
chance alone every fortieth interval lies below 0. For a method that shares something the two are
the same. For others the second costs as many trainings a user and seed as there are strangers.

With `--own` nothing is permuted. That is the check of the check: methods that learn from a history
have to beat their controls then.

The same command goes on where it was stopped. Written to the folder: leaks.md and leaks.json, which
hold no text and name nobody.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

from benchmarks import permuted
from benchmarks.controls import Controls, Losses
from cluster.arena import Arena, ArenaSettings
from cluster.comparison import METRICS
from cluster.comparison_text import signed
from cluster.contest import contest
from cluster.entrant import Entrant, entrants, methods_of
from cluster.folder import RunFolder
from cluster.grid import Grid
from cluster.preparation import held
from cluster.private import write_private
from cluster.standing import TIE, Difference, Standing, difference_of
from cluster.terms import Terms
from cluster.users import choose
from models.history import Histories

LOSS = METRICS[0]
STRANGERS = 4
_FLAGS = ("users", "seeds", "trials", "seed", "items", "min_items", "injection_epochs",
          "tuning_epochs", "epoch_tokens")  # fmt: skip


@dataclass(frozen=True)
class Held:
    """A method's test loss less its control's, and less that of the method under strangers'."""

    label: str
    users: int
    on_base: int
    control: Difference
    strangers: Difference

    @property
    def leaks(self) -> bool | None:
        """Whether it beats its control and strangers', each by more than the interval."""
        found = [beats(self.control), beats(self.strangers)]
        return None if None in found else all(found)


def main(arguments: Sequence[str] | None = None) -> None:
    given = _given(arguments)
    terms = _terms(given)
    folder = RunFolder(given.out.absolute())
    with held(folder, resume=(folder.path / "key").is_file()):
        _settle(terms, folder, {"own": given.own, "strangers": given.strangers})
        asked, owners = (terms, None) if given.own else _permuted(terms, folder)
        place = folder.path / "comparison"
        standing = contest(asked, place, slots=given.slots)
        found = checked(asked, standing, place, folder.path / "controls", given.strangers, owners)
        text = table(found, asked, given.own)
        rows = [{**asdict(each), "leaks": each.leaks} for each in found]
        content = json.dumps({"settings": folder.stored(), "methods": rows}, indent=1)
        write_private(folder.path / "leaks.json", content)
        write_private(folder.path / "leaks.md", text)
    print(text)


def checked(
    terms: Terms,
    standing: Standing,
    place: Path,
    kept: Path,
    strangers: int = STRANGERS,
    owners: Mapping[str, str] | None = None,
) -> list[Held]:
    """Every row of a comparison that is done against its controls.

    Args:
        terms: the comparison's.
        standing: how it stands.
        place: its folder.
        kept: where the controls' losses are kept.
        strangers: how many stand in for a user.
        owners: whose past a user's training part is, by user id; the user's own if not given.
    """
    folder = RunFolder(place)
    base = str(folder.base) if folder.base.is_dir() else terms.base
    arena = Arena(ArenaSettings(place, base, terms))
    try:
        known = owners or {user.user_id: user.user_id for user in arena.users}
        controls = Controls(arena, known, strangers, kept)
        rows = [row for row in entrants(terms) if standing.row(row.label) is not None]
        return [_held(row, controls, standing, terms) for row in rows]
    finally:
        arena.close()


def beats(difference: Difference) -> bool | None:
    """Whether a loss is lower by more than the interval, and by more than is printed."""
    return None if difference.high is None else difference.high < -TIE


def table(found: Sequence[Held], terms: Terms, own: bool) -> str:
    """What was found, in Markdown."""
    rows = tuple(_row(each) for each in found)
    headings = ("method", "on the base", "against control", "beats it", "against strangers",
                "beats them")  # fmt: skip
    histories = "their own histories" if own else "strangers' histories"
    title = (
        f"Test loss of {terms.users} users under {histories}, less their controls': nats per token "
        f"with 95 % intervals over users, {terms.seeds} seeds, {terms.trials} trials"
    )
    return f"{title}\n\n{Grid(title, headings, rows).pipes()}\n"


def _row(each: Held) -> tuple[str, ...]:
    cells = [
        cell
        for difference in (each.control, each.strangers)
        for cell in (_shown(difference), _said(beats(difference)))
    ]
    return (each.label, f"{each.on_base} of {each.users}", *cells)


def _shown(difference: Difference) -> str:
    ends = ", ".join(signed(LOSS, end) for end in (difference.low, difference.high))
    return f"{signed(LOSS, difference.mean)} [{ends}]"


def _said(beaten: bool | None) -> str:
    return {True: "yes", False: "no", None: "one user"}[beaten]


def _held(entrant: Entrant, controls: Controls, standing: Standing, terms: Terms) -> Held:
    found = [controls.of(entrant, number) for number in range(terms.seeds)]
    row = standing.row(entrant.label)
    assert row is not None
    against = {
        name: difference_of(_differences(found, name), LOSS, terms.seed)
        for name in ("control", "strangers")
    }
    return Held(entrant.label, len(found[0].own), row.on_base, **against)


def _differences(seeds: Sequence[Losses], name: str) -> list[float]:
    """Each user's own loss less the other, the mean over seeds."""
    return [
        fmean(seed.own[digest] - getattr(seed, name)[digest] for seed in seeds)
        for digest in sorted(seeds[0].own)
    ]


def _settle(terms: Terms, folder: RunFolder, others: Mapping[str, object]) -> None:
    """Refuses to go on with another check than was begun.

    Raises:
        ValueError: names what differs.
    """
    folder.check_settings(terms)
    if not folder.settings.is_file():
        folder.store(terms, others)
    for name, value in others.items():
        if (begun := folder.stored()[name]) != value:
            raise ValueError(f"--{name}: the folder has {begun}, got {value}; choose another --out")


def _permuted(terms: Terms, folder: RunFolder) -> tuple[Terms, dict[str, str]]:
    """The terms on permuted data, which are written once, and whose past everybody has there."""
    place, listed = folder.path / "permuted", folder.path / "owners.json"
    if not listed.is_file():
        shutil.rmtree(place, ignore_errors=True)
        histories = Histories.read(terms.data, folder.data)
        chosen = choose(histories, terms.experiment(), folder.key()).searched
        owners = permuted.write(histories, [user.user_id for user in chosen], place)
        write_private(listed, json.dumps(owners))
    # Nobody but the permuted users can be split between sessions, however long their histories are.
    asked = replace(terms, data=str(place), min_items=1)
    return asked, dict(json.loads(listed.read_text(encoding="utf-8")))


def _terms(given: argparse.Namespace) -> Terms:
    numbers = {name: getattr(given, name) for name in _FLAGS if getattr(given, name) is not None}
    words = {"population": given.population, "user_said": given.user_said, "dtype": given.dtype}
    return Terms(given.data, given.base, methods_of(given.methods), **numbers, **words)


def _given(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", default="all")
    parser.add_argument("--strangers", type=int, default=STRANGERS)
    parser.add_argument("--own", action="store_true")
    parser.add_argument("--slots", type=int)
    parser.add_argument("--population", choices=("auto", "off"), default="auto")
    parser.add_argument("--user-said", choices=("response", "query", "both"), default="response")
    parser.add_argument("--dtype", default="auto")
    for name in _FLAGS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
