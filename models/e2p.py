"""E2P, Embedding-to-Prefix: a user's vector, projected to one soft token.

The vector is the mean of the frozen encoder's vectors of the user's training history; the
projection is learned on other people, end to end, through the frozen base. A new user costs one
reading of the history and no gradient. With four soft tokens each has a projection of its own.

The paper doesn't say what it does to a vector before projecting it. Here the mean of the people
learned from is taken away, and the rest scaled to about 1: mean-pooled states of a language model
point nearly all the same way (two users' cosine is about 0.96 on chat logs), so that without it
everybody would get nearly the same soft token.

Notation: E width of an encoder's vector, K soft tokens, D width of the base, P people, S states.

Reference: Huber et al., Embedding-to-Prefix: Parameter-Efficient Personalization for Pre-Trained
Large Language Models, arXiv 2505.17051.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from models import jointly, sharing
from models.base import Base
from models.encoder import BASE
from models.fitting import ReadFitting
from models.jointly import PersonRow
from models.options import Space, require
from models.parts import Parts
from models.personalizer import Configuration, Framed, Person, Shared, Task, UserState
from models.projection import Projection, checked
from models.prompt import Row
from models.soft import require_room
from models.vectors import Reader, require_encoder

SPACE: Space = {"tokens": (1, 4), "learning_rate": (1e-3, 3e-4, 3e-3)}
FEWEST_PEOPLE = 8
VECTOR = "vector"  # the tensor's name in a state


@dataclass(frozen=True, eq=False)
class Prefix:
    """What makes soft tokens of users' vectors: their centre and spread, and the projections."""

    centre: Tensor  # [E]
    spread: Tensor  # root mean square of what is left without the centre
    projections: Sequence[Projection]

    @classmethod
    def initialise(cls, base: Base, vectors_PE: Tensor, tokens: int, seed: int) -> Prefix:
        """Fresh projections for vectors that are spread like these."""
        generator = torch.Generator().manual_seed(seed)
        centre = vectors_PE.mean(0)
        spread = (vectors_PE - centre).pow(2).mean().sqrt().clamp(min=1e-6)
        width = vectors_PE.shape[1]
        made = [Projection.initialise(base, width, generator) for _ in range(tokens)]
        return cls(centre, spread, made)

    @classmethod
    def from_shared(cls, base: Base, shared: Shared) -> Prefix:
        """What was learned, on the base's device.

        Raises:
            ValueError: a tensor is missing or has another shape.
        """
        width = shared.tensors["centre"].numel() if "centre" in shared.tensors else 0
        found = checked(shared.tensors, {"centre": (width,), "spread": ()})
        made = [
            Projection.from_tensors(base, shared.tensors, f"token_{i}", width)
            for i in range(tokens_of(shared))
        ]
        return cls(found["centre"].to(base.device), found["spread"].to(base.device), made)

    def soft(self, vectors_SE: Tensor) -> Tensor:
        """Soft tokens `[S, K, D]` of users' vectors."""
        features_SE = (vectors_SE - self.centre) / self.spread
        return torch.stack([project(features_SE) for project in self.projections], dim=1)

    def parameters(self) -> list[Tensor]:
        """What takes a gradient, in a stable order."""
        return [tensor for made in self.projections for tensor in made.parameters()]

    def tensors(self) -> dict[str, Tensor]:
        """Detached copies on the CPU, by name."""
        found = {"centre": self.centre.cpu(), "spread": self.spread.cpu()}
        for i, made in enumerate(self.projections):
            found |= made.tensors(f"token_{i}")
        return found


@dataclass(frozen=True, eq=False)
class PrefixLearner:
    """The projections in training, with the vector of each person."""

    prefix: Prefix
    vectors_by_person: Tensor  # [P, E]

    def parameters(self) -> list[Tensor]:
        """Those of the projections."""
        return self.prefix.parameters()

    def parts(self, rows: Sequence[Row]) -> list[Parts]:
        """Each row begins with its person's soft tokens."""
        people = [row.person for row in cast(Sequence[PersonRow], rows)]
        present = sorted(set(people))
        soft = self.prefix.soft(self.vectors_by_person[present])
        parts = {person: Parts(soft=own) for person, own in zip(present, soft, strict=True)}
        return [parts[person] for person in people]


class E2p:
    """Personalizer: a soft token made of the user's vector."""

    name = "e2p"
    space = SPACE

    def __init__(self, encoder: str = BASE) -> None:
        """The method.

        Args:
            encoder: `base` for the base's own hidden states, or a hub name or folder.
        """
        self._reader = Reader(encoder)
        self._prefixes: WeakKeyDictionary[Shared, Prefix] = WeakKeyDictionary()
        self._parts: WeakKeyDictionary[UserState, Parts] = WeakKeyDictionary()

    def learn(
        self, base: Base, people: Sequence[Person], configuration: Configuration, seed: int
    ) -> Shared:
        """The projections, trained on the pairs of all people behind their own vectors.

        Raises:
            ValueError: too few people, no such encoder, or a base with too short a context.
        """
        options = require(configuration)
        count, rate = options.whole("tokens"), options.number("learning_rate")
        sharing.require(list(people), FEWEST_PEOPLE, self.name)
        require_room(base, count, self.name)
        vectors = [self._reader.items(base, person.history).mean(0) for person in people]
        vectors_PE = torch.stack(vectors)
        prefix = Prefix.initialise(base, vectors_PE, count, seed)
        rows = jointly.person_rows(base, people, count)
        learner = PrefixLearner(prefix, vectors_PE)
        jointly.learn(base, learner, rows, rate, jointly.epochs_of(rows), seed)
        configured = {**options.to_json(), "encoder": self._reader.of(base).name}
        return Shared(self.name, configured, prefix.tensors())

    def start(self, base: Base) -> ReadFitting:
        """An empty fitting, which reads each user's history once."""

        def state(task: Task) -> UserState:
            shared = sharing.learned_for(task, self.name)
            require_encoder(shared, self._reader.of(base))
            vector_E = self._reader.items(base, task.train).mean(0).cpu()
            configured = task.configuration.to_json()
            return UserState(self.name, task.user_id, configured, {VECTOR: vector_E}, shared=shared)

        return ReadFitting(state)

    def frame(self, base: Base, state: UserState | None, query: str) -> Framed:
        """The query behind the soft tokens."""
        return Framed(query, 0 if state is None else tokens_of(sharing.shared_of(state)))

    def parts(
        self,
        base: Base,
        states: Sequence[UserState],
        prompts: Sequence[Sequence[int]] | None,
    ) -> list[Parts]:
        """Row i begins with the soft tokens of `states[i]`, which are made once."""
        if prompts is None:
            return [Parts()] * len(states)
        self._make(base, [state for state in dict.fromkeys(states) if state not in self._parts])
        return [self._parts[state] for state in states]

    def _make(self, base: Base, states: Sequence[UserState]) -> None:
        """Make and keep the soft tokens of states, those of one shared part together."""
        by_shared: dict[Shared, list[UserState]] = defaultdict(list)
        for state in states:
            by_shared[sharing.shared_of(state)].append(state)
        for shared, own in by_shared.items():
            prefix = self._prefix(base, shared)
            shape = {VECTOR: tuple(prefix.centre.shape)}
            vectors = [checked(state.tensors, shape)[VECTOR] for state in own]
            soft_SKD = prefix.soft(torch.stack(vectors).to(base.device))
            for state, soft_KD in zip(own, soft_SKD, strict=True):
                self._parts[state] = Parts(soft=soft_KD)

    def _prefix(self, base: Base, shared: Shared) -> Prefix:
        if shared not in self._prefixes:
            self._prefixes[shared] = Prefix.from_shared(base, shared)
        return self._prefixes[shared]


def tokens_of(shared: Shared) -> int:
    """K: how many soft tokens were learned."""
    return sum(name.endswith(".gain") for name in shared.tensors)
