"""How the contenders of a cohort stand: figures, Markdown tables of them, and a drawing.

`standings.md`, `standings.json` and an SVG for each cohort are written beside the searches.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.cohorts import GOAL, Cohort
from benchmarks.curves import BUDGETS, Curves, Estimate, Reaching, curves_of, estimates
from benchmarks.drawing import Line, drawing


@dataclass(frozen=True)
class Standing:
    """One contender's figures; those at a budget are in the order of `budgets`."""

    contender: str
    users: int
    searches: int
    trials: int
    budgets: tuple[int, ...]  # that it got
    reached: list[Estimate]  # shares of the true hypervolume
    gaps: list[Estimate]  # logarithms to base 10 of what is missing
    area: Estimate
    default_ahead: list[Estimate] | None  # the default's shares less this one's
    default_area_ahead: Estimate | None  # over the trials that this one got
    goal: Reaching | None
    goal_median: int | None
    ask_seconds: float
    stand_ins: float


def standing(curves: Curves, default: Curves | None, goal: Curves | None) -> Standing:
    """The figures of one contender, against the default and the one that sets the goal."""
    budgets = tuple(budget for budget in BUDGETS if budget <= curves.trials)
    trials, ahead, area_ahead = curves.trials, None, None
    if default is not None and default.contender != curves.contender:
        ahead = estimates(default.reached(budgets) - curves.reached(budgets))
        (area_ahead,) = estimates(default.area(trials) - curves.area(trials))
    reaching = Reaching.of(curves, goal) if goal is not None else None
    return Standing(
        curves.contender,
        len(curves.shares),
        sum(map(len, curves.shares.values())),
        trials,
        budgets,
        estimates(curves.reached(budgets)),
        estimates(curves.gaps(budgets)),
        estimates(curves.area(trials))[0],
        ahead,
        area_ahead,
        reaching,
        reaching.median if reaching else None,
        curves.ask_seconds,
        curves.stand_ins,
    )


def publish(cohorts: Sequence[Cohort], folder: Path) -> str:
    """The tables of all cohorts; they, their figures and a drawing of each are written too."""
    texts, figures = [], {}
    for cohort in cohorts:
        curves = curves_of(cohort, folder)
        by_name = {one.contender: one for one in curves}
        standings = [standing(c, by_name.get(cohort.default), by_name.get(GOAL)) for c in curves]
        texts.append(tables(cohort.title, cohort.default, standings))
        figures[cohort.title] = [asdict(one) for one in standings]
        if curves:
            name = cohort.title.replace(", ", "-").replace(" ", "-")
            (folder / f"{name}.svg").write_text(drawn(cohort.title, curves))
    text = "\n".join(texts)
    (folder / "standings.md").write_text(text)
    (folder / "standings.json").write_text(json.dumps(figures, indent=1))
    return text


def drawn(title: str, curves: Sequence[Curves]) -> str:
    """The mean share of the true hypervolume after every trial, as SVG."""
    lines = []
    for one in curves:
        found = estimates(one.of_users(lambda share: share))
        low, high = (
            [getattr(e, side) for e in found if e.low is not None] for side in ("low", "high")
        )
        lines.append(Line(one.contender, [e.mean for e in found], low, high))
    return drawing(f"{title}: share of the true hypervolume", "trials", lines)


def tables(title: str, default: str, standings: Sequence[Standing]) -> str:
    """Markdown: shares, what is missing, the default against each, and when goals were reached."""
    if not standings:
        return f"## {title}\n\nNo user has been searched by all contenders yet.\n"
    one = standings[0]
    parts = [
        f"## {title}\n\nUsers: {one.users}; searches of each contender: {one.searches}. "
        + ("Means [95 % intervals over users]." if one.users > 1 else "One user: no interval."),
        "Share of the true hypervolume after so many trials:",
        _by_budget(standings, [s.reached for s in standings], 3),
        "log10 of the share that is missing, no smaller than -4:",
        _by_budget(standings, [s.gaps for s in standings], 2),
    ]
    others = [s for s in standings if s.default_ahead and s.default_area_ahead]
    if others:
        parts += [
            f"How far {default} is ahead, user by user (below 0: behind), and by the area under "
            "the curve over the trials that both got:",
            _by_budget(
                others,
                [s.default_ahead or [] for s in others],
                3,
                {"area": [_shown(s.default_area_ahead, 3) for s in others]},
            ),
        ]
    return "\n\n".join([*parts, _summary(standings)]) + "\n"


def _summary(standings: Sequence[Standing]) -> str:
    """Area, cost and, where there is one, the goal."""
    text = (
        "CPU-seconds are those of asking. Stand-ins are trials that the sampler could not propose "
        "itself."
    )
    head = ["", "trials", "area", "CPU-s a trial", "stand-ins"]
    if any(standing.goal for standing in standings):
        head += ["goal reached", "median trials", "mean curve"]
        text += (
            f" The goal is the final share of {GOAL} on the same user. Trials to it: the median of "
            "users, and of the mean curve to the mean goal."
        )
    rows = [
        [s.contender, str(s.trials), _shown(s.area, 3), f"{s.ask_seconds:.3f}",
         f"{s.stand_ins:.1%}", *_goal(s)]
        for s in standings
    ]  # fmt: skip
    return f"{text}\n\n{_table(head, rows)}"


def _goal(standing: Standing) -> list[str]:
    if standing.goal is None:
        return []
    over = f"> {standing.trials}"
    return [
        f"{standing.goal.reached} of {standing.goal.searches}",
        str(standing.goal_median or over),
        str(standing.goal.of_mean or over),
    ]


def _by_budget(
    standings: Sequence[Standing],
    figures: Sequence[Sequence[Estimate]],
    digits: int,
    more: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """A row for each contender, empty beyond its own budget; `more` are columns at the end."""
    budgets = max((standing.budgets for standing in standings), key=len)
    rows = []
    for i, (standing, found) in enumerate(zip(standings, figures, strict=True)):
        cells = [_shown(one, digits) for one in found] + [""] * (len(budgets) - len(found))
        rows.append([standing.contender, *cells, *(column[i] for column in (more or {}).values())])
    return _table(["", *map(str, budgets), *(more or {})], rows)


def _shown(found: Estimate | None, digits: int) -> str:
    if found is None:
        return ""
    if found.low is None:
        return f"{found.mean:.{digits}f}"
    return f"{found.mean:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
