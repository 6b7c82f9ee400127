"""What a search's trials cost: Milpa against Tune with PEFT, equal work, measured in one run.

For every data set and precision: first Milpa's own search (`packed_search.py`), then exactly its
users, configurations and seeds by the baseline in both forms (`baseline_tune_peft.py`). Everything
counts, of all processes: starting, Ray, Tune, studies. Losses that differ by more than the
tolerance end the benchmark with an error: faster is worth nothing if it trains something else.

Not in the baseline's bill, since it hardly could be made to pay them: reading the data and making
tokens of it, asking, storing studies, and scoring the base once for each user. Milpa pays them.

    python -m benchmarks.training --base BASE --data DATA [DATA ...] --examples 4 --out FOLDER
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import recorded
from benchmarks.baseline_tune_peft import FORMS
from benchmarks.meter import cost
from benchmarks.packed_search import experiment_of
from benchmarks.training_table import OURS, Measured, table
from benchmarks.workload import PlannedTrial, Workload
from cluster.experiment import Experiment
from cluster.folder import RunFolder
from cluster.subjects import Subjects
from cluster.users import Choice
from examples.generate import write as write_examples
from models.base import Base

TOLERANCE_NATS = {"float32": 1e-3, "bfloat16": 2e-2}
LIBRARIES = ("torch", "transformers", "peft", "ray")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _parser()
    given = parser.parse_args(arguments)
    if not given.data and not given.examples:
        parser.error("expected --data or --examples, got neither: nothing to measure on")
    if given.out.exists():
        parser.error(f"--out: expected a folder that is to be made, got {given.out}, which exists")
    given.out.mkdir(parents=True)
    measured: list[Measured] = []
    for data, user_said in _sources(given):
        for dtype in given.dtypes:
            folder = given.out / f"{data.name}-{dtype}"
            folder.mkdir()
            for one in _measured(given, data, user_said, dtype, folder):
                measured.append(one)
                (given.out / "training.md").write_text(table(measured), encoding="utf-8")
    print(table(measured))
    content = {"machine": _machine(), "measured": [asdict(one) for one in measured]}
    (given.out / "training.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    wrong = unequal(measured)
    print("\n".join(wrong))
    sys.exit(bool(wrong))


def unequal(measured: Sequence[Measured]) -> list[str]:
    """Systems that did not end with Milpa's losses."""
    return [
        f"{one.data} {one.dtype} {one.system}: losses {one.loss_apart:.1e} nats apart, more than "
        f"{TOLERANCE_NATS[one.dtype]:.0e}"
        for one in measured
        if one.loss_apart > TOLERANCE_NATS[one.dtype]
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", required=True)
    parser.add_argument("--data", type=Path, nargs="*", default=[])
    parser.add_argument("--examples", type=int, default=0, help="users to generate")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--trials", type=int, default=6, help="of each user")
    parser.add_argument("--dtypes", nargs="+", choices=TOLERANCE_NATS, default=[*TOLERANCE_NATS])
    parser.add_argument("--forms", nargs="*", choices=FORMS, default=[*FORMS])
    parser.add_argument("--forms-in", nargs="+", choices=TOLERANCE_NATS, help="dtypes; default all")
    parser.add_argument("--together", type=int, default=len(os.sched_getaffinity(0)))
    return parser


def _sources(given: argparse.Namespace) -> Iterator[tuple[Path, str]]:
    """Data, and which text in it is the user's own."""
    for data in given.data:
        yield data, "response"
    if given.examples:
        write_examples(given.out / "made", given.examples, seed=0, population=0)
        yield given.out / "made" / "users", "query"


def _measured(
    given: argparse.Namespace, data: Path, user_said: str, dtype: str, folder: Path
) -> Iterator[Measured]:
    """Milpa and each form of the baseline on the same trials."""
    options = {"--users": given.users, "--trials": given.trials, "--user-said": user_said}
    words = [str(part) for pair in options.items() for part in pair]
    ours = _run(
        folder, OURS, "packed_search", "--data", str(data), "--base", given.base, "--dtype", dtype,
        "--run", str(folder / "run"), *words,
    )  # fmt: skip
    yield Measured.of_ours(data.name, dtype, *ours)
    e = experiment_of(str(data), given.base, given.users, given.trials, user_said, dtype)
    _workload(folder, e, dtype, ours[1]["trials"]).save(folder / "workload.json")
    for form in given.forms if dtype in (given.forms_in or given.dtypes) else ():
        theirs = _run(
            folder, form, "baseline_tune_peft", "--workload", str(folder / "workload.json"),
            "--form", form, "--together", str(given.together),
        )  # fmt: skip
        yield Measured.of_theirs(data.name, dtype, form, *theirs, ours[1]["trials"])


def _run(folder: Path, name: str, module: str, *words: str) -> tuple[Any, Any]:
    """A module's cost and results."""
    out, ready = folder / f"{name}.json", folder / f"{name}.ready"
    command = [sys.executable, "-m", f"benchmarks.{module}", "--out", str(out)]
    spent = cost([*command, "--ready", str(ready), *words], folder / f"{name}.log", ready)
    return spent, json.loads(out.read_text(encoding="utf-8"))


def _workload(folder: Path, experiment: Experiment, dtype: str, trials: Sequence[Any]) -> Workload:
    """What a run of Milpa's did, for others to do the same."""
    run = RunFolder(folder / "run")
    base = Base.load(experiment.base, "cpu", dtype)
    subjects = Subjects(run, base, experiment.items)
    users = Choice.load(run.path).searched
    people = [recorded.person(base, subjects.of(user.digest), experiment) for user in users]
    planned = [PlannedTrial(**trial["trial"]) for trial in trials]
    return recorded.workload(base, dtype, people, planned)


def _machine() -> dict[str, Any]:
    versions = {name: version(name) for name in LIBRARIES}
    cores = len(os.sched_getaffinity(0))
    return {"cores": cores, "processor": platform.processor() or platform.machine(), **versions}


if __name__ == "__main__":
    main()
