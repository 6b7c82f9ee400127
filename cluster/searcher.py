"""Tune's searcher over the studies of many users: which trial comes next, and what it gave.

It fits nothing and trains nothing. `suggest` runs on Tune's controller thread, so it only takes
from a queue, which askers fill ahead: Tune keeps as many idle trial actors as trials are staged, or
one, so a searcher that has nothing between two trials makes Ray start a process for each.

Order: what was asked and not told when the shard began, in the order of asking; then new proposals,
of the user with the fewest pending. A user has at most `PENDING_PER_USER` pending: slots stay idle
rather than guess more. Told at once when a trial ends, before anything else hears of it.

NOTE: a result given to `on_trial_complete` has no configuration, and an exception in there makes
Tune call it again: so trial ids are kept until the study has been told, and telling is idempotent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ray.tune.search import Searcher

from search.space import MemoryConfig

PENDING_PER_USER = 4
ATTEMPTS = 3

Values = Mapping[str, float]
Notify = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Proposal:
    """A trial of a user's study that waits for its result."""

    digest: str
    number: int
    configuration: MemoryConfig
    attempt: int = 1


class Book(Protocol):
    """What the searcher needs of the studies: told results, and what they hold."""

    def pending(self, digest: str) -> Sequence[Proposal]:
        """Asked and not told, in the order of asking."""

    def asked(self, digest: str) -> int:
        """How many trials were ever asked."""

    def tell(self, proposal: Proposal, result: Mapping[str, Any]) -> None:
        """Stores objectives; does nothing when told before."""

    def fail(self, proposal: Proposal, reason: str) -> None:
        """Stores a failure; does nothing when told before."""


class Asking(Protocol):
    """Askers at work: requests go in, proposals come out later."""

    def request(self, digest: str, count: int) -> None:
        """Ask for so many proposals of a user."""

    def collect(self) -> list[tuple[str, int, list[Proposal]]]:
        """(user, count asked for, proposals) of the requests that have ended."""


@dataclass
class _User:
    """Counts of one user's trials: asked in all, pending, and requested of the askers."""

    asked: int
    pending: int
    requested: int = 0
    exhausted: bool = False

    @property
    def ahead(self) -> int:
        return self.pending + self.requested


class StudySearcher(Searcher):  # type: ignore[misc]  # Ray is untyped here
    """The studies of one shard's users."""

    def __init__(
        self,
        digests: Sequence[str],
        book: Book,
        asking: Asking,
        *,
        trials: int,
        batch: int,
        ahead: int,
        to_config: Callable[[Proposal], dict[str, Any]],
        notify: Notify,
    ) -> None:
        """Takes up every user where their study stands.

        Args:
            digests: the shard's users.
            book: their studies.
            asking: where proposals come from.
            trials: of each user, the base itself included.
            batch: proposals requested at once.
            ahead: proposals kept ready or running, over all users.
            to_config: what Tune hands to a trial.
            notify: told of every end, for progress.
        """
        super().__init__()
        self._book, self._asking, self._notify, self._to_config = book, asking, notify, to_config
        self._trials, self._batch, self._ahead = trials, batch, ahead
        waiting = {digest: list(book.pending(digest)) for digest in digests}
        self._users = {d: _User(book.asked(d), len(waiting[d])) for d in digests}
        first = sorted((p for ps in waiting.values() for p in ps), key=lambda p: p.number)
        self._queue: deque[Proposal] = deque(first)
        self._running: dict[str, Proposal] = {}
        self._draining = False

    def __getstate__(self) -> dict[str, object]:
        """Nothing: Tune pickles its searcher, and the studies are the truth."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's configuration, None when none is ready, or that there are no more."""
        self._collect()
        self._request()
        if self._queue:
            proposal = self._queue.popleft()
            self._running[trial_id] = proposal
            return self._to_config(proposal)
        self._say_draining()
        return None if self._running or not self._over() else Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tells the study; a trial whose process or packer died goes to the front of the queue."""
        proposal = self._running.get(trial_id)
        if proposal is None:
            return
        if error or result is None or result.get("lost"):
            self._again(proposal)
        elif result.get("error"):
            self._failed(proposal, str(result["error"]))
        elif "rouge_l" not in result:
            self._failed(proposal, "stopped before its end")
        else:
            self._book.tell(proposal, result)
            self._ended(proposal, result)
        del self._running[trial_id]

    def save(self, checkpoint_path: str) -> None:
        """Keeps nothing: the studies are the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Has nothing to restore."""

    def _collect(self) -> None:
        for digest, count, proposals in self._asking.collect():
            user = self._users[digest]
            user.requested -= count
            user.asked += len(proposals)
            user.pending += len(proposals)
            user.exhausted = not proposals
            self._queue.extend(proposals)

    def _request(self) -> None:
        """Requests proposals until enough are ready, of the user with the fewest ahead."""
        while sum(user.ahead for user in self._users.values()) < self._ahead:
            open_users = [digest for digest in self._users if self._room(digest)]
            if not open_users:
                return
            digest = min(open_users, key=lambda d: (self._users[d].ahead, self._users[d].asked))
            count = self._room(digest)
            self._users[digest].requested += count
            self._asking.request(digest, count)

    def _room(self, digest: str) -> int:
        """How many proposals may be requested of a user now."""
        count = min(self._batch, self._left(digest))
        most = max(PENDING_PER_USER, self._batch)
        return count if self._users[digest].ahead + count <= most else 0

    def _left(self, digest: str) -> int:
        """How many of a user's trials nobody has asked for."""
        user = self._users[digest]
        return 0 if user.exhausted else max(0, self._trials - user.asked - user.requested)

    def _over(self) -> bool:
        return not any(user.ahead or self._left(d) for d, user in self._users.items())

    def _say_draining(self) -> None:
        """Once every trial is asked for and handed out, the next shard may start."""
        if self._draining or any(u.requested or self._left(d) for d, u in self._users.items()):
            return
        self._draining = True
        self._notify({"event": "draining"})

    def _again(self, proposal: Proposal) -> None:
        if proposal.attempt >= ATTEMPTS:
            self._failed(proposal, f"its process died {ATTEMPTS} times")
        else:
            self._queue.appendleft(replace(proposal, attempt=proposal.attempt + 1))

    def _failed(self, proposal: Proposal, reason: str) -> None:
        self._book.fail(proposal, reason)
        self._ended(proposal, {"error": reason})

    def _ended(self, proposal: Proposal, result: Mapping[str, Any]) -> None:
        user = self._users[proposal.digest]
        user.pending -= 1
        names = ("loss_nats", "rouge_l", "error")
        shown = {name: result[name] for name in names if name in result}
        anchor = not proposal.configuration.layers
        told = {"event": "told", "digest": proposal.digest, "anchor": anchor, **shown}
        self._notify(told)
