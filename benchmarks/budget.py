"""What it is worth to give the next trial to the user whose search promises most.

`python -m benchmarks.budget --out FOLDER`: made-up users of very different sizes share a total of
trials, once alike and once by `cluster.budget`, from the same seeds. Each trial is told before the
next one is asked for. What is kept is how many trials everybody got and the share of the true
front's hypervolume that they reached; figures are means over users, and paired differences with a
95 % interval by bootstrap over users. The gains that were promised are kept too: what they were
after so many trials says where a threshold for stopping may lie.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.problem import MadeUpProblem
from benchmarks.searches import OBJECTIVES
from benchmarks.transfer import interval
from cluster.budget import Budget, Rules, Share
from search.pareto import hypervolume, reference_point
from search.samplers import Observation, SamplerSettings, initial_count, make_sampler
from search.space import BASE_CONFIG

LAYER_COUNTS = (8, 8, 16, 16, 32, 32)  # one user each: small spaces are soon known
AVERAGE, CEILING = 20, 40
SETTINGS = SamplerSettings("gp", initial_count(AVERAGE))
THRESHOLDS = (0.05, 0.02, 0.01, 0.005)


class Searched:
    """One user's search, one trial at a time."""

    def __init__(self, problem: MadeUpProblem, seed: int) -> None:
        self.problem, self._seed = problem, seed
        self._sampler = make_sampler(SETTINGS)
        self._done = [Observation(BASE_CONFIG, problem.base)]
        self._reference: tuple[float, ...] | None = None

    def step(self) -> float | None:
        """Asks for a trial and tells it; what it promised."""
        rows = [o.values for o in self._done[1:] if o.values is not None]
        if self._reference is None and len(rows) >= SETTINGS.initial:
            self._reference = reference_point(OBJECTIVES, rows, self.problem.base)
        space, done = self.problem.space, self._done
        (found,) = self._sampler.suggest(
            space, OBJECTIVES, done, [], 1, self._seed, self._reference
        )
        self._done.append(Observation(found.config, self.problem.observe(found.config)))
        return found.gain

    def volumes(self) -> list[float]:
        """The share of the true front's hypervolume after each trial."""
        whole = hypervolume(OBJECTIVES, self.problem.front.tolist(), self.problem.corner)
        true = self.problem.true([o.config for o in self._done[1:]]).tolist()
        return [
            hypervolume(OBJECTIVES, true[: n + 1], self.problem.corner) / whole
            for n in range(len(true))
        ]


@dataclass(frozen=True)
class Course:
    """One user's share of the trials, and what it came to."""

    user: str
    volumes: list[float]  # after each trial
    gains: list[float | None]  # promised by each trial


def shared(rules: Rules, seed: int, file: Path) -> list[Course]:
    """All users under these rules, read where it was kept."""
    if not file.is_file():
        users = {
            f"{place}-L{layers}": Searched(MadeUpProblem(layers, place, 0.5, seed), seed)
            for place, layers in enumerate(LAYER_COUNTS)
        }
        budget = Budget(rules, dict.fromkeys(users, 0), {name: [] for name in users})
        while wanted := budget.request():
            name, _ = wanted
            budget.arrived(name, [users[name].step()])
            budget.ended(name)
        courses = [
            Course(name, user.volumes(), budget.users[name].gains) for name, user in users.items()
        ]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps([asdict(course) for course in courses]))
    return [Course(**course) for course in json.loads(file.read_text())]


def table(alike: Sequence[Course], promised: Sequence[Course]) -> str:
    """A Markdown table: a line for each user, and the means."""
    lines = [["user", "trials alike", "reached", "trials by promise", "reached"], ["---"] * 5]
    for one, other in zip(alike, promised, strict=True):
        lines.append([one.user, *_shown(one), *_shown(other)])
    ends = np.array([[one.volumes[-1] for one in courses] for courses in (alike, promised)])
    means = [f"{mean:.3f}" for mean in ends.mean(1)]
    low, high = interval(ends[1] - ends[0])
    gain = f"{means[1]} ({(ends[1] - ends[0]).mean():+.3f} [{low:+.3f}, {high:+.3f}])"
    counts = [str(sum(len(one.volumes) for one in courses)) for courses in (alike, promised)]
    lines.append(["all", counts[0], means[0], counts[1], gain])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def stops(courses: Sequence[Course]) -> str:
    """A Markdown table: trials and hypervolume where searches had been ended by a threshold."""
    lines = [["stop below", "trials", "of", "reached", "of"], ["---"] * 5]
    for below in THRESHOLDS:
        ends = [_end(course.gains, below) for course in courses]
        reached = np.mean([one.volumes[end - 1] for one, end in zip(courses, ends, strict=True)])
        whole = np.mean([one.volumes[-1] for one in courses])
        every = sum(len(course.volumes) for course in courses)
        lines.append([f"{below:g}", str(sum(ends)), str(every), f"{reached:.3f}", f"{whole:.3f}"])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _shown(course: Course) -> list[str]:
    return [str(len(course.volumes)), f"{course.volumes[-1]:.3f}"]


def _end(gains: Sequence[float | None], below: float) -> int:
    """After how many trials a search ends under this threshold."""
    ends = (n for n in range(len(gains)) if Share(n, 0, 0, [*gains[:n]]).is_quiet(below))
    return next(ends, len(gains))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="where searches are kept")
    parser.add_argument("--seed", type=int, default=0, help="of users and searches")
    given = parser.parse_args(arguments)
    folder = given.out / f"budget{given.seed}"
    rules = Rules(CEILING, SETTINGS.initial, total=AVERAGE * len(LAYER_COUNTS))
    alike = replace(rules, ceiling=AVERAGE)
    courses = [
        shared(alike, given.seed, folder / "alike.json"),
        shared(rules, given.seed, folder / "promised.json"),
    ]
    print(table(*courses), stops(courses[1]), sep="\n\n")


if __name__ == "__main__":
    main()
