"""Prompt tuning: a few soft tokens a user, trained on the user's pairs, and nothing else.

Notation: K soft tokens, D width of the base.

Reference: Lester et al., The Power of Scale for Parameter-Efficient Prompt Tuning, arXiv
2104.08691. Theirs is one prompt a task, by Adafactor at 0.3; here it is one a user, by AdamW.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from models.base import Base
from models.fitting import Course, TrainedFitting
from models.jointly import rows_under
from models.milp import pair_rows
from models.options import Space, require
from models.parts import Parts
from models.personalizer import Configuration, Framed, Person, Shared, Task, UserState
from models.projection import checked, parameter_kind
from models.prompt import Row
from models.soft import embedded, require_room
from models.trainer import Trainer
from models.training import Learner
from models.tuning import behind, tuning_of

SPACE: Space = {"tokens": (10, 4, 20), "learning_rate": (1e-2, 3e-2, 3e-3)}
SOFT = "soft"  # the tensor's name in a state


@dataclass(frozen=True, eq=False)
class Prompt:
    """Soft tokens in training, `[K, D]`: whatever row they stand before, they are the same."""

    soft: Tensor

    @classmethod
    def of_words(cls, base: Base, rows: Sequence[Row], count: int, seed: int) -> Prompt:
        """The embeddings of `count` tokens drawn from rows, each once as long as there are any."""
        words = sorted({token for row in rows for token in row.tokens if token >= 0})
        order = torch.randperm(len(words), generator=torch.Generator().manual_seed(seed)).tolist()
        drawn = [words[order[i % len(order)]] for i in range(count)]
        soft_KD = embedded(base, drawn).to(parameter_kind(base), copy=True)
        return cls(soft_KD.requires_grad_())

    def parameters(self) -> list[Tensor]:
        """The one tensor."""
        return [self.soft]

    def parts(self, rows: Sequence[Row]) -> list[Parts]:
        """The same for each row."""
        return [Parts(soft=self.soft)] * len(rows)


class PromptTuning:
    """Personalizer: soft tokens of the user's own."""

    name = "prompt-tuning"
    space = SPACE

    def __init__(self) -> None:
        self._parts: WeakKeyDictionary[UserState, Parts] = WeakKeyDictionary()

    def learn(
        self, base: Base, people: Sequence[Person], configuration: Configuration, seed: int
    ) -> Shared | None:
        """Nothing but the base is shared."""
        return None

    def start(self, base: Base) -> TrainedFitting:
        """An empty fitting on a base."""
        trainer = Trainer(base, under=partial(rows_under, base))
        return TrainedFitting(PromptRecipe(base, self.name), trainer)

    def frame(self, base: Base, state: UserState | None, query: str) -> Framed:
        """The query behind the soft tokens."""
        return Framed(query, 0 if state is None else len(state.tensors[SOFT]))

    def parts(
        self,
        base: Base,
        states: Sequence[UserState],
        prompts: Sequence[Sequence[int]] | None,
    ) -> list[Parts]:
        """Row i begins with the soft tokens of `states[i]`, which stay on the device."""
        if prompts is None:
            return [Parts()] * len(states)
        return [self._of_state(base, state) for state in states]

    def _of_state(self, base: Base, state: UserState) -> Parts:
        if state not in self._parts:
            self._parts[state] = Parts(soft=soft_of(base, state.tensors))
        return self._parts[state]


class PromptRecipe:
    """How a user's soft tokens train."""

    def __init__(self, base: Base, method: str) -> None:
        self._base, self._method = base, method

    def course(self, task: Task) -> Course:
        """One stage of tuning.

        Raises:
            ValueError: nothing to learn or to validate on, or a base with too short a context.
        """
        options = require(task.configuration)
        count = options.whole("tokens")
        require_room(self._base, count, self._method)
        stages, counts = tuning_of(self._base, task, count)
        prompt = Prompt.of_words(self._base, stages[0].rows, count, task.seed)
        validation = behind(self._base, pair_rows(self._base, task.validation), count)
        return Course(prompt, stages, validation, options.number("learning_rate"), counts)

    def state(self, task: Task, learner: Learner | None) -> UserState:
        """The trained soft tokens."""
        tensors = {SOFT: cast(Prompt, learner).soft.detach().cpu().clone()}
        return UserState(self._method, task.user_id, task.configuration.to_json(), tensors)


def soft_of(base: Base, tensors: Mapping[str, Tensor]) -> Tensor:
    """Soft tokens `[K, D]` that were kept, on the base's device.

    Raises:
        ValueError: there are none, or of another width than the base's.
    """
    count = len(tensors[SOFT]) if SOFT in tensors else 1
    return checked(tensors, {SOFT: (count, base.width)})[SOFT].to(base.device)
