"""What it is worth to give the next trial to the user whose search promises most.

`python -m benchmarks.budget --out FOLDER`: made-up users of very different sizes share a total of
trials, once alike and once by `cluster.budget`. A user's search doesn't depend on the others', only
how far it gets does; so each is run to its ceiling once, a trial at a time, and kept in the folder,
and ways of sharing are replayed on what was kept. Figures are shares of the true front's
hypervolume, means over users, and paired differences with a 95 % interval by bootstrap over users;
then where searches would have ended under some thresholds.

Found (seed 0; nine users): no difference beyond the interval at any total; -0.011 and -0.022 at 20
and 28 trials a user, +0.027 and +0.044 at 34 and 40, where small spaces are exhausted. A promise
tells well when a search is over and badly which of two is worth more before. Other rules, replayed
on these and on six users of seed 1, means of seven totals: alike 0.708; all to the user whose last
promise is largest 0.695, or whose last three are 0.703; in proportion to the last three 0.713 (what
`cluster.budget` does), to the last eight 0.711; in proportion to what the front grew lately 0.695.
Ending a search under 0.01 saves 14 % of 450 trials for 0.010 of hypervolume; under 0.02, 22 % for
0.043.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.problem import MadeUpProblem
from benchmarks.searches import OBJECTIVES
from benchmarks.transfer import interval
from cluster.budget import Budget, Rules
from search.pareto import hypervolume, hypervolume_trace, reference_point
from search.samplers import Observation, SamplerSettings, initial_count, make_sampler
from search.space import BASE_CONFIG

LAYER_COUNTS = (8, 16, 32) * 3  # one user each: small spaces are soon known
AVERAGES, CEILING = (20, 28, 34, 40), 50  # trials of a user
SETTINGS = SamplerSettings("gp", initial_count(CEILING))
THRESHOLDS = (0.05, 0.04, 0.03, 0.02, 0.01)


@dataclass(frozen=True)
class Course:
    """One user's search to the ceiling."""

    user: str
    volumes: list[float]  # the share of the true front's hypervolume after each trial
    gains: list[float | None]  # promised by each trial


def searched(problem: MadeUpProblem, seed: int, file: Path) -> Course:
    """A user's search, read where it was kept."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(".part")
        aside.write_text(json.dumps(asdict(_search(problem, seed))))
        aside.replace(file)
    return Course(**json.loads(file.read_text()))


def _search(problem: MadeUpProblem, seed: int) -> Course:
    sampler, reference = make_sampler(SETTINGS), None
    done, gains = [Observation(BASE_CONFIG, problem.base)], list[float | None]()
    while len(done) <= CEILING:
        rows = [o.values for o in done[1:] if o.values is not None]
        if reference is None and len(rows) >= SETTINGS.initial:
            reference = reference_point(OBJECTIVES, rows, problem.base)
        (found,) = sampler.suggest(problem.space, OBJECTIVES, done, [], 1, seed, reference)
        done.append(Observation(found.config, problem.observe(found.config)))
        gains.append(found.gain)
    whole = hypervolume(OBJECTIVES, problem.front.tolist(), problem.corner)
    true = problem.true([o.config for o in done[1:]]).tolist()
    trace = hypervolume_trace(OBJECTIVES, true, problem.corner)
    return Course(problem.name, [volume / whole for volume in trace], gains)


def shared(courses: Sequence[Course], rules: Rules) -> list[int]:
    """How many trials each user gets under these rules."""
    users = {course.user: course for course in courses}
    counts = dict.fromkeys(users, 0)
    budget = Budget(rules, dict.fromkeys(users, 0), {user: [] for user in users})
    while wanted := budget.request():
        user, _ = wanted
        budget.arrived(user, [users[user].gains[counts[user]]])
        budget.ended(user)
        counts[user] += 1
    return list(counts.values())


def table(courses: Sequence[Course], averages: Sequence[int] = AVERAGES) -> str:
    """A Markdown table: a line for each total, as trials of a user on average."""
    lines = [["trials a user", "alike", "by promise", "difference", "most", "fewest"], ["---"] * 6]
    for average in averages:
        promised = shared(courses, Rules(CEILING, SETTINGS.initial, average * len(courses)))
        alike = [average] * len(courses)
        ends = np.array([_reached(courses, counts) for counts in (alike, promised)])
        low, high = interval(ends[1] - ends[0])
        means = [f"{mean:.3f}" for mean in ends.mean(1)]
        difference = f"{(ends[1] - ends[0]).mean():+.3f} [{low:+.3f}, {high:+.3f}]"
        lines.append([str(average), *means, difference, *map(str, (max(promised), min(promised)))])
    return _text(lines)


def stops(courses: Sequence[Course]) -> str:
    """A Markdown table: trials and hypervolume where searches are ended by a threshold."""
    lines = [["stop below", "trials", "reached"], ["---"] * 3]
    for below in (0.0, *THRESHOLDS):
        counts = shared(courses, Rules(CEILING, SETTINGS.initial, stop_below=below))
        reached = np.mean(_reached(courses, counts))
        lines.append([f"{below:g}", str(sum(counts)), f"{reached:.3f}"])
    return _text(lines)


def _reached(courses: Sequence[Course], counts: Sequence[int]) -> list[float]:
    return [course.volumes[n - 1] for course, n in zip(courses, counts, strict=True)]


def _text(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="where searches are kept")
    parser.add_argument("--seed", type=int, default=0, help="of users and searches")
    parser.add_argument("--users", type=int, default=len(LAYER_COUNTS))
    given = parser.parse_args(arguments)
    courses = []
    for user, layers in enumerate(LAYER_COUNTS[: given.users]):
        problem = MadeUpProblem(layers, user, 0.5, given.seed)
        file = given.out / f"budget{given.seed}" / f"{problem.name}.json"
        courses.append(searched(problem, given.seed, file))
    print(table(courses), stops(courses), sep="\n\n")


if __name__ == "__main__":
    main()
