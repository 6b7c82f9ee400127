"""Compares samplers on users whose true front is known: `make bench-search`.

    python -m benchmarks.samplers --out FOLDER [--recorded FILE] [--processes N] [--limit-hours H]
        [--contenders NAME ...] [--layers L ...] [--users N] [--seeds N] [--trials N]

Every search is kept in FOLDER and never run twice, so a comparison that was stopped goes on; what
is kept is of the code that made it, so other code wants another folder. Without flags: every
sampler but those by NUTS on ten made-up users of 16 layers and five of 32, 8 and 40 layers as
smoke, the users of a recorded table (see `benchmarks.record`) where one is given, and those by NUTS
on three users. At the end tables are printed, and written with their figures and drawings.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType

from benchmarks.cohorts import (
    BY_NUTS,
    BY_NUTS_WHOLE,
    EXTENTS,
    MAIN,
    NAMES,
    RECORDED,
    SMOKE,
    Cohort,
    Extent,
    Search,
    in_order,
    made_up,
    recorded,
)
from benchmarks.searches import searched
from benchmarks.standings import publish


def run(
    work: Sequence[Search], folder: Path, processes: int, limit_seconds: float
) -> Iterator[tuple[Search, float]]:
    """Runs what is not kept, in order; yields each search and the processor's seconds it took.

    Once the limit is spent none is begun; those that run are finished.
    """
    waiting = deque(one for one in work if not one.file(folder).is_file())
    running: dict[Future[float], Search] = {}
    spent = 0.0
    context = get_context("spawn")
    with _ended_with_this_one(), ProcessPoolExecutor(processes, mp_context=context) as pool:
        while running or (waiting and spent < limit_seconds):
            while waiting and len(running) < processes and spent < limit_seconds:
                one = waiting.popleft()
                running[pool.submit(_timed, one, folder)] = one
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                spent += future.result()
                yield running.pop(future), future.result()


@contextmanager
def _ended_with_this_one() -> Iterator[None]:
    """Meanwhile a SIGTERM ends the processes that search, too; what they had begun is lost.

    Otherwise they would outlive this one, and wait for work for ever.
    """

    def end(number: int, _: FrameType | None) -> None:
        for child in active_children():
            child.terminate()
        raise SystemExit(128 + number)

    if current_thread() is not main_thread():  # where no signal can be handled
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _timed(search: Search, folder: Path) -> float:
    """In a process of its own."""
    began = time.process_time()
    searched(search.problem, search.contender, search.seed, folder)
    return time.process_time() - began


def parser() -> argparse.ArgumentParser:
    """Reads the command's flags; those that are not given leave the cohorts as they are."""
    found = argparse.ArgumentParser(description=__doc__)
    found.add_argument("--out", type=Path, required=True)
    found.add_argument("--recorded", type=Path, help="a table that benchmarks.record made")
    found.add_argument("--processes", type=_positive, default=os.cpu_count() or 1)
    found.add_argument("--limit-hours", type=float, default=math.inf, help="of the processor")
    found.add_argument("--contenders", nargs="+", choices=NAMES)
    found.add_argument("--layers", type=_positive, nargs="*", default=[16, 32, 8, 40])
    found.add_argument("--users", type=_positive)
    found.add_argument("--seeds", type=_positive)
    found.add_argument("--trials", type=_positive)
    found.add_argument("--related", type=float, default=0.0, help="made-up users, from 0 to 1")
    return found


def chosen(given: argparse.Namespace) -> list[Cohort]:
    """The cohorts that the flags ask for."""

    def extent(whole: Extent) -> Extent:
        return Extent(
            given.users or whole.users, given.seeds or whole.seeds, given.trials or whole.trials
        )

    names, found = given.contenders or MAIN, list[Cohort]()
    for layers in given.layers:
        whole = extent(EXTENTS.get(layers, SMOKE))
        found.append(made_up(layers, names, whole, given.related))
    if given.recorded:  # before the longer ones
        found.insert(1, recorded(given.recorded, names, extent(RECORDED)))
    if not given.contenders and 16 in given.layers:
        by_nuts = extent(BY_NUTS_WHOLE)
        found.append(made_up(16, BY_NUTS, by_nuts, given.related, ", beside NUTS"))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    reader = parser()
    given = reader.parse_args(arguments)
    try:
        compared = chosen(given)
    except (OSError, ValueError) as error:
        reader.error(str(error))
    compare(compared, given.out, given.processes, 3600 * given.limit_hours)


def compare(
    cohorts: Sequence[Cohort], folder: Path, processes: int, limit_seconds: float = math.inf
) -> None:
    """Runs what is missing, within the limit, and prints how the contenders stand."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that search
    work = in_order(cohorts)
    missing = [one for one in work if not one.file(folder).is_file()]
    print(f"{len(work)} searches, {len(work) - len(missing)} of them kept already", flush=True)
    spent = 0.0
    for i, (one, seconds) in enumerate(run(missing, folder, processes, limit_seconds), 1):
        spent += seconds
        print(f"{i} of {len(missing)}: {one.name}: {seconds:.1f} CPU-s", flush=True)
    print(left(work, folder, spent), flush=True)
    print(publish(cohorts, folder))


def left(work: Sequence[Search], folder: Path, spent_seconds: float) -> str:
    """What a run has spent and not done."""
    missing = [one for one in work if not one.file(folder).is_file()]
    spent = f"{spent_seconds / 3600:.2f} CPU-hours spent"
    if not missing:
        return f"{spent}, all {len(work)} searches are kept."
    return (
        f"{spent}, the limit: {len(missing)} of {len(work)} searches are left, beginning with "
        f"{missing[0].name}. The same command goes on with them."
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {number}")
    return number


if __name__ == "__main__":
    main()
