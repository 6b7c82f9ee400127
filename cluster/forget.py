"""A user is removed: from all of a run or a comparison that names, quotes or was learned from them.

What was learned from many together stays, and is named.

The order is that of what can be seen from outside: the registry first, so that a server stops
answering as that user. Killed in between, it is called again and does the rest.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from cluster import forget_compared, report, results
from cluster.folder import RunFolder
from cluster.private import write_private
from cluster.users import FILE_NAME, Choice
from models.history import Histories, user_digest
from models.registry import Registry
from search.census import study_names
from search.storage import open_storage, scrub
from search.study import Study


def forget(run: Path, user_id: str) -> list[str]:
    """Removes a user from registry, studies, results, report and data; says what was there.

    Of a comparison of methods: from all registries, outcomes, answers, judgements and data. Its
    table goes, and the comparison's own command writes one of those who are left.

    Raises:
        FileNotFoundError: no run here.
        ValueError: the run never held this user, it is being worked on, or users hold one
            another's words in it.
    """
    folder = RunFolder(run)
    folder.check()
    _refuse_exchanged(folder)
    with folder.lock():
        digest = user_digest(folder.key(), user_id)
        said = [
            _states(folder, user_id),
            forget_compared.states(folder, user_id),
            _study(folder, digest),
            forget_compared.outcomes(folder, digest),
            forget_compared.answers(folder, digest),
            forget_compared.judgements(folder, digest),
            _results(folder, user_id),
            _lists(folder, user_id, digest),
            _data(folder, user_id),
            _logs(folder, digest),
        ]
        forget_compared.anchors(folder)
        _remove_leftovers(folder)
    if not any(said):
        raise ValueError(f"expected a user of {run}, got {user_id[:80]!r}, whom it does not hold")
    if folder.base.is_dir():
        said.append("kept: the population's base, which may have learned from this user among many")
    if (folder.path / "shared").is_dir():
        said.append("kept: methods' shared parts, which may have learned from this user among many")
    return [line for line in said if line]


def _refuse_exchanged(folder: RunFolder) -> None:
    """Refuses a leak check's folder and the comparison in it (`benchmarks/leaks.py`)."""
    for place in (folder.path, folder.path.absolute().parent):
        if (place / "owners.json").is_file():
            raise ValueError(
                f"{place}: users' words stand here under others' names, so nobody can be removed "
                "alone; remove the folder"
            )


def _remove_leftovers(folder: RunFolder) -> None:
    """Removes what killed processes left: files half written, copies of data, Ray's own files."""
    folder.remove_temporary()
    inner = (folder.winners, folder.path / "units", folder.path / "answers", folder.population)
    for place in (folder.path, *inner):
        for copy in place.glob(".*.writing"):
            shutil.rmtree(copy)
        for file in place.glob(".*.*.????????"):  # as `write_private` names them
            file.unlink()


def _states(folder: RunFolder, user_id: str) -> str:
    count = Registry(folder.registry).forget(user_id) if folder.registry.is_dir() else 0
    return f"removed from the registry: {count} states" if count else ""


def _study(folder: RunFolder, digest: str) -> str:
    if not folder.has_studies:
        return ""
    storage = open_storage(folder.storage())
    if digest not in study_names(storage):
        return ""
    Study(storage, digest).delete()
    scrub(storage)
    return "removed from the studies"


def _results(folder: RunFolder, user_id: str) -> str:
    if not (folder.path / results.FILE_NAME).is_file():
        return ""
    found = results.load(folder.path)
    kept = found.without(user_id)
    if kept == found:
        return ""
    results.save(kept, folder.path)
    report.write(folder.path, bool(found.experiment.get("examples", True)))
    return "removed from results and report"


def _lists(folder: RunFolder, user_id: str, digest: str) -> str:
    (folder.winners / f"{digest}.json").unlink(missing_ok=True)
    if not (folder.path / FILE_NAME).is_file():
        return ""
    choice = Choice.load(folder.path)
    kept = choice.without(user_id)
    if kept == choice:
        return ""
    kept.save(folder.path)
    return "removed from the list of users"


def _data(folder: RunFolder, user_id: str) -> str:
    removed = 0
    for place in (folder.data, folder.population / "data"):
        if place.is_dir():
            histories = Histories.open(place)
            if user_id in histories.pair_counts:
                _tables(folder)
                histories.forget(user_id)
                removed += 1
    return "removed from the data" if removed else ""


def _tables(folder: RunFolder) -> None:
    """Removes what a comparison found; before the data, which tell what is still to be done."""
    for name in ("compare.json", "compare.md", "slots.html"):
        (folder.path / name).unlink(missing_ok=True)


def _logs(folder: RunFolder, digest: str) -> str:
    """Packers' and stations' logs without the lines of the user's tasks."""
    removed = 0
    for file in (*folder.path.glob("packer-*.log"), *folder.path.glob("station-*.log")):
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if digest not in line]
        if len(kept) < len(lines):
            write_private(file, "".join(kept))
            removed += 1
    return "removed from the logs" if removed else ""
