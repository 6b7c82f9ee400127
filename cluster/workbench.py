"""One device's work without Ray: a base, the pack that trains on it, and the scores of what ends.

Tasks are named by whoever adds them. A trial ends with its objectives on the validation part; a
winner is trained at full budget, compared with the base once more, and published. The test part is
never read here.

It raises what goes wrong; which task that ends, and that the others go on, is `packer.py`'s part.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from cluster.bench import Events
from cluster.experiment import Experiment
from cluster.folder import RunFolder
from cluster.inside import inside_of
from cluster.subjects import Subject, Subjects
from cluster.trial import Event
from cluster.winners import publish, without_memory
from models.alive import is_alive
from models.base import Base
from models.catalog import attach_all, frame_all, personalizer
from models.gain import GainMatrix, gain_matrix
from models.inside import neutral_rows
from models.personalizer import Budget, Finished, Task
from models.prompt import Row
from models.published import BaseIdentity
from models.recomputation import recomputed
from models.registry import Registry
from models.rouge import mean_rouge_l
from models.scoring import answers, evaluation_items, losses, score
from models.strength import moderated
from search.space import MemoryConfig

GATHERED_SHARE = 0.25  # of the tasks in hand, that are scored together


@dataclass(frozen=True)
class BenchSettings:
    """What a workbench is set up with."""

    run: Path
    base: str
    experiment: Experiment
    device: str = "auto"
    threads: int = 1


@dataclass(frozen=True)
class _Job:
    """A task at work; `reason` says why a winner is the base."""

    user: Subject
    is_winner: bool
    reason: str | None
    started: float


class Workbench:
    """A base, its pack, and the users whose memories train there."""

    def __init__(self, settings: BenchSettings) -> None:
        if settings.device == "cpu":
            torch.set_num_threads(settings.threads)
        self._experiment = settings.experiment
        self._folder = RunFolder(settings.run)
        self._lock = self._folder.write_lock()
        self._base = Base.load(settings.base, settings.device, settings.experiment.dtype)
        self._for_life = ExitStack()
        if settings.experiment.recompute:
            self._for_life.enter_context(recomputed(self._base))
        self._method = personalizer("milp")
        self._fitting = self._method.start(self._base)
        self._attach, self._frame = attach_all(self._base), frame_all(self._base)
        self._subjects = Subjects(self._folder, self._base, settings.experiment.items)
        self._jobs: dict[str, _Job] = {}
        self._ended: dict[str, Finished] = {}
        self._steps = self._memories = 0

    @cached_property
    def _neutral(self) -> tuple[Row, ...]:
        """The base's own answers to questions that anybody may ask anybody."""
        return neutral_rows(self._base, self._attach)

    def describe(self) -> dict[str, Any]:
        """What a search needs to know of the base."""
        base = self._base
        return {
            "name": base.name,
            "fingerprint": base.fingerprint,
            "layer_count": base.layer_count,
            "smallest_dimension": base.smallest_dimension,
            "per_rank": base.per_rank,
        }

    def add(self, name: str, digest: str, configuration: MemoryConfig, seed: int) -> None:
        """Takes a trial in. The base itself has nothing to train: it is ready to be scored."""
        e = self._experiment
        budget = Budget(
            e.injection_epochs,
            e.tuning_epochs,
            epoch_tokens=e.epoch_tokens,
            rehearse=e.rehearse,
        )
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
        budget = Budget(injection, tuning, epoch_tokens=None, rehearse=e.rehearse)
        self._add(name, digest, configuration, seed, budget, is_winner=True, reason=reason)

    def train(self) -> Events:
        """One step of the pack: its checkpoints, and failures of what ended in one."""
        if not self._fitting.running:
            return []
        self._steps += 1
        self._memories += self._fitting.running
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

    def trained(self) -> tuple[int, int]:
        """Steps of the pack since this process began, and the memories in them, added up."""
        return self._steps, self._memories

    def ready(self) -> list[str]:
        """Tasks to be scored now: answers are cheap together, so a few wait for one another."""
        enough = len(self._ended) >= GATHERED_SHARE * len(self._jobs)
        return list(self._ended) if enough or not self._fitting.running else []

    def busy(self) -> bool:
        """Whether anything trains or waits for scores."""
        return bool(self._fitting.running or self._ended)

    def is_alive(self) -> bool:
        """Whether the device still works; one whose memory is full does."""
        return is_alive(self._base.device)

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
        events = self._objectives(trials)
        events += [(name, self._published(name)) for name in winners]
        for name in names:
            del self._jobs[name], self._ended[name]
        return events

    def publish_left_out(self, reasons: Mapping[str, str]) -> None:
        """Publishes users who were not searched as answered by the base, each with its reason."""
        registry, identity = Registry(self._folder.registry), BaseIdentity.of(self._base)
        for user_id, reason in reasons.items():
            registry.publish(without_memory(user_id), identity, {}, reason)

    def gain(self, drawn: Mapping[str, Sequence[str]]) -> GainMatrix:
        """Users' own memories against those drawn, on validation items; all are digests."""
        states = self._subjects.states({one for user in drawn for one in (user, *drawn[user])})
        users = {digest: self._subjects.of(digest) for digest in drawn if digest in states}
        return gain_matrix(
            self._base,
            self._attach,
            states,
            {digest: evaluation_items(user.validation) for digest, user in users.items()},
            {digest: [one for one in drawn[digest] if one in states] for digest in users},
            answer_limits={digest: user.answer_tokens for digest, user in users.items()},
            frame=self._frame,
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
        user = self._subjects.of(digest)
        job = _Job(user, is_winner, reason, time.monotonic())
        said = self._experiment.user_said
        if configuration.layers:
            parts = (user.train, user.validation)
            self._fitting.add(Task(name, user.user_id, *parts, configuration, seed, said, budget))
        else:
            self._ended[name] = Finished(name, None)
        self._jobs[name] = job

    def _objectives(self, names: Sequence[str]) -> Events:
        """A trial's loss is its best checkpoint's; only the base's own must still be taken."""
        if not names:
            return []
        users = [self._jobs[name].user for name in names]
        ends = [self._ended[name] for name in names]
        states = [end.state for end in ends]
        texts_of = answers(
            self._base,
            self._attach,
            states,
            [user.items for user in users],
            [user.answer_tokens for user in users],
            self._frame,
        )
        untrained = [i for i, end in enumerate(ends) if end.loss_nats is None]
        found = losses(
            self._base,
            self._attach,
            [states[i] for i in untrained],
            [evaluation_items(users[i].validation) for i in untrained],
            self._frame,
        )
        base_nats = {i: loss.nats for i, loss in zip(untrained, found, strict=True)}
        return [
            (name, self._end(name, base_nats.get(i, ends[i].loss_nats), texts_of[i]))
            for i, name in enumerate(names)
        ]

    def _end(self, name: str, loss_nats: float | None, texts: Sequence[str]) -> Event:
        job, end = self._jobs[name], self._ended[name]
        mean, error = mean_rouge_l([item.response for item in job.user.items], texts)
        return {
            "loss_nats": loss_nats,
            "rouge_l": mean,
            "rouge_l_error": error,
            "item_count": len(job.user.items),
            "steps": end.steps,
            "train_seconds": time.monotonic() - job.started,
            "counts": dict(end.counts),
            "done": True,
        }

    def _published(self, name: str) -> Event:
        """Publishes a winner, or the base where full training did not beat it after all."""
        job, state = self._jobs[name], self._ended[name].state
        user, persona = job.user, job.user.persona(self._experiment.user_said)
        items, strength = evaluation_items(user.validation), 1.0
        if state is not None:
            state, strength = moderated(self._base, self._attach, state, items, self._frame)
        base, won = score(
            self._base,
            self._attach,
            [None, state],
            [user.items] * 2,
            [user.answer_tokens] * 2,
            [persona] * 2,
            self._frame,
            [items] * 2,
        )
        inside = None
        if state is not None and won.loss_nats < base.loss_nats:
            inside = inside_of(self._base, self._attach, state, items, self._neutral)
        identity = BaseIdentity.of(self._base)
        result = publish(
            self._folder, identity, user, state, strength, base, won, job.reason, inside
        )
        counts = dict(self._ended[name].counts)
        won_nats = result.winner.loss_nats
        return {"loss_nats": won_nats, "kind": result.kind, "counts": counts, "done": True}
