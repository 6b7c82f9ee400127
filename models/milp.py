"""The main method: memory injection, then instruction tuning, of one LoRA per user (MiLP).

Injection learns the user's own texts as running text; tuning learns to answer the user's queries,
with the loss on the response alone. Both train the same LoRA (paper, section 3.3; which of the two
does what is its Table 5). No history stands in the prompt.

What the paper leaves open is decided here. Every text is a row of its own, so that none is read as
what follows from another. While it tunes, the memory goes on reading the texts that are no answers,
between these (rehearsal), since nothing else in tuning keeps what they told
(`benchmarks/RESULTS.md` has a search without it). Epochs and the cut of long histories are the
`Budget`'s; lora_alpha = r, since equation 1 has no scaling.

Reference: Zhang et al., Personalized LLM Response Generation with Parameterized User Memory
Injection, arXiv 2404.03565.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import cast
from weakref import WeakKeyDictionary

from models.bank import Memory
from models.base import Base
from models.cost import room_bytes
from models.fitting import Course, TrainedFitting
from models.history import Interaction, user_texts
from models.options import NO_OPTIONS, Space
from models.parts import Parts
from models.personalizer import (
    Budget,
    Configuration,
    Framed,
    Person,
    Shared,
    Task,
    UserState,
)
from models.prompt import Row, newlines
from models.trainer import Trainer
from models.training import Learner, Stage
from search.space import MemoryConfig

MOST_TOKENS = 256  # of a text in one row


class Milp:
    """Personalizer: a searched LoRA on some feed-forward layers."""

    name = "milp"
    space: Space = NO_OPTIONS  # searched in `search.space.SearchSpace`

    def __init__(self) -> None:
        self._memories: WeakKeyDictionary[UserState, Memory] = WeakKeyDictionary()

    def learn(
        self, base: Base, people: Sequence[Person], configuration: Configuration, seed: int
    ) -> Shared | None:
        """Nothing but the base is shared."""
        return None

    def start(self, base: Base) -> TrainedFitting:
        """An empty fitting on a base."""
        room = partial(room_bytes, base.device) if base.device.type == "cuda" else None
        return TrainedFitting(self.recipe(base), Trainer(base, room=room))

    def recipe(self, base: Base) -> MilpRecipe:
        """How a task trains."""
        return MilpRecipe(base, self.name)

    def frame(self, base: Base, state: UserState | None, query: str) -> Framed:
        """The query alone: the memory is in the weights."""
        return Framed(query)

    def parts(
        self,
        base: Base,
        states: Sequence[UserState],
        prompts: Sequence[Sequence[int]] | None,
    ) -> list[Parts]:
        """Row i runs under the memory of `states[i]`; a state keeps its memory on the device."""
        return [Parts(memory=self._memory(base, state)) for state in states]

    def _memory(self, base: Base, state: UserState) -> Memory:
        if state not in self._memories:
            self._memories[state] = Memory.from_state(base, state)
        return self._memories[state]


class MilpRecipe:
    """How the main method trains a task: injection, then tuning, of one LoRA."""

    def __init__(self, base: Base, method: str) -> None:
        self._base, self._method = base, method

    def course(self, task: Task) -> Course | None:
        """Both stages; None for the empty configuration, which is the base.

        Raises:
            ValueError: nothing to learn or to validate on.
        """
        configuration = lora_of(task)
        if not configuration.layers:
            return None
        stages, counts = stages_of(self._base, task)
        memory = Memory.initialise(self._base, configuration, task.seed)
        validation = pair_rows(self._base, task.validation)
        return Course(memory, stages, validation, configuration.learning_rate, counts)

    def state(self, task: Task, learner: Learner | None) -> UserState:
        """The trained LoRA."""
        tensors = {} if learner is None else cast(Memory, learner).tensors()
        return UserState(self._method, task.user_id, task.configuration.to_json(), tensors)


def lora_of(task: Task) -> MemoryConfig:
    """The task's configuration, of a LoRA.

    Raises:
        ValueError: it is of another method.
    """
    if not isinstance(task.configuration, MemoryConfig):
        got = type(task.configuration).__name__
        raise ValueError(f"expected the configuration of a LoRA, got {got}")
    return task.configuration


def pair_rows(base: Base, interactions: Sequence[Interaction]) -> tuple[Row, ...]:
    """A row for every interaction that has a query."""
    return tuple(base.prompt.pair(i.query, i.response) for i in interactions if i.query is not None)


def injection_rows(base: Base, texts: Sequence[str]) -> tuple[Row, ...]:
    """The user's texts in time order, a row each; a long one is cut into several.

    What is shorter than two tokens predicts nothing and is left out.
    """
    most = min(base.context, MOST_TOKENS)
    rows = []
    for text in texts:
        tokens = (*base.prompt.begin, *base.prompt.post(text))
        rows += [Row(tokens[i : i + most], 1) for i in range(0, len(tokens), most)]
    return tuple(row for row in rows if len(row.tokens) > 1)


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
    pairs = pair_rows(base, task.asked) if budget.tuning_epochs else ()
    injection, unread_words = newest(injection_rows(base, texts), budget.epoch_tokens)
    tuning, unread_pairs = newest(pairs, budget.epoch_tokens)
    rehearsing = budget.rehearse and budget.injection_epochs and tuning
    again = injection_rows(base, unanswered(task)) if rehearsing else ()
    rehearsed, _ = newest(again, budget.epoch_tokens)
    stages = [
        Stage("injection", injection, budget.injection_epochs),
        Stage("tuning", (*tuning, *rehearsed), budget.tuning_epochs),
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


def unanswered(task: Task) -> list[str]:
    """The user's texts that tuning would not teach: posts, and queries where the user said them."""
    asked = task.user_said != "response"
    return user_texts((i for i in task.train if asked or i.query is None), "query")


def stretched(stages: Sequence[Stage], budget: Budget) -> tuple[Stage, ...]:
    """The stages with as many more epochs as `minimum_steps` asks for, in proportion."""
    steps = sum(stage.steps for stage in stages)
    factor = max(1, math.ceil(budget.minimum_steps / steps))
    return tuple(Stage(s.name, s.rows, s.epochs * factor) for s in stages)
