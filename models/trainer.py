"""Packed training: memories of different users, layers and ranks share each step on one base.

The `Trainer` runs one optimiser step of every training it holds; each has its own batches,
schedule, stages and stop, and joins or leaves between steps without changing its neighbours. A few
thousand tokens run at a time: rows of memories behind one another on a CPU (`models/layout.py`),
others sorted by length and padded. A memory's gradient is a sum over its rows, so how they are cut
changes no result. On a GPU a cost model (`models/cost.py`) says how many tokens fit, and a memory
waits while its state and the longest row would not fit beside the others. Out of memory all the
same, what runs at once is halved and the step repeated; a memory whose optimiser finds no room
begins again when another has ended; a single row that does not fit fails its own training only.

This file knows no user, no text and no Ray.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import cast

import torch

from models.bank import Bank, Memory
from models.base import Base
from models.batching import batches, by_lowest_layer, default_padded_tokens, in_turn
from models.cost import Costs
from models.loss import row_nll, row_nll_behind
from models.prompt import Row
from models.training import Checkpoint, Learner, Outcome, Run, Training
from search.space import MemoryConfig

Under = Callable[[Sequence[Learner], Sequence[Row]], AbstractContextManager[None]]
"""Opens a context in which row i of a batch, which is given, runs under learner i."""


class Trainer:
    """The running trainings of one base."""

    def __init__(
        self,
        base: Base,
        padded_tokens: int | None = None,
        room: Callable[[], float] | None = None,
        under: Under | None = None,
    ) -> None:
        """A trainer without trainings.

        Args:
            base: what they train on.
            padded_tokens: how many run at once; None is what fills the device.
            room: bytes that may still be filled; given, no more trains at once than fits.
            under: how a batch runs under what is trained, if that isn't LoRA memories.
        """
        self.padded_tokens = self._largest = padded_tokens or default_padded_tokens(base.device)
        self._room, self._costs = room, None if room is None else Costs.measure(base)
        self._base = base
        self._under = under or partial(_under_memories, Bank.of(base))
        self._of_memories = under is None
        self._runs: dict[str, Run] = {}
        self._waiting: deque[Training] = deque()

    @property
    def running(self) -> int:
        """Trainings that have not ended, those that wait for room among them."""
        return len(self._runs) + len(self._waiting)

    def add(self, training: Training) -> None:
        """Take a training in, from the next step on where there is room.

        Raises:
            ValueError: the key is in use, or there is nothing to learn or to validate on.
        """
        if training.key in {*self._runs, *(waiting.key for waiting in self._waiting)}:
            raise ValueError(f"expected a new key, got {training.key!r}, which is training")
        if not training.stages or not training.validation:
            raise ValueError("expected at least one stage and one validation row, got none")
        self._waiting.append(training)
        self._admit()

    def stop(self, key: str) -> None:
        """Drop a training; its slot is free at once."""
        self._waiting = deque(waiting for waiting in self._waiting if waiting.key != key)
        if self._runs.pop(key, None) is not None:
            self._admit()

    def step(self) -> tuple[list[Checkpoint], list[Outcome]]:
        """One optimiser step of every training; checkpoints and ends that it brought."""
        runs = list(self._runs.values())
        losses = self._gradients(runs)
        updated = [self._update(run, loss) for run, loss in zip(runs, losses, strict=True)]
        at_checkpoint = [run for run, is_epoch in zip(runs, updated, strict=True) if is_epoch]
        checkpoints = self._validate(at_checkpoint)
        over = [run for run in at_checkpoint if run.error is None and not run.advance()]
        over += [run for run in runs if run.error is not None]
        for run in over:
            del self._runs[run.training.key]
        if over:
            self._admit()
        return checkpoints, [run.finish() for run in over]

    def _gradients(self, runs: Sequence[Run]) -> list[float]:
        """Set each memory's gradient of its own mean loss per token; returns those losses."""

        def backward(live: Sequence[Run]) -> list[float]:
            for run in live:
                run.optimizer.zero_grad(set_to_none=True)
            return self._mean_losses([run.rows() for run in live], live, backward=True)

        return self._retried(runs, backward, lambda run: run.rows())

    def _validate(self, runs: Sequence[Run]) -> list[Checkpoint]:
        """A checkpoint of each run: its validation loss, all runs in one go."""

        def validate(live: Sequence[Run]) -> list[float]:
            with torch.no_grad():
                rows = [run.training.validation for run in live]
                return self._mean_losses(rows, live, backward=False)

        losses = self._retried(runs, validate, lambda run: run.training.validation)
        return [run.checkpoint(loss) for run, loss in zip(runs, losses, strict=True)]

    def _mean_losses(
        self, rows_of: Sequence[Sequence[Row]], runs: Sequence[Run], backward: bool
    ) -> list[float]:
        """Mean loss per token of each run's rows, computed together; with its gradient if asked."""
        together = self._by_lowest_layer(rows_of, runs) if backward else [range(len(runs))]
        tokens = [sum(row.predicted for row in rows) for rows in rows_of]
        losses = [0.0] * len(runs)
        for members in together:
            flat = [(i, row) for i in members for row in rows_of[i]]
            for batch, behind in self._batches([row for _, row in flat]):
                owners, rows = zip(*(flat[j] for j in batch), strict=True)
                with self._attached([runs[i].training.learner for i in owners], rows, behind):
                    nll_B = (row_nll_behind if behind else row_nll)(self._base, rows)
                    share = nll_B.new_tensor([1 / tokens[i] for i in owners])
                    if backward:
                        torch.autograd.backward((nll_B * share).sum())
                for i, loss in zip(owners, (nll_B.detach() * share).tolist(), strict=True):
                    losses[i] += loss
        return losses

    def _batches(self, rows: Sequence[Row]) -> list[tuple[list[int], bool]]:
        """Indices of rows that run at once, a memory's together; whether behind one another."""
        lengths = [len(row.tokens) for row in rows]
        if self._of_memories and max(lengths, default=0) <= self._base.longest_behind:
            return [(piece, True) for piece in in_turn(lengths, self.padded_tokens)]
        cut = batches(rows, self.padded_tokens, self._base.device)
        return [(sorted(batch), False) for batch in cut]

    def _attached(
        self, learners: Sequence[Learner], rows: Sequence[Row], behind: bool
    ) -> AbstractContextManager[None]:
        """What runs rows under learners; those that lie behind one another, token by token."""
        if behind:
            pairs = zip(learners, rows, strict=True)
            learners = [learner for learner, row in pairs for _ in row.tokens]
        return self._under(learners, rows)

    def _by_lowest_layer(
        self, rows_of: Sequence[Sequence[Row]], runs: Sequence[Run]
    ) -> list[list[int]]:
        base = self._base
        tokens = [sum(len(row.tokens) for row in rows) for rows in rows_of]
        lowest = [self._lowest_layer(run.training.learner) for run in runs]
        return by_lowest_layer(lowest, tokens, base.layer_count, base.device)

    def _lowest_layer(self, learner: Learner) -> int:
        return self._layers(cast(Memory, learner))[0] if self._of_memories else 0

    def _layers(self, memory: Memory) -> tuple[int, ...]:
        layers = enumerate(zip(self._base.feed_forward, self._base.attention, strict=True))
        return tuple(i for i, (a, b) in layers if (a.keys() | b.keys()) & memory.pairs.keys())

    def _update(self, run: Run, loss: float) -> bool:
        """A run's optimiser step; True at the end of an epoch.

        AdamW makes its moments before it changes anything: whoever finds no room for them in the
        first step begins again once another has ended.
        """
        try:
            return run.update(loss)
        except torch.OutOfMemoryError:
            self._empty_cache()
            if run.steps or len(self._runs) == 1:
                run.error = "out of memory with the state of its optimiser"
            else:
                run.optimizer.zero_grad(set_to_none=True)
                del self._runs[run.training.key]
                self._waiting.appendleft(run.training)
            return False

    def _admit(self) -> None:
        """Begin what waits, in order, while there is room; run as many tokens at once as fit."""
        while self._waiting:
            run = Run(self._waiting[0])
            run.begin_stage()
            fitting = self._fitting([*self._runs.values(), run])
            longest = max(len(row.tokens) for stage in run.training.stages for row in stage.rows)
            if self._runs and fitting < min(longest, self.padded_tokens):
                return
            self._waiting.popleft()
            self._runs[run.training.key] = run
            self.padded_tokens = min(self._largest, max(1, fitting))

    def _fitting(self, runs: Sequence[Run]) -> int:
        """How many padded tokens fit beside the states of these runs."""
        if self._room is None or self._costs is None:
            return self._largest
        memories = [cast(Memory, run.training.learner) for run in runs]
        # Of a memory on attention, too: it costs about what one on feed-forward matrices does.
        configurations = [MemoryConfig(self._layers(m), m.rank, 1.0) for m in memories]
        room = self._room() - sum(run.unallocated_bytes for run in runs)
        return self._costs.padded_tokens(room, configurations) if room > 0 else 0

    def _retried(
        self,
        runs: Sequence[Run],
        compute: Callable[[Sequence[Run]], list[float]],
        rows_of: Callable[[Run], Sequence[Row]],
    ) -> list[float]:
        """`compute` over the runs; out of memory halves what runs at once and computes again.

        A run whose single row is too much fails alone (its loss is then not a number).
        """
        while True:
            live = [run for run in runs if run.error is None]
            try:
                computed = iter(compute(live))
            except torch.OutOfMemoryError:
                self._halve(live, rows_of)
                continue
            return [math.nan if run.error else next(computed) for run in runs]

    def _halve(self, runs: Sequence[Run], rows_of: Callable[[Run], Sequence[Row]]) -> None:
        self._empty_cache()
        lengths = [max(len(row.tokens) for row in rows_of(run)) for run in runs]
        if self.padded_tokens >= max(lengths):
            self.padded_tokens //= 2
            self._largest = self.padded_tokens
            return
        longest = lengths.index(max(lengths))
        runs[longest].error = f"out of memory with a single row of {lengths[longest]} tokens"

    def _empty_cache(self) -> None:
        if self._base.device.type == "cuda":
            torch.cuda.empty_cache()


def _under_memories(
    bank: Bank, learners: Sequence[Learner], _rows: Sequence[Row]
) -> AbstractContextManager[None]:
    return bank.rows([cast(Memory, learner) for learner in learners])
