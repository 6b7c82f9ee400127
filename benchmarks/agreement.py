"""Whether two comparisons of the same methods, on different users, give the same order.

    python -m benchmarks.agreement FIRST/compare.json SECOND/compare.json

The second is the first one's command with `--skip` and the first one's number of users (and, where
there are not as many more, fewer `--users`): people who were kept aside. For every pair of methods,
the difference of their test losses within users, with its 95 % interval (paired bootstrap over
users), in the first and in the second. A pair `agrees` where both intervals lie on the same side of
0, `disagrees` where they lie on different sides, and is `open` where one holds 0. Two intervals of
the same thing lie apart by chance too: about one pair in two hundred, were users alike and pairs
independent, so pairs `apart` are counted and named.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from pathlib import Path
from typing import Any

from scipy.stats import kendalltau

from cluster.comparison import METRICS
from cluster.comparison_text import signed
from cluster.grid import Grid
from cluster.standing import TIE, Difference, difference_of
from cluster.terms import Terms

LOSS = METRICS[0]
_MAY_DIFFER = {"skip", "users", "methods", "default_budget"}
# What is learned of others, and so the base with it merged in, is not the same on other users.
_ALIKE = {field.name for field in fields(Terms)} - _MAY_DIFFER | {"data_digest"}

Losses = Mapping[str, Mapping[str, float]]
"""By method and user digest: mean test loss over seeds."""


@dataclass(frozen=True)
class Pair:
    """The difference of two methods' losses in either comparison."""

    names: tuple[str, str]
    first: Difference
    second: Difference

    @property
    def verdict(self) -> str:
        """`agrees`, `disagrees` or `open`."""
        sides = {_side(self.first), _side(self.second)}
        if 0 in sides:
            return "open"
        return "agrees" if len(sides) == 1 else "disagrees"

    @property
    def is_apart(self) -> bool:
        """Whether the two intervals have nothing in common."""
        one, two = self.first, self.second
        if one.low is None or one.high is None or two.low is None or two.high is None:
            return False  # a single user has no interval
        return one.high < two.low - TIE or two.high < one.low - TIE


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    given = parser.parse_args(arguments)
    first, second = (
        json.loads(path.read_text(encoding="utf-8")) for path in (given.first, given.second)
    )
    check(first, second)
    print(told(losses_of(first), losses_of(second), first["settings"].get("seed", 0)))


def check(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    """Refuses two comparisons that are not of the same terms on different users.

    Raises:
        ValueError: names what differs, or says that the users are the same.
    """
    ours, theirs = (dict(each["settings"]) for each in (first, second))
    differ = sorted(name for name in _ALIKE if ours.get(name) != theirs.get(name))
    if differ:
        raise ValueError(f"expected two comparisons of the same terms, got other {differ}")
    one, other = sorted((each.get("skip", 0), -each["users"]) for each in (ours, theirs))
    end = one[0] - one[1]
    if other[0] < end:
        raise ValueError(
            f"expected other users in one of the two, got some in both: rerun it with --skip {end} "
            "or more"
        )


def losses_of(stored: Mapping[str, Any]) -> Losses:
    """The losses in a comparison's JSON."""
    return {row["label"]: row["values"][LOSS.name] for row in stored["rows"]}


def pairs_of(first: Losses, second: Losses, seed: int) -> list[Pair]:
    """Every pair of methods that both have, the one that is better in the first before the other.

    Raises:
        ValueError: they have fewer than two methods in common.
    """
    common = sorted((name for name in first if name in second), key=lambda name: _mean(first[name]))
    if len(common) < 2:
        raise ValueError(f"expected two methods or more that both compare, got {common}")
    return [
        Pair(names, *(_difference(losses, names, seed) for losses in (first, second)))
        for names in combinations(common, 2)
    ]


def told(first: Losses, second: Losses, seed: int) -> str:
    """What was found, in Markdown."""
    pairs = pairs_of(first, second, seed)
    common = list(dict.fromkeys(name for pair in pairs for name in pair.names))
    means = [[_mean(losses[name]) for name in common] for losses in (first, second)]
    counts = Counter(pair.verdict for pair in pairs)
    rows = tuple(
        (name, *(f"{column[place]:.3f}" for column in means)) for place, name in enumerate(common)
    )
    lines = [
        Grid("", ("method", "loss of the first users", "of the second"), rows).pipes(),
        "",
        f"Kendall's tau of the two orders: {kendalltau(*means).statistic:.2f}; of {len(pairs)} "
        f"pairs {counts['agrees']} agree, {counts['disagrees']} disagree, {counts['open']} are "
        f"open; intervals apart: {sum(pair.is_apart for pair in pairs)}",
    ]
    named = [pair for pair in pairs if pair.is_apart or pair.verdict == "disagrees"]
    lines += [
        f"- {' less '.join(pair.names)}: {_shown(pair.first)}, then {_shown(pair.second)}"
        for pair in named
    ]
    return "\n".join(lines)


def _mean(losses: Mapping[str, float]) -> float:
    return sum(losses.values()) / len(losses)


def _difference(losses: Losses, names: tuple[str, str], seed: int) -> Difference:
    own, its = (losses[name] for name in names)
    return difference_of([own[user] - its[user] for user in sorted(own)], LOSS, seed)


def _side(found: Difference) -> int:
    if found.low is None or found.high is None:
        return 0
    return (found.low > 0) - (found.high < 0)


def _shown(found: Difference) -> str:
    ends = ", ".join(signed(LOSS, end) for end in (found.low, found.high))
    return f"{signed(LOSS, found.mean)} [{ends}]"


if __name__ == "__main__":
    main()
