"""The table of the ablations: each beside the whole space on the same users, in Markdown.

Differences are taken within a user and averaged; in brackets are 95 % bootstrap intervals over
users. Only users split between sessions count, where there are any. Nobody is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from cluster import wording
from cluster.comparison import METRICS, Compared, Metric, contrast
from cluster.results import Measured, UserResult

SHOWN = ("loss", "ROUGE-L", "recall, all")
Read = Callable[["Outcome", str], Measured]


@dataclass(frozen=True)
class Outcome:
    """One preset's run: its users, and each user's published memory on test words, by user id."""

    preset: str
    layer_count: int
    users: tuple[UserResult, ...]
    test: Mapping[str, Measured]

    def validation_of(self, user_id: str) -> Measured:
        """The user's published memory on validation words."""
        return next(user.winner for user in self.users if user.user_id == user_id)

    def test_of(self, user_id: str) -> Measured:
        """The user's published memory on test words."""
        return self.test[user_id]


def document(outcomes: Sequence[Outcome], seed: int, rank: int) -> str:
    """All tables; the first outcome is the whole space, `rank` the one without a search.

    Raises:
        ValueError: the runs have other users.
    """
    whole, *_ = outcomes
    named = {user.user_id for user in whole.users}
    for each in outcomes:
        if {user.user_id for user in each.users} != named or set(each.test) != named:
            raise ValueError(f"{each.preset}: expected the users of {whole.preset}, got others")
    users = [user for user in whole.users if user.by_session] or list(whole.users)
    parts = [
        f"# Ablations on {len(users)} users, differences to {whole.preset}",
        *_tables("test", outcomes, users, Outcome.test_of, seed),
        *_tables("validation", outcomes, users, Outcome.validation_of, seed),
        *_parameters(whole, users, rank),
    ]
    return "\n".join(parts) + "\n"


def _tables(
    title: str, outcomes: Sequence[Outcome], users: Sequence[UserResult], read: Read, seed: int
) -> list[str]:
    whole = outcomes[0]
    ids = [user.user_id for user in users]
    known = [m for m in METRICS if m.name in SHOWN]
    metrics = [m for m in known if any(m.read(read(whole, who)) is not None for who in ids)]
    headings = ["preset", *(part for m in metrics for part in (m.name, "difference", "better for"))]
    lines = ["", f"## On {title} words", "", _line([*headings, "memories", "parameters"])]
    lines.append(_line(["---", *("---:" for _ in range(len(headings) + 1))]))
    for outcome in outcomes:
        cells = [cell for m in metrics for cell in _cells(m, outcome, whole, users, read, seed)]
        lines.append(_line([outcome.preset, *cells, *_sizes(outcome, ids)]))
    return lines


def _cells(
    metric: Metric,
    outcome: Outcome,
    whole: Outcome,
    users: Sequence[UserResult],
    read: Read,
    seed: int,
) -> list[str]:
    """Mean, difference with its interval, and for how many users it is better."""
    values = [metric.read(read(outcome, user.user_id)) for user in users]
    known = [value for value in values if value is not None]
    mean = _number(metric, fmean(known)) if known else wording.NOTHING
    pairs = [_pair(user, read(outcome, user.user_id), read(whole, user.user_id)) for user in users]
    found = None if outcome is whole else contrast(metric, "own", "base", pairs, seed)
    if found is None:
        return [mean, "", ""]
    ends = [
        wording.NOTHING if end is None else _signed(metric, end) for end in (found.low, found.high)
    ]
    difference = f"{_signed(metric, found.mean)} [{ends[0]}, {ends[1]}]"
    return [mean, difference, f"{found.better} of {found.users}"]


def _pair(user: UserResult, own: Measured, whole: Measured) -> Compared:
    """A preset's memory as `own` beside the whole space's as `base`, for `contrast`."""
    return Compared(
        user.user_id, user.digest, user.by_session, user.kind, 0, 0, (), {"own": own, "base": whole}
    )


def _sizes(outcome: Outcome, ids: Sequence[str]) -> list[str]:
    """How many users have a memory, and the mean of its parameters over all of them."""
    users = [user for user in outcome.users if user.user_id in ids]
    memories = sum(user.kind == "milp" for user in users)
    return [str(memories), wording.count(fmean(user.parameters for user in users))]


def _parameters(whole: Outcome, users: Sequence[UserResult], rank: int) -> list[str]:
    """Table 7, as ratios: the searched memories against one in every layer."""
    lines = ["", "## Parameters with a search, against a memory in every layer", ""]
    found = [user.configuration for user in users if user.configuration.layers]
    if not found:
        return [*lines, "No user has a memory."]
    layers = [len(c.layers) / whole.layer_count for c in found]
    sizes = [share * c.rank / rank for share, c in zip(layers, found, strict=True)]
    lines += [_line(["against", "mean", "least", "most"]), _line(["---", "---:", "---:", "---:"])]
    for name, ratios in (
        ("all layers at the winner's own rank", layers),
        (f"all layers at rank {rank}", sizes),
    ):
        numbers = (fmean(ratios), min(ratios), max(ratios))
        lines.append(_line([name, *(f"{number:.3f}" for number in numbers)]))
    kept = len(users) - len(found)
    return [*lines, "", f"Over {len(found)} users with a memory; {kept} more keep the base: 0."]


def _number(metric: Metric, value: float) -> str:
    return wording.percent(value) if metric.fraction else wording.loss(value)


def _signed(metric: Metric, value: float | None) -> str:
    return wording.change(value, "percent" if metric.fraction else "loss")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
