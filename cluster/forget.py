"""Users are removed: from all of a run or a comparison that names, quotes or was learned from them.

What was learned from many together stays, and is named. However many are removed, what holds all
users' lines is rewritten once. Nobody is removed where one of those named is not held at all.

The order is that of what can be seen from outside: the registry first, so that a server stops
answering as that user. Killed in between, it is called again and does the rest.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from cluster import forget_compared, report, results
from cluster.folder import RunFolder
from cluster.private import write_private
from cluster.traces import Users, data_of, held, logs_of, names_one_of
from cluster.users import FILE_NAME, Choice
from models.history import user_digest
from models.lines import shown
from models.registry import Registry
from search.census import study_names
from search.storage import open_storage, scrub
from search.study import Study


def forget(run: Path, *user_ids: str) -> list[str]:
    """Removes users from registry, studies, results, report and data; says what was there.

    Of a comparison of methods: from all registries, outcomes, answers, judgements and data. Its
    table goes, and the comparison's own command writes one of those who are left.

    Raises:
        FileNotFoundError: no run here.
        ValueError: nobody is named, the run never held one of these users, it is being worked on,
            or users hold one another's words in it.
    """
    if not user_ids:
        raise ValueError("expected at least one user to forget, got none")
    folder = RunFolder(run)
    folder.check()
    _refuse_exchanged(folder)
    with folder.lock():
        _remove_leftovers(folder)
        users = {user_digest(folder.key(), user_id): user_id for user_id in user_ids}
        _refuse_unknown(folder, users)
        removals = (
            _states,
            forget_compared.states,
            _studies,
            forget_compared.outcomes,
            forget_compared.answers,
            forget_compared.judgements,
            _results,
            _lists,
            _data,
            _logs,
        )
        said = [remove(folder, users) for remove in removals]
        forget_compared.anchors(folder)
    whom = "this user" if len(users) == 1 else "these users"
    if folder.base.is_dir():
        said.append(f"kept: the population's base, which may have learned from {whom} among many")
    if (folder.path / "shared").is_dir():
        said.append(f"kept: methods' shared parts, which may have learned from {whom} among many")
    return [line for line in said if line]


def ids_in(file: Path | None) -> list[str]:
    """User ids from a file, one a line; empty lines are none, nor is anybody in no file.

    Raises:
        OSError: it can't be read.
        ValueError: it is not UTF-8.
    """
    if file is None:
        return []
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: expected user ids in UTF-8, one a line; {error}") from error
    return [line.removesuffix("\r") for line in lines if line.removesuffix("\r")]


def _refuse_unknown(folder: RunFolder, users: Users) -> None:
    known = held(folder, users)
    unknown = [shown(user_id) for digest, user_id in users.items() if digest not in known]
    if unknown:
        what = "a user" if len(users) == 1 else "users"
        whom = "whom it does not hold" + ("; nobody was removed" if len(users) > 1 else "")
        raise ValueError(f"expected {what} of {folder.path}, got {', '.join(unknown)}, {whom}")


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


def _states(folder: RunFolder, users: Users) -> str:
    if not folder.registry.is_dir():
        return ""
    registry = Registry(folder.registry)
    count = sum(registry.forget(user_id) for user_id in users.values())
    return f"removed from the registry: {count} states" if count else ""


def _studies(folder: RunFolder, users: Users) -> str:
    if not folder.has_studies:
        return ""
    storage = open_storage(folder.storage())
    found = [digest for digest in study_names(storage) if digest in users]
    for digest in found:
        Study(storage, digest).delete()
    if found:
        scrub(storage)
    return "removed from the studies" if found else ""


def _results(folder: RunFolder, users: Users) -> str:
    if not (folder.path / results.FILE_NAME).is_file():
        return ""
    found = results.load(folder.path)
    kept = found.without(*users.values())
    if kept == found:
        return ""
    results.save(kept, folder.path)
    report.write(folder.path, bool(found.experiment.get("examples", True)))
    return "removed from results and report"


def _lists(folder: RunFolder, users: Users) -> str:
    for digest in users:
        (folder.winners / f"{digest}.json").unlink(missing_ok=True)
    if not (folder.path / FILE_NAME).is_file():
        return ""
    choice = Choice.load(folder.path)
    kept = choice.without(*users.values())
    if kept == choice:
        return ""
    kept.save(folder.path)
    return "removed from the list of users"


def _data(folder: RunFolder, users: Users) -> str:
    removed = 0
    for histories in data_of(folder):
        found = [user_id for user_id in users.values() if user_id in histories.pair_counts]
        if found:
            _tables(folder)
            histories.forget(*found)
            removed += 1
    return "removed from the data" if removed else ""


def _tables(folder: RunFolder) -> None:
    """Removes what a comparison found; before the data, which tell what is still to be done."""
    for name in ("compare.json", "compare.md", "slots.html"):
        (folder.path / name).unlink(missing_ok=True)


def _logs(folder: RunFolder, users: Users) -> str:
    """Packers' and stations' logs without the lines of the users' tasks."""
    removed = 0
    for file in logs_of(folder):
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not names_one_of(line, users)]
        if len(kept) < len(lines):
            write_private(file, "".join(kept))
            removed += 1
    return "removed from the logs" if removed else ""
