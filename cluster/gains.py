"""Personal gain: what a user's own memory is worth beside the base and beside strangers' memories.

A memory that learned only format and domain helps a stranger as much as its owner, so a gain over
the base proves little. The honest number is own against strangers', on the owner's held-out words.

All values are changes of loss in nats per token: below zero is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from rich.table import Table
from rich.text import Text

from cluster import wording
from cluster.results import Entries, Gain, Results

MOST_ROWS = 60  # of users, in a terminal


@dataclass(frozen=True)
class PersonalGain:
    """One user's: own memory and the mean of strangers' memories, each against the base."""

    digest: str
    own: float
    strangers: float | None  # None where no stranger's memory was tried

    @property
    def personal(self) -> float | None:
        """Own against strangers'."""
        return None if self.strangers is None else self.own - self.strangers


@dataclass(frozen=True)
class MeanGain:
    """The means over users, and for how many own is better than strangers'."""

    own: float
    strangers: float | None
    personal: float | None
    better: int
    compared: int


def personal_gains(gain: Gain, base_loss: Mapping[str, float]) -> list[PersonalGain]:
    """Each user's gain, from what was tried and the base's loss on each user (by digest)."""
    rows = []
    for digest, tried in gain.loss.items():
        own = tried.get(digest)
        if own is not None:
            strangers = others_mean(tried, digest)
            against = None if strangers is None else strangers - base_loss[digest]
            rows.append(PersonalGain(digest, own - base_loss[digest], against))
    return rows


def mean_gain(rows: Sequence[PersonalGain]) -> MeanGain | None:
    """The means; strangers' only over users on whom strangers' memories were tried."""
    if not rows:
        return None
    personal = [row.personal for row in rows if row.personal is not None]
    strangers = [row.strangers for row in rows if row.strangers is not None]
    return MeanGain(
        own=fmean(row.own for row in rows),
        strangers=fmean(strangers) if strangers else None,
        personal=fmean(personal) if personal else None,
        better=sum(value < 0 for value in personal),
        compared=len(personal),
    )


def own_and_others(entries: Entries) -> tuple[float | None, float | None]:
    """The mean of own entries and the mean of others' means, over users who have both."""
    pairs = [(tried.get(user), others_mean(tried, user)) for user, tried in entries.items()]
    both = [(own, others) for own, others in pairs if own is not None and others is not None]
    if not both:
        return None, None
    return fmean(own for own, _ in both), fmean(others for _, others in both)


def others_mean(tried: Mapping[str, float], user: str) -> float | None:
    """The mean over the strangers' memories that were tried on a user."""
    values = [value for owner, value in tried.items() if owner != user]
    return fmean(values) if values else None


def table(results: Results, by_digest: bool = False) -> Table | None:
    """The personal gain of a run for a terminal; None where no memory was tried on a stranger."""
    if results.gain is None:
        return None
    users = {user.digest: user for user in results.users}
    rows = personal_gains(results.gain, {d: u.anchor.loss_nats for d, u in users.items()})
    mean = mean_gain(rows)
    if mean is None or mean.personal is None:
        return None
    shown = Table(
        title="Personal gain (validation loss, nats per token)",
        caption=f"own is better than strangers' for {mean.better} of {mean.compared}",
    )
    shown.add_column("user")
    for heading in ("own - base", "strangers' - base", "own - strangers'"):
        shown.add_column(heading, justify="right")
    for row in rows[:MOST_ROWS]:
        name = row.digest if by_digest else users[row.digest].user_id
        _add(shown, name, row.own, row.strangers, row.personal)
    if len(rows) > MOST_ROWS:
        shown.add_row(Text(f"... and {len(rows) - MOST_ROWS} more"))
    shown.add_section()
    _add(shown, "mean", mean.own, mean.strangers, mean.personal)
    return shown


def _add(shown: Table, name: str, *values: float | None) -> None:
    shown.add_row(Text(wording.short(name, 40)), *(wording.change(v, "loss") for v in values))
