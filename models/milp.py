"""The main method: memory injection, then instruction tuning, of one LoRA per user (MiLP).

Injection learns the user's own texts as running text; tuning learns to answer the user's queries,
with the loss on the response alone. Both train the same LoRA (paper, section 3.3; which of the two
does what is its Table 5). No history stands in the prompt.

What the paper leaves open is decided here: epochs, windows and the cut of long histories are the
`Budget`'s; lora_alpha = r, since equation 1 has no scaling.

Reference: Zhang et al., Personalized LLM Response Generation with Parameterized User Memory
Injection, arXiv 2404.03565.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from weakref import WeakKeyDictionary

from models.bank import Bank, Memory
from models.base import Base
from models.cost import room_bytes
from models.history import Interaction, user_texts
from models.personalizer import Budget, Finished, Report, Task, UserState
from models.prompt import Row, newlines
from models.trainer import Trainer
from models.training import Stage, Training

WINDOW_TOKENS = 256


class Milp:
    """Personalizer: a searched LoRA on some feed-forward layers."""

    name = "milp"

    def __init__(self) -> None:
        self._memories: WeakKeyDictionary[UserState, Memory] = WeakKeyDictionary()

    def start(self, base: Base) -> MilpFitting:
        """An empty fitting on a base."""
        return MilpFitting(base, self.name)

    def attached(
        self, base: Base, states: Sequence[UserState | None]
    ) -> AbstractContextManager[None]:
        """Row i runs under the memory of `states[i]`; a state keeps its memory on the device."""
        return Bank.of(base).rows([self._memory(base, state) for state in states])

    def prompt(self, state: UserState | None, query: str) -> str:
        """The query alone: the memory is in the weights."""
        return query

    def _memory(self, base: Base, state: UserState | None) -> Memory | None:
        if state is None or state.is_base:
            return None
        if state not in self._memories:
            self._memories[state] = Memory.from_state(base, state)
        return self._memories[state]


class MilpFitting:
    """Tasks of the main method in training on one base."""

    def __init__(self, base: Base, method: str) -> None:
        self._base = base
        self._method = method
        on_gpu = base.device.type == "cuda"
        self._trainer = Trainer(base, room=partial(room_bytes, base.device) if on_gpu else None)
        self._tasks: dict[str, tuple[Task, dict[str, int]]] = {}
        self._done: list[Finished] = []

    @property
    def running(self) -> int:
        """Number of tasks that have not been reported as finished."""
        return len(self._tasks) + len(self._done)

    def add(self, task: Task) -> None:
        """Take a task in from the next step on; the empty configuration is finished at once.

        Raises:
            ValueError: nothing to learn or to validate on.
        """
        if not task.configuration.layers:
            self._done.append(Finished(task.key, self._state(task, None)))
            return
        stages, counts = stages_of(self._base, task)
        memory = Memory.initialise(self._base, task.configuration, task.seed)
        self._trainer.add(
            Training(
                key=task.key,
                memory=memory,
                stages=stages,
                validation=pair_rows(self._base, task.validation),
                learning_rate=task.configuration.learning_rate,
                seed=task.seed,
                patience_epochs=task.budget.patience_epochs,
            )
        )
        self._tasks[task.key] = (task, counts)

    def step(self) -> tuple[list[Report], list[Finished]]:
        """One optimiser step of every running task."""
        finished, self._done = self._done, []
        checkpoints, outcomes = self._trainer.step() if self._tasks else ([], [])
        reports = [Report(c.key, c.stage, c.epoch, c.steps, c.loss_nats) for c in checkpoints]
        for outcome in outcomes:
            task, counts = self._tasks.pop(outcome.key)
            state = None if outcome.error else self._state(task, outcome.memory)
            loss = outcome.loss_nats if math.isfinite(outcome.loss_nats) else None
            finished.append(Finished(task.key, state, outcome.error, loss, outcome.steps, counts))
        return reports, finished

    def stop(self, key: str) -> None:
        """Drop a task: it is neither reported nor finished."""
        self._trainer.stop(key)
        self._tasks.pop(key, None)

    def _state(self, task: Task, memory: Memory | None) -> UserState:
        tensors = {} if memory is None else memory.tensors()
        return UserState(self._method, task.user_id, task.configuration.to_json(), tensors)


def pair_rows(base: Base, interactions: Sequence[Interaction]) -> tuple[Row, ...]:
    """A row for every interaction that has a query."""
    return tuple(base.prompt.pair(i.query, i.response) for i in interactions if i.query is not None)


def injection_rows(base: Base, texts: Sequence[str]) -> tuple[Row, ...]:
    """The user's texts in time order, joined by end-of-text, in windows of equal length.

    A window shorter than two tokens predicts nothing and is left out.
    """
    window = min(base.context, WINDOW_TOKENS)
    posts = [token for text in texts for token in base.prompt.post(text)]
    stream = [*base.prompt.begin, *posts] if posts else []
    windows = (tuple(stream[i : i + window]) for i in range(0, len(stream), window))
    return tuple(Row(tokens, 1) for tokens in windows if len(tokens) > 1)


def newest(rows: Sequence[Row], tokens: int | None) -> tuple[tuple[Row, ...], int]:
    """The newest rows of at most `tokens` in all (at least one), and the tokens left out."""
    if tokens is None:
        return tuple(rows), 0
    kept: list[Row] = []
    total = 0
    for row in reversed(rows):
        if kept and total + len(row.tokens) > tokens:
            break
        kept.append(row)
        total += len(row.tokens)
    left_out = sum(len(row.tokens) for row in rows) - total
    return tuple(reversed(kept)), left_out


def stages_of(base: Base, task: Task) -> tuple[tuple[Stage, ...], dict[str, int]]:
    """The task's stages, and counts of what its text lost on the way.

    Raises:
        ValueError: no stage is switched on, or there is no text for one.
    """
    budget = task.budget
    texts = user_texts(task.train, task.user_said) if budget.injection_epochs else []
    pairs = pair_rows(base, task.train) if budget.tuning_epochs else ()
    injection, unread_words = newest(injection_rows(base, texts), budget.epoch_tokens)
    tuning, unread_pairs = newest(pairs, budget.epoch_tokens)
    stages = [
        Stage("injection", injection, budget.injection_epochs),
        Stage("tuning", tuning, budget.tuning_epochs),
    ]
    stages = [stage for stage in stages if stage.epochs and stage.rows]
    if not stages:
        raise ValueError("expected words of the user to learn from, got none in the training part")
    counts = {
        "tokens_cut": sum(row.cut_tokens for row in tuning),
        "tokens_beyond_epoch": unread_words + unread_pairs,
        "newlines_replaced": sum(
            newlines(text) for i in task.train for text in (i.query or "", i.response)
        ),
    }
    return stretched(stages, budget), counts


def stretched(stages: Sequence[Stage], budget: Budget) -> tuple[Stage, ...]:
    """The stages with as many more epochs as `minimum_steps` asks for, in proportion."""
    steps = sum(stage.steps for stage in stages)
    factor = max(1, math.ceil(budget.minimum_steps / steps))
    return tuple(Stage(s.name, s.rows, s.epochs * factor) for s in stages)
