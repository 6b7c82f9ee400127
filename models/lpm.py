"""Latent personal memory: N latent slots a user, read for each query by a shared network.

The network and the slots of all other people are learned together, on what those people read and
answered; their slots are then forgotten. A new user's slots are fitted under the network as it is,
several users in one batch. So a user costs N x M trained numbers, and a request K soft tokens.

What the paper leaves open is decided here: slots are drawn from N(0, 0.02); the network is
validated on each person's newest answers, since slots serve the person whom they were fitted to.

Notation: N slots of width M, K soft tokens, n interactions.

Reference: Latent Personal Memory, arXiv 2606.20911.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from types import MappingProxyType
from typing import cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from models import jointly, sharing
from models.base import Base
from models.fitting import Course, TrainedFitting
from models.history import Interaction
from models.milp import pair_rows
from models.options import Options, Space, Value, require
from models.parts import Parts, running
from models.personalizer import Configuration, Framed, Person, Shared, Task, UserState
from models.projection import checked, parameter_kind
from models.prompt import Row
from models.slots import SlotNetwork, Slots, fresh_slots, parts_of, pooled, prompt_of
from models.soft import require_room
from models.trainer import Trainer
from models.training import Learner
from models.tuning import behind, tuning_of

FEWEST_PEOPLE = 8
MOST_READ = 32  # pairs of a person's history that are learned from, the newest
SLOTS = "slots"  # the tensor's name in a state


class _Together:
    """A network in training, with the slots of all people."""

    def __init__(self, base: Base, network: SlotNetwork, slots_PNM: Tensor) -> None:
        self._base, self.network, self._slots_PNM = base, network, slots_PNM

    def parameters(self) -> list[Tensor]:
        return [*self.network.parameters(), self._slots_PNM]

    def parts(self, rows: Sequence[Row]) -> list[Parts]:
        """Each row begins with what its prompt reads in the slots of its person."""
        people = [cast(jointly.PersonRow, row).person for row in rows]
        pooled_BD = pooled(self._base, [prompt_of(row) for row in rows])
        soft_BKD = self.network.soft(self._slots_PNM[people], pooled_BD)
        return [Parts(soft=soft_KD) for soft_KD in soft_BKD]


class Lpm:
    """Personalizer: latent slots a user, as soft tokens that depend on the query."""

    name = "lpm"
    space: Space = MappingProxyType(
        {
            "slots": (32, 64),
            "width": (64,),
            "vectors": (8, 16),
            "network_rate": (1e-3, 3e-3),
            "learning_rate": (1e-2, 3e-3, 1e-3),
        }
    )

    def __init__(self) -> None:
        self._networks: WeakKeyDictionary[Shared, SlotNetwork] = WeakKeyDictionary()
        self._slots: WeakKeyDictionary[UserState, Slots] = WeakKeyDictionary()

    def learn(
        self, base: Base, people: Sequence[Person], configuration: Configuration, seed: int
    ) -> Shared:
        """The network, learned together with other people's slots.

        Raises:
            ValueError: too few people, or a base that can't hold the soft tokens.
        """
        options = require(configuration)
        sharing.require(list(people), FEWEST_PEOPLE, self.name)
        require_room(base, options.whole("vectors"), self.name)
        network = SlotNetwork.initialise(base, options, seed)
        shape = (len(people), options.whole("slots"), options.whole("width"))
        learner = _Together(base, network, fresh_slots(base, shape, seed))
        rows, validation = _rows(base, people, options.whole("vectors"))
        rate, epochs = options.number("network_rate"), jointly.epochs_of(rows)
        jointly.trained(base, learner, rows, validation, rate, epochs, seed)
        return Shared(self.name, options.to_json(), network.tensors())

    def start(self, base: Base) -> TrainedFitting:
        """An empty fitting: the slots of all its tasks train in the same batches."""

        def under(learners: Sequence[Learner], rows: Sequence[Row]):  # type: ignore[no-untyped-def]
            prompts = [prompt_of(row) for row in rows]
            return running(base, parts_of(base, cast(Sequence[Slots], learners), prompts))

        return TrainedFitting(_Recipe(self, base), Trainer(base, under=under))

    def frame(self, base: Base, state: UserState | None, query: str) -> Framed:
        """The query behind the soft tokens."""
        if state is None:
            return Framed(query)
        return Framed(query, options_of(sharing.shared_of(state)).whole("vectors"))

    def parts(
        self,
        base: Base,
        states: Sequence[UserState],
        prompts: Sequence[Sequence[int]] | None,
    ) -> list[Parts]:
        """Soft tokens that each prompt reads; while answers go on they are in the cache."""
        if prompts is None:
            return [Parts()] * len(states)
        with torch.no_grad():
            return parts_of(base, [self._of_state(base, state) for state in states], prompts)

    def network(self, base: Base, shared: Shared) -> SlotNetwork:
        """A shared part's network on the base's device, without gradients, made once."""
        if shared not in self._networks:
            made = SlotNetwork.from_tensors(base, options_of(shared), shared.tensors)
            self._networks[shared] = made
        return self._networks[shared]

    @torch.no_grad()
    def masses(self, base: Base, state: UserState, items: Sequence[Interaction]) -> Tensor:
        """What each slot is for: its share of the attention, `[N, n]`, when item i is asked about.

        An item is a query, or a post's own words. Each column adds up to 1, over heads and soft
        tokens.

        Args:
            base: what the state was made on.
            state: of this method.
            items: interactions of the user's history.
        """
        texts = [item.response if item.query is None else item.query for item in items]
        pooled_nD = pooled(base, [base.prompt.prompt(text) for text in texts])
        of_user = self._of_state(base, state)
        slots_nNM = of_user.slots.expand(len(items), -1, -1)
        return of_user.network.masses(slots_nNM, pooled_nD).T.cpu()

    def _of_state(self, base: Base, state: UserState) -> Slots:
        """A state's slots, which stay on the device."""
        if state not in self._slots:
            shared = sharing.shared_of(state)
            options = options_of(shared)
            shape = (options.whole("slots"), options.whole("width"))
            slots_NM = checked(state.tensors, {SLOTS: shape})[SLOTS]
            slots_NM = slots_NM.to(base.device, parameter_kind(base))
            self._slots[state] = Slots(slots_NM, self.network(base, shared))
        return self._slots[state]


class _Recipe:
    """How a user's slots train."""

    def __init__(self, method: Lpm, base: Base) -> None:
        self._method, self._base = method, base

    def course(self, task: Task) -> Course:
        """One stage of tuning.

        Raises:
            ValueError: nothing to learn or to validate on, or no shared part of this method.
        """
        base, options = self._base, require(task.configuration)
        network = self._method.network(base, sharing.learned_for(task, self._method.name))
        shape = (options.whole("slots"), options.whole("width"))
        slots = Slots(fresh_slots(base, shape, task.seed), network)
        count = options.whole("vectors")
        stages, counts = tuning_of(base, task, count)
        validation = behind(base, pair_rows(base, task.validation), count)
        return Course(slots, stages, validation, options.number("learning_rate"), counts)

    def state(self, task: Task, learner: Learner | None) -> UserState:
        """The trained slots."""
        tensors = {SLOTS: cast(Slots, learner).slots.detach().cpu().clone()}
        configured = task.configuration.to_json()
        return UserState(self._method.name, task.user_id, configured, tensors, shared=task.shared)


def options_of(shared: Shared) -> Options:
    """The options that a shared part was learned under."""
    return Options(tuple((name, cast(Value, v)) for name, v in shared.configuration.items()))


def _rows(
    base: Base, people: Sequence[Person], soft_tokens: int
) -> tuple[list[jointly.PersonRow], list[jointly.PersonRow]]:
    """What people said, and for validation the newest quarter of what they answer."""
    whole = [
        dataclasses.replace(person, pairs=(*_pairs(person.history)[-MOST_READ:], *person.pairs))
        for person in people
    ]
    learned: list[jointly.PersonRow] = []
    validation: list[jointly.PersonRow] = []
    every = jointly.person_rows(base, whole, soft_tokens)
    for number, rows in itertools.groupby(every, key=lambda row: row.person):
        own = list(rows)
        cut = len(own) - max(1, len(people[number].pairs) // 4)
        learned += own[:cut]
        validation += own[cut:]
    return learned, validation


def _pairs(interactions: Sequence[Interaction]) -> list[Interaction]:
    return [interaction for interaction in interactions if interaction.query is not None]
