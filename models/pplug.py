"""PPlug: an instruction vector and a mean of the user's history, weighted by the query at hand.

Two soft tokens stand before each query, the instruction's first. The other is the user's: every
item of the history has a vector of a frozen encoder; the query's vector attends over them, and the
mean is projected. Instruction, projections and the query's reading are learned on other people, end
to end through the frozen base; a new user costs one reading of the history.

What differs from the paper (`ModelForPer.py`):

- Its query is read by a second BGE whose 109 M weights are all trained. Here it is the same frozen
  encoder and a trained linear map, which begins as the identity.
- Its vectors are used as they are. Here the mean over other people's is taken away first, from
  items and queries each, and what is left has length 1: mean-pooled states of a language model
  point nearly all the same way, so that every weight would be equal.
- Its constant 539.97, which fits one model's embeddings, is the mean norm of the base's own
  (`models/projection.py`). The weighted mean is brought to that length, not each item.
- It trains at 1e-4, two epochs in batches of 64. Rates are higher here, where less is trained;
  batches of 8 and the number of epochs are those of all shared parts (`models/jointly.py`).
- Its query is the task's own input. Behind excerpts (`pplug+rag`), they are read as part of it.

The history is the training part alone, so that nothing in it is later than a query.

Notation: E width of an encoder's vector, N items, B rows.

Reference: Liu et al., LLMs + Persona-Plug = Personalized LLMs, arXiv 2409.11901.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from models import jointly, sharing
from models.base import Base
from models.encoder import BASE
from models.fitting import ReadFitting
from models.history import Interaction
from models.jointly import PersonRow
from models.options import Space, require
from models.parts import Parts
from models.personalizer import Configuration, Framed, Person, Shared, Task, UserState
from models.plug import SOFT_TOKENS, Plug
from models.projection import checked
from models.prompt import Row
from models.soft import require_room
from models.vectors import Reader, require_encoder

SPACE: Space = {"temperature": (1.0, 0.1), "learning_rate": (1e-3, 3e-4, 3e-3)}
FEWEST_PEOPLE = 8
MOST_ITEMS = 512  # the newest are kept
ITEMS = "items"  # the tensor's name in a state


@dataclass(frozen=True, eq=False)
class PlugLearner:
    """The network in training, with the items of each person and the vector of each query."""

    plug: Plug
    items: Sequence[Tensor]  # of each person, [n, E]
    queries: Mapping[tuple[int, ...], Tensor]  # of each prompt, [E]

    def parameters(self) -> list[Tensor]:
        """Those of the network."""
        return self.plug.parameters()

    def parts(self, rows: Sequence[Row]) -> list[Parts]:
        """Each row begins with the instruction, and with what its query finds of its person."""
        people = [row.person for row in cast(Sequence[PersonRow], rows)]
        present = sorted(set(people))
        queries_BE = torch.stack([self.queries[_prompt(row)] for row in rows])
        owners = [present.index(person) for person in people]
        soft = self.plug.soft(queries_BE, [self.items[person] for person in present], owners)
        return [Parts(soft=own) for own in soft]


class Pplug:
    """Personalizer: two soft tokens, an instruction and what a query finds in the history."""

    name = "pplug"
    space = SPACE

    def __init__(self, encoder: str = BASE) -> None:
        """The method.

        Args:
            encoder: `base` for the base's own hidden states, or a hub name or folder. States say
                which one they were made with, and are served with that.
        """
        self._encoder = encoder
        self._readers: dict[str, Reader] = {}
        self._plugs: WeakKeyDictionary[Shared, Plug] = WeakKeyDictionary()
        self._items: WeakKeyDictionary[UserState, Tensor] = WeakKeyDictionary()

    def learn(
        self, base: Base, people: Sequence[Person], configuration: Configuration, seed: int
    ) -> Shared:
        """The network, trained on the pairs of all people behind their own histories.

        Raises:
            ValueError: too few people, no such encoder, or a base with too short a context.
        """
        options = require(configuration)
        temperature, rate = options.number("temperature"), options.number("learning_rate")
        sharing.require(list(people), FEWEST_PEOPLE, self.name)
        require_room(base, SOFT_TOKENS, self.name)
        rows = jointly.person_rows(base, people, SOFT_TOKENS)
        prompts = sorted({_prompt(row) for row in rows})
        queries = self._reader(self._encoder).prompts(base, prompts)
        items = [self._read(base, person.history) for person in people]
        plug = Plug.initialise(base, torch.cat(items), queries, temperature, seed)
        learner = PlugLearner(plug, items, dict(zip(prompts, queries, strict=True)))
        jointly.learn(base, learner, rows, rate, jointly.epochs_of(rows), seed)
        encoder = self._reader(self._encoder).of(base)
        return Shared(self.name, {**options.to_json(), "encoder": encoder.name}, plug.tensors())

    def start(self, base: Base) -> ReadFitting:
        """An empty fitting, which reads each user's history once."""

        def state(task: Task) -> UserState:
            shared = sharing.learned_for(task, self.name)
            require_encoder(shared, self._reader(self._encoder).of(base))
            tensors = {ITEMS: self._read(base, task.train).cpu()}
            configured = task.configuration.to_json()
            return UserState(self.name, task.user_id, configured, tensors, shared=shared)

        return ReadFitting(state)

    def frame(self, base: Base, state: UserState | None, query: str) -> Framed:
        """The query behind the soft tokens."""
        return Framed(query, 0 if state is None else SOFT_TOKENS)

    def parts(
        self,
        base: Base,
        states: Sequence[UserState],
        prompts: Sequence[Sequence[int]] | None,
    ) -> list[Parts]:
        """Row i begins with what the query of `prompts[i]` finds in the history of `states[i]`."""
        parts = [Parts()] * len(states)
        if prompts is None:  # the soft tokens of answers that go on are in the cache
            return parts
        rows_of: dict[Shared, list[int]] = defaultdict(list)
        for row, state in enumerate(states):
            rows_of[sharing.shared_of(state)].append(row)
        for shared, rows in rows_of.items():
            own, asked = [states[row] for row in rows], [prompts[row] for row in rows]
            for row, soft in zip(rows, self._soft(base, shared, own, asked), strict=True):
                parts[row] = Parts(soft=soft)
        return parts

    def _soft(
        self,
        base: Base,
        shared: Shared,
        states: Sequence[UserState],
        prompts: Sequence[Sequence[int]],
    ) -> Tensor:
        """Soft tokens `[B, 2, D]` of rows of one shared part."""
        if shared not in self._plugs:
            self._plugs[shared] = Plug.from_shared(base, shared)
        plug, present = self._plugs[shared], list(dict.fromkeys(states))
        queries_BE = self._reader(str(shared.configuration["encoder"])).prompts(base, prompts)
        items = [self._items_of(base, state, queries_BE.shape[1]) for state in present]
        return plug.soft(queries_BE, items, [present.index(state) for state in states])

    def _items_of(self, base: Base, state: UserState, width: int) -> Tensor:
        """The vectors of a state's items, which stay on the device."""
        if state not in self._items:
            count = len(state.tensors[ITEMS]) if ITEMS in state.tensors else 1
            found = checked(state.tensors, {ITEMS: (count, width)})[ITEMS]
            self._items[state] = found.to(base.device)
        return self._items[state]

    def _read(self, base: Base, history: Sequence[Interaction]) -> Tensor:
        return self._reader(self._encoder).items(base, history[-MOST_ITEMS:])

    def _reader(self, encoder: str) -> Reader:
        return self._readers.setdefault(encoder, Reader(encoder))


def _prompt(row: Row) -> tuple[int, ...]:
    """The tokens that a row answers, its soft ones among them."""
    return row.tokens[: row.predict_from]
