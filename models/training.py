"""One learner's training: its stages, its schedule, its stop, and where it stands.

Each stage has its own AdamW and schedule (10 % linear warm-up, then linear decay). A stage ends
after its epochs, or once its validation loss has not improved for `patience_epochs`; the next goes
on from the stage's best weights. The result is the best checkpoint over all stages. Settings are
MiLP's where the paper gives them (section 4: weight decay 1e-4, warm-up 10 %, batch 8).

This file computes no loss and no gradient: `models/trainer.py` does, for many trainings at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from models.prompt import Row

WEIGHT_DECAY = 1e-4
WARM_UP_SHARE = 0.1
BATCH_ROWS = 8


class Learner(Protocol):
    """What is trained: a memory, or whatever else has parameters."""

    def parameters(self) -> list[Tensor]:
        """Tensors that take a gradient, in a stable order."""


@dataclass(frozen=True)
class Stage:
    """Rows to learn, in the user's order, and how often to go through them."""

    name: str
    rows: tuple[Row, ...]
    epochs: int

    @property
    def epoch_steps(self) -> int:
        """Optimiser steps of one epoch."""
        return math.ceil(len(self.rows) / BATCH_ROWS)

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole stage."""
        return self.epochs * self.epoch_steps


@dataclass(frozen=True)
class Training:
    """One learner's course: fresh weights in, best checkpoint out."""

    key: str
    learner: Learner
    stages: tuple[Stage, ...]
    validation: tuple[Row, ...]
    learning_rate: float
    seed: int
    patience_epochs: int = 1


@dataclass(frozen=True)
class Checkpoint:
    """Validation loss (nats per token) after an epoch."""

    key: str
    stage: str
    epoch: int
    steps: int
    loss_nats: float


@dataclass(frozen=True)
class Outcome:
    """How a training ended: the learner at its best checkpoint, or the reason of its failure."""

    key: str
    learner: Learner
    loss_nats: float
    steps: int
    error: str | None = None


@dataclass
class Run:
    """Where one training stands."""

    training: Training
    stage: int = -1
    epoch: int = 0
    batch: int = 0
    steps: int = 0
    order: list[int] = field(default_factory=list)
    stage_best: float = math.inf
    stage_weights: list[Tensor] = field(default_factory=list)
    stale_epochs: int = 0
    best: float = math.inf
    best_weights: list[Tensor] = field(default_factory=list)
    error: str | None = None
    optimizer: torch.optim.Optimizer = field(init=False)
    schedule: torch.optim.lr_scheduler.LambdaLR = field(init=False)

    def begin_stage(self) -> bool:
        """Start the next stage from the best weights of this one; False when there is none."""
        if self.stage_weights:
            _restore(self.training.learner, self.stage_weights)
        self.stage += 1
        if self.stage >= len(self.training.stages):
            return False
        steps = self.current.steps
        self.optimizer = torch.optim.AdamW(
            self.training.learner.parameters(),
            lr=self.training.learning_rate,
            weight_decay=WEIGHT_DECAY,
            fused=True,
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: schedule_factor(step, steps)
        )
        self.epoch, self.stage_best, self.stage_weights, self.stale_epochs = 0, math.inf, [], 0
        self.shuffle()
        return True

    @property
    def current(self) -> Stage:
        """The stage that is being trained."""
        return self.training.stages[self.stage]

    def shuffle(self) -> None:
        """Draw the order of this epoch: it depends on seed, stage and epoch alone."""
        generator = torch.Generator().manual_seed(
            self.training.seed * 1_000_003 + self.stage * 1009 + self.epoch
        )
        self.order = torch.randperm(len(self.current.rows), generator=generator).tolist()
        self.batch = 0

    @property
    def unallocated_bytes(self) -> int:
        """What its gradient and moments will take and don't yet: a first step makes them."""
        parameters = self.training.learner.parameters()
        made = self.optimizer.state
        return sum(p.nbytes * ((p.grad is None) + 2 * (p not in made)) for p in parameters)

    def rows(self) -> list[Row]:
        """Rows of the next optimiser step."""
        start = self.batch * BATCH_ROWS
        return [self.current.rows[i] for i in self.order[start : start + BATCH_ROWS]]

    def update(self, loss: float) -> bool:
        """Apply the gradients; True at the end of an epoch."""
        if self.error is None and not math.isfinite(loss):
            self.error = f"training diverged: loss {loss} in stage {self.current.name}"
        if self.error is not None:
            return False
        self.optimizer.step()
        self.schedule.step()
        self.steps += 1
        self.batch += 1
        return self.batch == self.current.epoch_steps

    def checkpoint(self, loss: float) -> Checkpoint:
        """Take in the validation loss after an epoch; move on to the next epoch."""
        self.epoch += 1
        best_so_far = max(self.stage_best, self.best)
        weights = _copied(self.training.learner) if loss < best_so_far else []
        if self.error is None and not math.isfinite(loss):
            self.error = f"training diverged: validation loss {loss} in stage {self.current.name}"
        if loss < self.stage_best:
            self.stage_best, self.stage_weights, self.stale_epochs = loss, weights, 0
        else:
            self.stale_epochs += 1
        if loss < self.best:
            self.best, self.best_weights = loss, weights
        return Checkpoint(self.training.key, self.current.name, self.epoch, self.steps, loss)

    def advance(self) -> bool:
        """Go on to the next epoch or stage; False when the training is over."""
        stale = self.stale_epochs >= self.training.patience_epochs
        if stale or self.epoch >= self.current.epochs:
            return self.begin_stage()
        self.shuffle()
        return True

    def finish(self) -> Outcome:
        """The end: the learner at its best checkpoint."""
        if self.best_weights:
            _restore(self.training.learner, self.best_weights)
        return Outcome(self.training.key, self.training.learner, self.best, self.steps, self.error)


def schedule_factor(step: int, steps: int) -> float:
    """Share of the learning rate at a step: linear warm-up over 10 %, then linear decay to 0."""
    warm_up = math.ceil(steps * WARM_UP_SHARE)
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    return max(0.0, (steps - step) / max(1, steps - warm_up))


def _copied(learner: Learner) -> list[Tensor]:
    """The learner's weights now, in the processor's memory: a device has none to spare for them."""
    return [tensor.detach().to("cpu", copy=True) for tensor in learner.parameters()]


@torch.no_grad()
def _restore(learner: Learner, weights: Sequence[Tensor]) -> None:
    for parameter, value in zip(learner.parameters(), weights, strict=True):
        parameter.copy_(value)
