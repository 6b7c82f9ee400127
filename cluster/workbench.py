"""One device's work without Ray: a base, the pack that trains on it, and the scores of what ends.

Tasks are named by whoever adds them. A trial ends with its objectives on the validation part; a
winner is trained at full budget, compared with the base once more, and published. The test part is
never read here.

It raises what goes wrong; which task that ends, and that the others go on, is `packer.py`'s part.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from cluster.experiment import Experiment
from cluster.folder import RunFolder
from cluster.results import Example, Measured, UserResult, write_private
from cluster.trial import Event
from models.base import Base
from models.catalog import personalizer
from models.gain import GainMatrix, gain_matrix
from models.history import Histories, Interaction, Split, split, user_digest, user_texts
from models.persona import Persona
from models.personalizer import Budget, Finished, Task, UserState, attach
from models.published import WINNER_IS_BASE, BaseIdentity
from models.registry import Registry
from models.scoring import Scores, answer_limit, evaluation_items, score
from search.space import MemoryConfig

EXAMPLES = 5
_USERS_KEPT = 256

Events = list[tuple[str, Event]]


@dataclass(frozen=True)
class BenchSettings:
    """What a workbench is set up with."""

    run: Path
    base: str
    experiment: Experiment
    device: str = "auto"
    threads: int = 1


@dataclass(frozen=True)
class _User:
    """A user's parts, and what is scored of them."""

    user_id: str
    digest: str
    parts: Split
    items: tuple[Interaction, ...]
    answer_tokens: int
    profile: str | None


@dataclass(frozen=True)
class _Job:
    """A task at work."""

    user: _User
    is_winner: bool
    reason: str | None  # why a winner is the base
    started: float


class Workbench:
    """A base, its pack, and the users whose memories train there."""

    def __init__(self, settings: BenchSettings) -> None:
        if settings.device == "cpu":
            torch.set_num_threads(settings.threads)
        self._experiment = settings.experiment
        self._folder = RunFolder(settings.run)
        self._lock = self._folder.write_lock()
        self._base = Base.load(settings.base, settings.device)
        self._method = personalizer("milp")
        self._fitting = self._method.start(self._base)
        self._attach = attach(self._method, self._base)
        self._histories = Histories.open(self._folder.data)
        key = self._folder.key()
        self._user_ids = {user_digest(key, user): user for user in self._histories.user_ids}
        self._user = lru_cache(_USERS_KEPT)(self._read_user)
        self._jobs: dict[str, _Job] = {}
        self._ended: dict[str, Finished] = {}

    def describe(self) -> dict[str, Any]:
        """What a search needs to know of the base."""
        base = self._base
        shapes = [base.matrix_shapes(layer).values() for layer in range(base.layer_count)]
        return {
            "name": base.name,
            "fingerprint": base.fingerprint,
            "layer_count": base.layer_count,
            "smallest_dimension": base.smallest_dimension,
            "per_rank": tuple(sum(i + o for i, o in layer) for layer in shapes),
        }

    def add(self, name: str, digest: str, configuration: MemoryConfig, seed: int) -> None:
        """Takes a trial in. The base itself has nothing to train: it is ready to be scored."""
        e = self._experiment
        budget = Budget(e.injection_epochs, e.tuning_epochs, epoch_tokens=e.epoch_tokens)
        self._add(name, digest, configuration, seed, budget, is_winner=False, reason=None)

    def add_winner(
        self, name: str, digest: str, configuration: MemoryConfig, seed: int, reason: str | None
    ) -> None:
        """Takes a winner in: trained at full budget and published.

        Args:
            reason: why the base is the winner, where that is decided already for another reason
                than that nothing beat it.
        """
        e = self._experiment
        injection = e.winner_epochs if e.injection_epochs else 0
        tuning = e.winner_epochs if e.tuning_epochs else 0
        budget = Budget(injection, tuning, epoch_tokens=None)
        self._add(name, digest, configuration, seed, budget, is_winner=True, reason=reason)

    def train(self) -> Events:
        """One step of the pack: its checkpoints, and failures of what ended in one."""
        if not self._fitting.running:
            return []
        reports, finished = self._fitting.step()
        events: Events = []
        for report in reports:
            fields = asdict(report)
            events.append((fields.pop("key"), {**fields, "done": False}))
        for end in finished:
            if end.error is None:
                self._ended[end.key] = end
            else:
                del self._jobs[end.key]
                events.append((end.key, {"error": end.error, "done": True}))
        return events

    def ready(self) -> list[str]:
        """Tasks that wait for their scores."""
        return list(self._ended)

    def busy(self) -> bool:
        """Whether anything trains or waits for scores."""
        return bool(self._fitting.running or self._ended)

    def stop(self, name: str) -> None:
        """Drops a task, if it is here."""
        if self._jobs.pop(name, None) is not None and self._ended.pop(name, None) is None:
            self._fitting.stop(name)

    def give_up(self) -> list[str]:
        """Drops all that trains; returns what that was."""
        training = [name for name in self._jobs if name not in self._ended]
        for name in training:
            del self._jobs[name]
        self._fitting = self._method.start(self._base)
        return training

    def score(self, names: Sequence[str]) -> Events:
        """The ends of these tasks, all scored in the same batches."""
        trials = [name for name in names if not self._jobs[name].is_winner]
        winners = [name for name in names if self._jobs[name].is_winner]
        scores = iter(self._scores(trials, [self._ended[name].state for name in trials]))
        events = [(name, self._objectives(name, next(scores))) for name in trials]
        events += [(name, self._published(name)) for name in winners]
        for name in names:
            del self._jobs[name], self._ended[name]
        return events

    def publish_left_out(self, reasons: Mapping[str, str]) -> None:
        """Publishes users who were not searched as answered by the base, each with its reason."""
        registry, identity = Registry(self._folder.registry), BaseIdentity.of(self._base)
        for user_id, reason in reasons.items():
            registry.publish(UserState("milp", user_id, {}, {}), identity, {}, reason)

    def gain(self, digests: Sequence[str], seed: int) -> GainMatrix:
        """Every user's own memory against strangers', on validation items; users are digests."""
        registry = Registry(self._folder.registry)
        users = {digest: self._user(digest) for digest in digests}
        return gain_matrix(
            self._base,
            self._attach,
            {digest: registry.load(user.user_id, self._base) for digest, user in users.items()},
            {digest: user.items for digest, user in users.items()},
            seed,
            answer_limits={digest: user.answer_tokens for digest, user in users.items()},
            prompt=self._method.prompt,
        )

    def _read_user(self, digest: str) -> _User:
        history = self._histories.load(self._user_ids[digest])
        parts = split(history)
        return _User(
            history.user_id,
            digest,
            parts,
            evaluation_items(parts.validation, self._experiment.items),
            answer_limit(self._base, parts.train),
            history.profile,
        )

    def _add(
        self,
        name: str,
        digest: str,
        configuration: MemoryConfig,
        seed: int,
        budget: Budget,
        *,
        is_winner: bool,
        reason: str | None,
    ) -> None:
        user = self._user(digest)
        job = _Job(user, is_winner, reason, time.monotonic())
        if configuration.layers:
            self._fitting.add(
                Task(
                    name,
                    user.user_id,
                    user.parts.train,
                    user.parts.validation,
                    configuration,
                    seed,
                    self._experiment.user_said,
                    budget,
                )
            )
        else:
            self._ended[name] = Finished(name, None)
        self._jobs[name] = job

    def _scores(
        self,
        names: Sequence[str],
        states: Sequence[UserState | None],
        personas: Sequence[Persona | None] | None = None,
    ) -> list[Scores]:
        if not names:
            return []
        users = [self._jobs[name].user for name in names]
        return score(
            self._base,
            self._attach,
            states,
            [user.items for user in users],
            [user.answer_tokens for user in users],
            personas,
            self._method.prompt,
        )

    def _objectives(self, name: str, scores: Scores) -> Event:
        job, end = self._jobs[name], self._ended[name]
        return {
            "loss_nats": scores.loss_nats,
            "rouge_l": scores.rouge_l,
            "rouge_l_error": scores.rouge_l_error,
            "item_count": len(job.user.items),
            "steps": end.steps,
            "train_seconds": time.monotonic() - job.started,
            **end.counts,
            "done": True,
        }

    def _published(self, name: str) -> Event:
        """Publishes a winner, or the base where full training did not beat it after all."""
        job, state = self._jobs[name], self._ended[name].state
        user = job.user
        words = user_texts(user.parts.train, self._experiment.user_said)
        persona = Persona.of(words, user.profile)
        scores = self._scores([name, name], [None, state], [persona, persona])
        base, won = scores
        if state is None or won.loss_nats >= base.loss_nats:
            state, won = None, base
        result = _result(user, state, base, won, job.reason)
        Registry(self._folder.registry).publish(
            state or UserState(self._method.name, user.user_id, {}, {}),
            BaseIdentity.of(self._base),
            {
                "loss_nats": won.loss_nats,
                "rouge_l": won.rouge_l,
                "base_loss_nats": base.loss_nats,
                "base_rouge_l": base.rouge_l,
            },
            result.reason,
        )
        self._folder.winners.mkdir(mode=0o700, exist_ok=True)
        file = self._folder.winners / f"{user.digest}.json"
        write_private(file, json.dumps(result.to_json(), allow_nan=False))
        shown = {"loss_nats": won.loss_nats, "rouge_l": won.rouge_l, "kind": result.kind}
        return {**shown, "done": True}


def _result(
    user: _User, state: UserState | None, base: Scores, won: Scores, reason: str | None
) -> UserResult:
    """What the report says of a user."""
    configuration = MemoryConfig((), 0, 0.0)
    if state is not None:
        configuration = MemoryConfig.from_json(state.configuration)
    return UserResult(
        user_id=user.user_id,
        digest=user.digest,
        by_session=user.parts.by_session,
        pairs=sum(i.query is not None for part in _parts(user.parts) for i in part),
        kind="base" if state is None else "milp",
        reason=(reason or WINNER_IS_BASE) if state is None else None,
        configuration=configuration,
        parameters=0 if state is None else sum(t.numel() for t in state.tensors.values()),
        anchor=Measured.of(base),
        winner=Measured.of(won),
        examples=_examples(user.items, base.answers, won.answers),
    )


def _parts(parts: Split) -> tuple[tuple[Interaction, ...], ...]:
    return parts.train, parts.validation, parts.test


def _examples(
    items: Sequence[Interaction], base: Sequence[str], won: Sequence[str]
) -> tuple[Example, ...]:
    """Evenly spaced items with their true answer and both models'."""
    rows = [
        Example(item.query or "", item.response, of_base, of_winner)
        for item, of_base, of_winner in zip(items, base, won, strict=True)
    ]
    step = max(1, len(rows) // EXAMPLES)
    return tuple(rows[::step][:EXAMPLES])
