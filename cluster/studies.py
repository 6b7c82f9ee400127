"""The studies of a shard's users: what is asked, what is told, and askers at work on the next.

It knows no Tune. A study has one writer, and this is it: a proposal that comes back from an asker
is stored before anybody else hears of it, and so is a result. At most one request of a user is
under way, since the next depends on it being pending.

Every call waits while the database is away. It is made by Tune's controller, which has nothing
better to do: no result can be stored, and so none may be heard of. Packers go on with what they
hold, and askers too.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from cluster.budget import Rules
from cluster.experiment import seed_of
from search.evidence import earlier
from search.pareto import LOSS, ROUGE_L
from search.patience import Say
from search.samplers import Evidence, Known, Proposal, SamplerSettings
from search.space import MemoryConfig, SearchSpace
from search.storage import Trial, reopen_storage
from search.study import Study

OBJECTIVES = (LOSS, ROUGE_L)
_MEASURED = ("rouge_l_error", "item_count", "steps", "train_seconds", "curve")
_COUNTS = "counts/"  # as Tune flattens what a trial says its text lost

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """A trial of a user's study that waits for its result."""

    digest: str
    number: int
    configuration: MemoryConfig
    seed: int
    gain: float | None = None  # expected of it, see `search.samplers.Proposal`
    attempt: int = 1


@dataclass(frozen=True)
class SearchPlan:
    """What every study of a run has in common.

    `per_rank[i]` is the sum of layer i's feed-forward features, in and out: parameters for each
    unit of rank.
    """

    storage: str
    space: SearchSpace
    per_rank: tuple[int, ...]
    sampler: SamplerSettings
    rules: Rules
    transfer: bool = False  # whether new users learn from the studies of others
    base: str = ""  # fingerprint; who was searched on another one is no example


class Studies:
    """Studies by user digest, and requests under way."""

    def __init__(
        self,
        plan: SearchPlan,
        seeds: Mapping[str, int],
        askers: Sequence[Any] = (),
        say: Say = _logger.warning,
    ) -> None:
        """Opens or makes each user's study, and asks its anchor first.

        Args:
            plan: what the studies have in common.
            seeds: each user's seed, by digest.
            askers: handles of `Asker` actors; none where nothing is to be requested.
            say: told when the database is away, and when it is back.

        Raises:
            DatabaseAway: it was away for too long; so does whatever else is called here.
        """
        storage = reopen_storage(plan.storage, say)
        self._plan, self._seeds, self._patience = plan, seeds, storage.patience
        self._studies = {
            digest: Study.open(storage, digest, plan.space, OBJECTIVES, plan.base)
            for digest in seeds
        }
        for digest, study in self._studies.items():
            study.ask_anchor(seed_of(seeds[digest], "anchor"))
        self._askers = deque(askers)
        self._requests: dict[Any, tuple[str, Known]] = {}
        self.advised = 0  # configurations that new users are given to begin with
        if plan.transfer and any(study.is_new for study in self._studies.values()):
            seed = seed_of(*sorted(seeds.values()), "earlier")
            self._learn(earlier(storage, plan.space, OBJECTIVES, plan.base, seeds, seed))

    def _learn(self, others: Mapping[int, Evidence]) -> None:
        """Gives new users a portfolio; it is stored before their first ask, with its sources."""
        advice = self.advice(list(others.values())) if others else ()
        for study in self._studies.values():
            study.settle_portfolio(advice, list(others))
        self.advised = len(advice)

    def advice(self, others: Sequence[Evidence]) -> tuple[MemoryConfig, ...]:
        """What an asker makes of other users' studies."""
        reference = self._askers[0].advise.remote(self._plan.space, OBJECTIVES, others)
        advice: tuple[MemoryConfig, ...] = ray.get(reference)
        return advice

    def pending(self, digest: str) -> list[Asked]:
        """Asked and not told, in the order of asking."""
        return [_asked(digest, trial) for trial in self._studies[digest].pending()]

    def gains(self, digest: str) -> list[float | None]:
        """What every trial asked promised, in the order of asking, without the anchor."""
        return [trial.gain for trial in self._studies[digest].trials[1:]]

    def trials(self, digest: str) -> list[Trial]:
        """A user's trials as they are stored, in the order of asking."""
        return self._studies[digest].trials

    def request(self, digest: str, count: int) -> None:
        """Asks an asker for the user's next configurations."""
        asker = self._askers[0]
        self._askers.rotate(-1)
        known = self._studies[digest].known()
        self._requests[asker.suggest.remote(*self.grounds(digest, count))] = (digest, known)

    def grounds(self, digest: str, count: int) -> tuple[Any, ...]:
        """What a user's next proposals are made from: the arguments of `Sampler.suggest`."""
        study = self._studies[digest]
        return (
            study.space,
            study.objectives,
            study.completed(),
            [trial.config for trial in study.pending()],
            count,
            self._seeds[digest],
            study.settle_reference(self._plan.sampler.initial),
            study.portfolio,
        )

    def collect(self) -> list[tuple[str, list[Asked]]]:
        """Requests that have come back, stored as pending; fewer where the space has run out.

        NOTE: what is raised at a trial's end is to Tune that trial's failure. Here it ends all.
        """
        self._patience.check()
        if not self._requests:
            return []
        waiting = list(self._requests)
        ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0, fetch_local=True)
        found = []
        for one in ready:
            digest, known = self._requests.pop(one)
            found.append(self.stored(digest, ray.get(one), known))
        return found

    def stored(
        self, digest: str, proposals: Sequence[Proposal], known: Known | None = None
    ) -> tuple[str, list[Asked]]:
        """Proposals that have come back, stored as pending with what they were made from."""
        wanted = [
            (
                proposal,
                seed_of(self._seeds[digest], proposal.config.key),
                proposal.config.parameter_count(self._plan.per_rank),
            )
            for proposal in proposals
        ]
        trials = self._studies[digest].ask_all(wanted, known)
        return digest, [_asked(digest, trial) for trial in trials]

    def tell(self, asked: Asked, result: Mapping[str, Any]) -> str | None:
        """Stores objectives, and what else was measured; telling again changes nothing.

        Returns:
            Why the trial failed, where the objectives are no finite numbers.
        """
        measured = {name: result[name] for name in _MEASURED if name in result}
        measured |= {name: n for name, n in result.items() if name.startswith(_COUNTS)}
        values = (result["loss_nats"], result["rouge_l"])
        return self._studies[asked.digest].tell(asked.number, values, measured).reason

    def stop(self, asked: Asked, reason: str, result: Mapping[str, Any]) -> None:
        """Stores that a trial was not worth finishing, with its curve until then, and no values."""
        measured = {name: result[name] for name in ("steps", "curve") if name in result}
        self._studies[asked.digest].stop(asked.number, reason, measured)

    def fail(self, asked: Asked, reason: str) -> None:
        """Stores a failure; telling again changes nothing."""
        self._studies[asked.digest].fail(asked.number, reason)


def _asked(digest: str, trial: Trial) -> Asked:
    return Asked(digest, trial.number, trial.config, trial.seed, trial.gain)
