"""All methods on the same users, base, trials, budget and seeds, over Ray: the order of the work.

First what all stand on: the data, the users (drawn by the seed from those who can be split between
sessions), and the base with what users share merged in. Then every entrant's trials, scored on the
validation part. When all of them are done, the finals: each user's best configuration trained again
under each seed, and scored on the test part. The first of these seeds is that of the trials. At
last the base as it was given, where another one was stood on.

All of it is done in units (`unit.py`) that a later call finds done; so the same command goes on
where it was stopped. A folder is one comparison's: other terms are refused, but for the methods.
One that joins later is tuned and tested on equal terms, and what is done of the others stands.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError
from rich.console import Console

from cluster import slots_page, standing_text
from cluster.connection import Ground, connected
from cluster.effort import Effort
from cluster.entrant import CONTROL, Entrant, entrants
from cluster.folder import RunFolder
from cluster.groundwork import Contest, prepared
from cluster.judge import Endpoint, require_client
from cluster.preparation import held
from cluster.private import write_private
from cluster.process import BrokeOff, output_is_logged
from cluster.progress import Progress
from cluster.shared import follow, learn_population, sharing
from cluster.standing import Standing
from cluster.station import start_stations, work
from cluster.tally import standing_of
from cluster.terms import Terms
from cluster.tuning import refusal
from cluster.unit import BASE, ORIGINAL, Line, Outcome, Unit, told
from cluster.verdicts import win_rates
from models.precision import packer_bytes
from models.sharing import READ_SHARE

JSON_NAME, MARKDOWN_NAME = "compare.json", "compare.md"


def contest(
    terms: Terms,
    out: Path,
    reference: str = CONTROL,
    address: str | None = None,
    slots: int | None = None,
    console: Console | None = None,
    judge: Endpoint | None = None,
    examples: bool = True,
) -> Standing:
    """Compares methods, or goes on with it; prints a table and writes compare.json and compare.md.

    Where states have slots, slots.html shows what these attend to.

    Args:
        terms: what all methods have in common.
        out: the comparison's folder; one of the same terms is gone on with.
        reference: the row that differences are taken to.
        address: an existing Ray cluster; None starts one here for as long as it takes.
        slots: places of an embedded Ray.
        console: where to print; the standard output if not given.
        judge: whom to ask which answers are better; None sends nothing to anybody.
        examples: whether the page of what slots attend to quotes users.

    Raises:
        ValueError, OSError: something given can't work; nothing that was done is lost.
        BrokeOff: the work broke off; the same command goes on.
    """
    console = console or Console()
    folder = RunFolder(out.absolute())
    rows = entrants(terms)
    labels = [row.label for row in rows]
    if reference not in labels:
        raise ValueError(f"--reference: expected one of {'; '.join(labels)}, got {reference!r}")
    progress = Progress(console, terms.trials, output_is_logged())
    resume = (folder.path / "key").is_file()
    is_search = folder.settings.is_file() and not folder.is_comparison
    if is_search or (not resume and folder.path.is_dir() and any(folder.path.iterdir())):
        raise FileExistsError(f"--out: {folder.path} holds something else; choose another folder")
    if judge is not None:
        require_client()
    with held(folder, resume):
        begun = prepared(terms, folder, rows)
        if judge is not None:
            begun.check_judged()
        begun.say(progress)
        broken: dict[str, str] = {}
        if not _is_done(begun):
            room = packer_bytes(terms.base, terms.dtype)
            name = f"milpa-{secrets.token_hex(4)}"
            with connected(address, slots, name, folder.remember_temporary, room) as ground:
                broken = _worked(begun, ground, progress)
            folder.remove_temporary()
        standing = standing_of(terms, folder.path, rows, reference, broken)
        _write(folder, standing)
        page = slots_page.write(folder.path, rows, examples)
        if judge is not None:
            progress.note(
                f"{folder.path / MARKDOWN_NAME} is written; now the judge is asked. Every reply is "
                "kept: if this breaks off, the same command asks for the rest"
            )
            others = [row.label for row in standing.rows if row.trials and row.label != reference]
            found = win_rates(terms, folder, others, reference, judge, progress.note)
            standing = replace(standing, win_rates=found)
            _write(folder, standing)
    standing_text.show(standing, console)
    console.print(f"Written to {folder.path / MARKDOWN_NAME} and {folder.path / JSON_NAME}.")
    if page is not None:
        console.print(f"What slots attend to stands in {page}.")
    return standing


def _write(folder: RunFolder, standing: Standing) -> None:
    write_private(folder.path / JSON_NAME, standing_text.as_json(standing))
    write_private(folder.path / MARKDOWN_NAME, standing_text.markdown(standing))


def _worked(begun: Contest, ground: Ground, progress: Progress) -> dict[str, str]:
    """Everything that isn't done yet; returns why entrants broke, by label."""
    base = _base(begun, ground, progress)
    path, terms = begun.folder.path, begun.terms
    stations = start_stations(path, base, terms, ground.places)
    _settle(begun, stations)
    effort = Effort.of(terms, begun.rows)
    broken: dict[str, str] = {}

    def do(some: Sequence[Any], lines: Sequence[Line]) -> None:
        left = [[u for u in line if u not in begun.units] for line in lines]
        work(some, [line for line in left if line and line[0].entrant not in broken], tell)

    def tell(unit: Unit, outcome: Outcome) -> None:
        progress.note(_said(unit, outcome))
        if "broken" in outcome:
            broken.setdefault(unit.entrant, outcome["broken"])
        elif (estimate := effort.told(unit, outcome)) is not None:
            progress.note(estimate)

    do(stations, [[Unit("bare")]])
    _check_measured(broken)
    do(stations, effort.first_trials())
    do(stations, effort.other_trials())
    do(stations, [[Unit("untrained", BASE)], *effort.finals(_able(begun, broken, progress))])
    if base != terms.base:
        for station in stations:
            ray.kill(station)
        others = start_stations(path, terms.base, terms, ground.places[:1], len(stations))
        do(others, [[Unit("untrained", ORIGINAL)]])
    _check_measured(broken)
    return broken


def _is_done(begun: Contest) -> bool:
    """Whether every unit is done, so that nothing has to be started."""
    units, effort = begun.units, Effort.of(begun.terms, begun.rows)
    merged = begun.folder.base.is_dir()
    first = [Unit("bare"), Unit("untrained", BASE), *([Unit("untrained", ORIGINAL)] * merged)]
    trials = [unit for line in (*effort.first_trials(), *effort.other_trials()) for unit in line]
    if not all(unit in units for unit in (*first, *trials)):
        return False
    able = [row for row in begun.rows if refusal(told(units, row.label)) is None]
    return all(unit in units for line in effort.finals(able) for unit in line)


def _able(begun: Contest, broken: Mapping[str, str], progress: Progress) -> list[Entrant]:
    """The entrants that can run on this base; says of the others why not."""
    able = []
    for row in begun.rows:
        if row.label in broken:
            continue
        why = refusal(told(begun.units, row.label))
        if why is None:
            able.append(row)
        else:
            progress.note(f"{row.label} is left out: {why}")
    return able


def _check_measured(broken: Mapping[str, str]) -> None:
    """Raises `BrokeOff` where a base itself could not be measured."""
    for label in ("", BASE, ORIGINAL):
        if label in broken:
            raise BrokeOff(
                f"measuring the {label or BASE} broke off ({broken[label]}); the folder's logs "
                "say where; what was done is kept, the same command goes on"
            )


def _said(unit: Unit, outcome: Outcome) -> str:
    what = f"{unit.entrant or BASE}: {unit.kind} {unit.number + 1}"
    if unit.kind in ("bare", "untrained"):
        what = f"{unit.entrant or BASE}: measured"
    if "broken" in outcome:
        return f"{what} broke off: {outcome['broken']}; the same command tries it again"
    return f"{what}, {outcome['seconds']:.1f} s"


def _base(begun: Contest, ground: Ground, progress: Progress) -> str:
    """The base that all methods stand on, with the population merged where that is wanted.

    It is not shown what shared parts are taught to answer: of new users it knows as little.
    """
    experiment, folder = begun.terms.experiment(), begun.folder
    found = sharing(experiment, begun.histories, begun.choice)
    progress.note(found.why)
    if not found.is_on:
        return begun.terms.base
    if not (folder.population / "report.json").is_file():
        place = ground.whole
        task = learn_population.options(**place.options)
        asked = (folder.path, experiment, begun.choice, found.source, place.threads)
        follow(task.remote(*asked, share=READ_SHARE), progress)
    return str(folder.base)


def _settle(begun: Contest, stations: Sequence[Any]) -> None:
    """Writes down what the comparison resolves to, at its first start.

    Raises:
        ValueError: the base can't be loaded; or going on, it is another one than it was.
    """
    try:
        now = ray.get([station.fingerprint.remote() for station in stations])[0]
    except RayTaskError as error:
        raise error.cause from error
    folder = begun.folder
    if not folder.settings.is_file():
        resolved = {"data_digest": begun.histories.digest, "base_fingerprint": now}
        folder.store(begun.terms, resolved)
    elif (then := folder.stored()["base_fingerprint"]) != now:
        raise ValueError(
            f"{folder.path}: made on another base than {begun.terms.base} is now: the fingerprint "
            f"was {then[:12]}, it is {now[:12]}"
        )
