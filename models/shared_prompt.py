"""One prompt for all users: soft tokens learned from other people. The task's own baseline.

What it gains over the base is format and domain; nothing of a user is in it. So whatever another
method's soft tokens gain beyond this is personal.

Reference: Lester et al., The Power of Scale for Parameter-Efficient Prompt Tuning, arXiv
2104.08691.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from models import jointly
from models.base import Base
from models.fitting import ReadFitting
from models.options import require
from models.parts import Parts
from models.personalizer import Configuration, Framed, Person, Shared, Task, UserState
from models.prompt_tuning import SOFT, SPACE, Prompt, soft_of
from models.sharing import learned_for, shared_of
from models.sharing import require as require_people
from models.soft import require_room

FEWEST_PEOPLE = 4


class SharedPrompt:
    """Personalizer: soft tokens that are the same for everybody."""

    name = "prompt-tuning-shared"
    space = SPACE

    def __init__(self) -> None:
        self._parts: WeakKeyDictionary[Shared, Parts] = WeakKeyDictionary()

    def learn(
        self, base: Base, people: Sequence[Person], configuration: Configuration, seed: int
    ) -> Shared:
        """The prompt, trained on the pairs of all people.

        Raises:
            ValueError: too few people, or a base with too short a context.
        """
        options = require(configuration)
        count = options.whole("tokens")
        require_people(list(people), FEWEST_PEOPLE, self.name)
        require_room(base, count, self.name)
        rows = jointly.person_rows(base, people, count)
        prompt = Prompt.of_words(base, rows, count, seed)
        rate = options.number("learning_rate")
        (soft_KD,), _ = jointly.learn(base, prompt, rows, rate, jointly.epochs_of(rows), seed)
        return Shared(self.name, options.to_json(), {SOFT: soft_KD})

    def start(self, base: Base) -> ReadFitting:
        """An empty fitting."""
        return ReadFitting(self._state)

    def frame(self, base: Base, state: UserState | None, query: str) -> Framed:
        """The query behind the soft tokens."""
        if state is None:
            return Framed(query)
        return Framed(query, len(shared_of(state).tensors[SOFT]))

    def parts(
        self,
        base: Base,
        states: Sequence[UserState],
        prompts: Sequence[Sequence[int]] | None,
    ) -> list[Parts]:
        """Each row begins with the soft tokens of its state's shared part."""
        if prompts is None:
            return [Parts()] * len(states)
        return [self._of_shared(base, shared_of(state)) for state in states]

    def _of_shared(self, base: Base, shared: Shared) -> Parts:
        if shared not in self._parts:
            self._parts[shared] = Parts(soft=soft_of(base, shared.tensors))
        return self._parts[shared]

    def _state(self, task: Task) -> UserState:
        shared = learned_for(task, self.name)
        return UserState(self.name, task.user_id, shared.configuration, {}, shared=shared)
