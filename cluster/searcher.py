"""Tune's searcher over the studies of many users: which trial comes next, and what it gave.

It fits nothing and trains nothing. `suggest` runs on Tune's controller thread, so it only takes
from a queue, which askers fill ahead: Tune keeps as many idle trial actors as trials are staged, or
one, so a searcher that has nothing between two trials makes Ray start a process for each.

Order: what was asked and not told when the shard began, in the order of asking; then new proposals,
of the user whom the shard's budget names. A user has at most `PENDING_PER_USER` pending, or one
batch: slots stay idle rather than guess more. A study is told at once when a trial ends, before
anything else hears of it.

NOTE: a result given to `on_trial_complete` has no configuration, and an exception in there makes
Tune call it again: so trial ids are kept until the study has been told, and telling is idempotent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from ray.tune.search import Searcher

from cluster.budget import Budget, Rules
from cluster.studies import Asked

ATTEMPTS = 3

Notify = Callable[[dict[str, Any]], None]


class Ledger(Protocol):
    """What the searcher needs of the studies; `cluster.studies.Studies`."""

    def pending(self, digest: str) -> Sequence[Asked]:
        """Asked and not told, in the order of asking."""

    def gains(self, digest: str) -> Sequence[float | None]:
        """What every trial asked promised, in the order of asking, without the anchor."""

    def request(self, digest: str, count: int) -> None:
        """Have the user's next trials asked."""

    def collect(self) -> Sequence[tuple[str, Sequence[Asked]]]:
        """Requests that have come back, with fewer trials where the space has run out."""

    def tell(self, asked: Asked, result: Mapping[str, Any]) -> str | None:
        """Store objectives, nothing when told before; why they make a failure, where they do."""

    def stop(self, asked: Asked, reason: str, result: Mapping[str, Any]) -> None:
        """Store that it was not worth finishing; nothing when told before."""

    def fail(self, asked: Asked, reason: str) -> None:
        """Store a failure; nothing when told before."""


class StudySearcher(Searcher):  # type: ignore[misc]  # Ray is untyped here
    """The studies of one shard's users."""

    def __init__(
        self,
        digests: Sequence[str],
        ledger: Ledger,
        *,
        rules: Rules,
        ahead: int,
        to_config: Callable[[Asked], dict[str, Any]],
        notify: Notify,
    ) -> None:
        """Takes up every user where their study stands.

        Args:
            digests: the shard's users.
            ledger: their studies.
            rules: how many trials users get.
            ahead: trials kept ready or running, over all users.
            to_config: what Tune hands to a trial.
            notify: told of every end, for progress.
        """
        super().__init__()
        self._ledger, self._notify, self._to_config = ledger, notify, to_config
        self._ahead = ahead
        waiting = {digest: list(ledger.pending(digest)) for digest in digests}
        self._budget = Budget(
            rules,
            {digest: len(some) for digest, some in waiting.items()},
            {digest: ledger.gains(digest) for digest in digests},
        )
        first = sorted((one for some in waiting.values() for one in some), key=lambda a: a.number)
        self._queue: deque[Asked] = deque(first)
        self._running: dict[str, Asked] = {}
        self._stopped: dict[str, tuple[str, Mapping[str, Any]]] = {}
        self._draining = False

    def __getstate__(self) -> dict[str, object]:
        """Nothing: Tune pickles its searcher, and the studies are the truth."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's configuration, None when none is ready, or that there are no more."""
        self._collect()
        self._request()
        self._say_draining()
        if self._queue:
            asked = self._queue.popleft()
            self._running[trial_id] = asked
            return self._to_config(asked)
        return str(Searcher.FINISHED) if self._budget.is_over else None

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tells the study; a trial whose process or packer died goes to the front of the queue.

        So does one that a packer refused, however often: nothing has been tried.
        """
        asked = self._running.get(trial_id)
        if asked is None:
            return
        if trial_id in self._stopped:
            reason, reached = self._stopped[trial_id]
            self._ledger.stop(asked, reason, reached)
            self._ended(asked, {"stopped": reason})
            del self._stopped[trial_id]
        elif result and result.get("refused"):
            self._queue.appendleft(asked)
        elif error or result is None or result.get("lost"):
            self._again(asked)
        elif result.get("error"):
            self._failed(asked, str(result["error"]))
        elif "rouge_l" not in result:
            self._failed(asked, "stopped before its end")
        else:
            failure = self._ledger.tell(asked, result)
            self._ended(asked, {"error": failure} if failure else result)
        del self._running[trial_id]

    def stop(self, trial_id: str, reason: str, reached: Mapping[str, Any]) -> None:
        """Of a running trial: it is not finished, since it was not worth it.

        Args:
            trial_id: Tune's.
            reason: why.
            reached: its last result; never told as a full one.
        """
        self._stopped[trial_id] = (reason, reached)

    def save(self, checkpoint_path: str) -> None:
        """Keeps nothing: the studies are the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Has nothing to restore."""

    def _collect(self) -> None:
        for digest, asked in self._ledger.collect():
            self._budget.arrived(digest, [one.gain for one in asked])
            self._queue.extend(asked)

    def _request(self) -> None:
        """Requests until enough trials are ahead, or the budget names nobody."""
        while self._budget.ahead < self._ahead and (wanted := self._budget.request()):
            self._ledger.request(*wanted)

    def _say_draining(self) -> None:
        """Once nothing is left to ask, the next shard may start: slots must not wait for it."""
        if not self._budget.is_asking and not self._draining:
            self._draining = True
            self._notify({"event": "draining"})

    def _again(self, asked: Asked) -> None:
        if asked.attempt >= ATTEMPTS:
            self._failed(asked, f"its process died {ATTEMPTS} times")
        else:
            self._queue.appendleft(replace(asked, attempt=asked.attempt + 1))

    def _failed(self, asked: Asked, reason: str) -> None:
        self._ledger.fail(asked, reason)
        self._ended(asked, {"error": reason})

    def _ended(self, asked: Asked, result: Mapping[str, Any]) -> None:
        self._budget.ended(asked.digest)
        names = ("loss_nats", "rouge_l", "error", "stopped")
        shown = {name: result[name] for name in names if name in result}
        is_anchor = not asked.configuration.layers
        self._notify({"event": "told", "digest": asked.digest, "is_anchor": is_anchor, **shown})
