"""How far a run is: a live table where somebody looks at a terminal, plain lines where not.

It shows users by their digests; ids stand in what is said of those left out, unless the output is
somebody's log. It is told what happens and decides nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from cluster.outcomes import outcome_of
from search.census import Stand
from search.storage import State

_MOST_ROWS = 30
_LOST = {
    "tokens_cut": "tokens were cut from texts longer than the base's context",
    "tokens_beyond_epoch": "tokens were older than an epoch's limit",
    "newlines_replaced": "newlines inside texts became spaces",
}
_REFRESH_HERTZ = 2
_COLUMNS = (
    "user", "trials", "stopped", "failed", "base loss", "best loss", "best ROUGE-L", "",
)  # fmt: skip


@dataclass
class UserProgress:
    """Where one user's search stands."""

    told: int = 0
    failed: int = 0
    stopped: int = 0
    base_loss: float | None = None
    best_loss: float | None = None
    best_rouge_l: float | None = None
    stage: str = "waits"


@dataclass
class Progress:
    """All users of a run, and how to show them."""

    console: Console
    trials: int
    by_digest: bool = False  # nobody's id is shown
    total: int | None = None  # trials of all users, where that is less than `trials` for each
    users: dict[str, UserProgress] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.monotonic)
    _told: int = field(default=0, init=False)  # trials of all users
    _at_work: dict[str, None] = field(default_factory=dict, init=False)  # as they began

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keeps a table on the terminal; elsewhere every event is a line of its own."""
        if not self.console.is_terminal:
            yield
            return
        with Live(
            get_renderable=self._table, console=self.console, refresh_per_second=_REFRESH_HERTZ
        ):
            yield

    def name(self, user_id: str, digest: str) -> str:
        """What a user is called here."""
        return digest if self.by_digest else repr(user_id[:80])

    def note(self, text: str) -> None:
        """Something that is true of the whole run."""
        self.console.print(f"{self._clock()} {text}", markup=False, highlight=False, soft_wrap=True)

    def know(self, digest: str, trials: Sequence[Stand], is_published: bool) -> None:
        """Where a user's study stands when the run starts."""
        user = self.users[digest] = UserProgress()
        user.stage = "published" if is_published else "waits"
        for trial in trials:
            if trial.state != "pending":
                self._count(user, trial.state, trial.values, is_anchor=trial.number == 0)

    def advised(self, shard: str, configurations: int) -> None:
        """New users of a shard begin with what was best for earlier ones."""
        points = "1 point" if configurations == 1 else f"{configurations} points"
        self.note(f"{shard}: new users begin with {points} of earlier users' fronts")

    def told(self, event: Mapping[str, Any]) -> None:
        """A trial has ended."""
        user = self._works(event["digest"], "searches")
        state = outcome_of(event)
        values = (event["loss_nats"], event["rouge_l"]) if state == "completed" else None
        self._count(user, state, values, event["is_anchor"])
        self._line(event["digest"], _ending("base" if event["is_anchor"] else "trial", event))

    def repeated(self, digest: str, event: Mapping[str, Any]) -> None:
        """The winner or the runner-up was trained again."""
        self._works(digest, "repeats its winner")
        self._line(digest, _ending("repeat", event))

    def winner(self, digest: str, event: Mapping[str, Any]) -> None:
        """A winner is being trained, or has been published."""
        if not event["done"]:
            self._works(digest, f"winner: {event['stage']} {event['epoch']}")
            return
        user = self.users[digest]
        user.stage = f"published: {event['kind']}"
        self._at_work.pop(digest, None)
        self.lost.update(event["counts"])
        self._line(digest, f"{user.stage}, loss {event['loss_nats']:.4f}")

    def say_lost(self) -> None:
        """What the winners' texts lost on their way into training."""
        for name, words in _LOST.items():
            if self.lost[name]:
                self.note(f"{self.lost[name]} {words}")

    def _works(self, digest: str, stage: str) -> UserProgress:
        """A user for whom something has just happened."""
        self._at_work[digest] = None
        user = self.users[digest]
        user.stage = stage
        return user

    def _count(
        self, user: UserProgress, state: State, values: Sequence[float] | None, is_anchor: bool
    ) -> None:
        user.told += not is_anchor
        self._told += not is_anchor
        user.failed += state == "failed"
        user.stopped += state == "stopped"
        if values is None:
            return
        if is_anchor:
            user.base_loss = values[0]
        else:
            loss, rouge_l = values
            user.best_loss = min(loss, user.best_loss or loss)
            user.best_rouge_l = max(rouge_l, user.best_rouge_l or 0.0)

    def _line(self, digest: str, text: str) -> None:
        if not self.console.is_terminal:
            user = self.users[digest]
            self.note(f"{digest} {user.told}/{self.trials} {text}")

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self.started)
        return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"

    def _table(self) -> Table:
        most = len(self.users) * self.trials
        title = f"{self._clock()}  {self._told} of {min(most, self.total or most)} trials"
        table = Table(title=title, title_justify="left")
        for name in _COLUMNS:
            table.add_column(name, justify="left" if name in ("user", "") else "right")
        for digest in islice(self._first(), _MOST_ROWS):
            user = self.users[digest]
            table.add_row(
                digest,
                f"{user.told}/{self.trials}",
                str(user.stopped),
                str(user.failed),
                _number(user.base_loss),
                _number(user.best_loss),
                _number(None if user.best_rouge_l is None else 100 * user.best_rouge_l, 1),
                user.stage,
            )
        return table

    def _first(self) -> Iterator[str]:
        """Those at work, then those who wait, then those who are done."""
        at_work = dict(self._at_work)  # NOTE: the table is drawn by a thread of its own
        yield from at_work
        for is_waiting in (True, False):
            for digest, user in self.users.items():
                if digest not in at_work and (user.stage == "waits") is is_waiting:
                    yield digest


def _ending(what: str, event: Mapping[str, Any]) -> str:
    if "error" in event:
        return f"{what} failed: {event['error']}"
    if "stopped" in event:
        return f"{what} stopped: {event['stopped']}"
    return f"{what} loss {event['loss_nats']:.4f} ROUGE-L {100 * event['rouge_l']:.1f}"


def _number(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"
