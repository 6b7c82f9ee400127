"""The order of a run's work: shard after shard, and each shard's winners beside the next shard.

It decides what starts when, and starts again what broke; it trains and scores nothing itself. A
shard starts while the last one drains; on more slots than one controller keeps busy, several run
beside each other, each on its part of them. A user's winner is the one that the study names; it is
trained once more, at full budget, by a packer, which publishes it. Where repeats of the winner are
wanted, they come before that: who has a published winner is done.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cluster.budget import Rules, parted
from cluster.controllers import Controllers
from cluster.experiment import seed_of
from cluster.folder import RunFolder
from cluster.process import BrokeOff
from cluster.progress import Progress
from cluster.repeats import Repeat, keep, repeats_of
from cluster.shard import ShardPlan, shards_beside, shards_of
from cluster.streams import Event, Streams
from cluster.studies import OBJECTIVES
from cluster.trial import NOBODY, SILENCE_SECONDS, choose, is_anybody_there, task_name
from search import header
from search.census import census
from search.space import BASE_CONFIG, MemoryConfig
from search.storage import reopen_storage
from search.study import Study

ATTEMPTS = 3
_POLL_SECONDS = 0.5

_Named = tuple[str, Event]


@dataclass(frozen=True)
class _Winner:
    """A winner to be trained; `reason` says why it is the base, where the study doesn't."""

    digest: str
    configuration: MemoryConfig
    reason: str | None = None


class Schedule:
    """One run's shards and winners."""

    def __init__(self, plan: ShardPlan, controllers: Controllers, progress: Progress) -> None:
        """What is left to do of a run.

        Args:
            plan: of one shard that would hold every user.
            controllers: run the shards.
            progress: told of everything.
        """
        self._plan, self._controllers, self._progress = plan, controllers, progress
        self._storage = reopen_storage(plan.search.storage, progress.note)
        published = {file.stem for file in RunFolder(plan.run).winners.glob("*.json")}
        asked = self._show_what_is_known(published)
        open_users = [digest for digest in plan.seeds if digest not in published]
        expected = plan.search.rules.expected(len(plan.seeds))
        self._beside = shards_beside(len(open_users), expected, plan.slots)
        slots = plan.slots // self._beside
        parts = shards_of(open_users, expected, slots, self._beside)
        rules = parted(plan.search.rules, asked, parts)
        self._shards = deque(
            self._part(f"shard-{i}", digests, rules[i], slots)
            for i, digests in enumerate(parts)
            if digests
        )
        self._plans = {shard.name: shard for shard in self._shards}
        self._attempts: Counter[str] = Counter()
        self._winners: deque[_Winner] = deque()
        self._training: dict[str, _Winner] = {}
        self._repeats: deque[Repeat] = deque()
        self._repeating: dict[str, Repeat] = {}
        self._streams = Streams()
        self._heard_at = time.monotonic()
        self.unscored: dict[str, str] = {}  # users on whom not even the base could be scored

    def run(self) -> None:
        """Works until every user's winner is published.

        Raises:
            BrokeOff: a shard broke three times, or its database was away for too long.
        """
        self.begin()
        while len(self._streams) or self._winners or self._repeats:
            self._start_repeats()
            self._start_winners()
            for name, event in self._watched(self._streams.wait(_POLL_SECONDS)):
                if name in self._plans:
                    if event.get("done"):
                        self._controllers.ended(name, event.keys().isdisjoint(("broken", "failed")))
                    self._shard_event(self._plans[name], event)
                elif name in self._repeating:
                    self._repeat_event(self._repeating[name], event)
                else:
                    self._winner_event(self._training[name], event)

    def _watched(self, events: Sequence[_Named]) -> Sequence[_Named]:
        """The same; after a long silence it is said if no packer answers, since trials wait."""
        now = time.monotonic()
        if events:
            self._heard_at = now
        elif now > self._heard_at + SILENCE_SECONDS:
            self._heard_at = now
            if not is_anybody_there(self._plan.packers):
                self._progress.note(NOBODY)
        return events

    def begin(self) -> None:
        """Starts the first shards."""
        for _ in range(self._beside):
            self._next_shard()

    def _part(self, name: str, digests: Iterable[str], rules: Rules, slots: int) -> ShardPlan:
        seeds = {digest: self._plan.seeds[digest] for digest in digests}
        search = replace(self._plan.search, rules=rules)
        return replace(self._plan, name=name, seeds=seeds, search=search, slots=slots)

    def _show_what_is_known(self, published: Container[str]) -> dict[str, int]:
        """Shows every user's study, and tells how many trials each was asked.

        Raises:
            ValueError: a study was made with another space, other objectives or another version.
        """
        digests = list(self._plan.seeds)
        about = header.of(self._plan.search.space, OBJECTIVES)
        asked = dict.fromkeys(digests, 0)
        for digest in digests:
            self._progress.know(digest, (), digest in published)
        # What differs is refused here: of a shard's failure only the place would be said.
        for digest, trials in census(self._storage, digests, about):
            self._progress.know(digest, trials, digest in published)
            asked[digest] = max(0, len(trials) - 1)
        return asked

    # Shards.

    def _next_shard(self) -> None:
        if self._shards:
            self._start(self._shards.popleft())

    def _start(self, shard: ShardPlan) -> None:
        self._streams.add(shard.name, self._controllers.start(shard))

    def _shard_event(self, shard: ShardPlan, event: Mapping[str, Any]) -> None:
        if why := event.get("broken") or event.get("failed"):
            if event.get("final"):
                raise BrokeOff(f"{shard.name}: {why}")
            if not self._may_start_again(shard.name):
                raise BrokeOff(
                    f"{shard.name} broke {ATTEMPTS} times, the last time by {why}; what was done "
                    "is kept, --resume goes on"
                )
            self._start(shard)
        elif event["event"] == "told":
            self._progress.told(event)
        elif event["event"] == "note":
            self._progress.note(f"{shard.name}: {event['text']}")
        elif event["event"] == "advised":
            self._progress.advised(shard.name, event["configurations"])
        elif event["event"] == "draining":
            self._next_shard()
        else:
            for digest in shard.seeds:
                self._search_ended(digest)

    def _may_start_again(self, name: str) -> bool:
        self._attempts[name] += 1
        return self._attempts[name] < ATTEMPTS

    # Repeats.

    def _search_ended(self, digest: str) -> None:
        """A user's trials have all ended: their repeats come next, or their winner."""
        study, count = Study(self._storage, digest), self._plan.repeat_winner
        repeats = repeats_of(study, count, self._plan.seeds[digest])
        self._repeats.extend(repeats)
        if not repeats:
            self._winners.append(_winner_of(study))

    def _start_repeats(self) -> None:
        while self._repeats and self._free():
            one = self._repeats.popleft()
            packer = self._packer_for(one.name)
            stream = packer.evaluate.options(name=one.name, num_returns="streaming")
            task = (one.digest, one.configuration.to_json(), one.seed, one.repeat)
            self._repeating[one.name] = one
            self._streams.add(one.name, stream.remote(*task, checkpoints=False))

    def _repeat_event(self, one: Repeat, event: Mapping[str, Any]) -> None:
        del self._repeating[one.name]
        if event.get("broken") or event.get("lost"):
            if event.get("refused") or self._may_start_again(one.name):
                self._repeats.append(one)
                return
            event = {"error": f"its process died {ATTEMPTS} times"}
        study = Study(self._storage, one.digest)
        keep(study, one, event)
        self._progress.repeated(one.digest, event)
        left = (*self._repeats, *self._repeating.values())
        if not any(other.digest == one.digest for other in left):
            self._winners.append(_winner_of(study))

    def _free(self) -> bool:
        """Whether a packer has a place for one more."""
        return len(self._training) + len(self._repeating) < self._plan.slots

    def _packer_for(self, name: str) -> Any:
        return choose(name, self._plan.packers, self._progress.note)[1]

    # Winners.

    def _start_winners(self) -> None:
        while self._winners and self._free():
            winner = self._winners.popleft()
            name = task_name(winner.digest, f"winner-{winner.configuration.key}")
            packer = self._packer_for(name)
            stream = packer.train_winner.options(name=name, num_returns="streaming")
            self._training[name] = winner
            self._streams.add(
                name,
                stream.remote(
                    winner.digest,
                    winner.configuration.to_json(),
                    seed_of(self._plan.seeds[winner.digest], "winner"),
                    winner.reason,
                ),
            )

    def _winner_event(self, winner: _Winner, event: Mapping[str, Any]) -> None:
        if event["done"]:
            del self._training[task_name(winner.digest, f"winner-{winner.configuration.key}")]
        if event.get("broken") or event.get("lost"):
            if event.get("refused") or self._may_start_again(winner.digest):
                self._winners.append(winner)
            else:
                self._fall_back(winner, f"its process died {ATTEMPTS} times")
        elif event.get("error"):
            self._fall_back(winner, str(event["error"]))
        else:
            self._progress.winner(winner.digest, event)

    def _fall_back(self, winner: _Winner, why: str) -> None:
        """A winner that fails at full budget leaves its user with the base."""
        if winner.configuration == BASE_CONFIG:
            self.unscored[winner.digest] = winner.reason or f"the base could not be scored: {why}"
        else:
            reason = f"full training failed: {why}"
            self._attempts[winner.digest] = 0
            self._winners.append(_Winner(winner.digest, BASE_CONFIG, reason))


def _winner_of(study: Study) -> _Winner:
    """Whom the study names."""
    if study.anchor is None or study.anchor.values is None:
        why = study.anchor.reason if study.anchor else None
        return _Winner(study.name, BASE_CONFIG, f"the base could not be scored: {why}")
    return _Winner(study.name, study.winner().config)
