"""Personalizers that encode a user's history into a few vectors: User-LLM, with two ways in.

A user encoder reads the history's events, a resampler makes K vectors of its states, and the
frozen base gets them as soft tokens (`uelp`, which any engine can serve) or by gated
cross-attention after chosen layers (`uelp-cross`, the paper's form). Everything is learned from
other people: first the encoder alone, to foresee their next event, then encoder, resampler and the
way in together, by the loss of their answers. A new user costs one encoding and no gradient.

The paper's events are items with ids, whose embeddings are learned. Here they are texts: an event
is a frozen encoder's vector of one, with a place in the order but no time. Widths suit small bases.

A state holds the K vectors as they come from the resampler: they are narrower than the base, so
they take fewer bytes than soft tokens, or than keys and values in every layer.

Notation: P people, n events, E width of an event's vector, K vectors, S their width.

Reference: Ning et al., User-LLM, arXiv 2402.13598 (regime "encoder and projection", base frozen).
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from models import jointly, sharing
from models.attended import CrossAttention
from models.base import Base
from models.encoder import BASE
from models.fitting import ReadFitting
from models.named import load
from models.options import Options, Space, Value, require
from models.parts import Parts
from models.personalizer import Configuration, Framed, Person, Shared, Task, UserState
from models.projection import Projection, checked, parameter_kind
from models.prompt import Row
from models.resampler import Resampler
from models.soft import require_room
from models.timeline import Timeline, pretrain
from models.user_network import AsSoftTokens, Crossed, Network, WayIn
from models.vectors import Reader, require_encoder

FEWEST_PEOPLE = 8
HEADS = 4
VECTORS = "vectors"  # the tensor's name in a state


class UelpLearner:
    """A network, and the events of the people on whose rows it is trained."""

    def __init__(self, network: Network, events_of: Sequence[Tensor]) -> None:
        self._network, self._events_of = network, events_of

    def parameters(self) -> list[Tensor]:
        """Those of the network."""
        return self._network.parameters()

    def parts(self, rows: Sequence[Row]) -> list[Parts]:
        """The parts of each row's person; people are encoded together, each once."""
        numbers = [cast(jointly.PersonRow, row).person for row in rows]
        people = list(dict.fromkeys(numbers))
        vectors_PKS = self._network.vectors([self._events_of[number] for number in people])
        parts_of = dict(zip(people, self._network.way_in.parts(vectors_PKS), strict=True))
        return [parts_of[number] for number in numbers]


class Uelp:
    """Personalizer: a user encoder, a resampler, soft tokens."""

    name = "uelp"
    space: Space = MappingProxyType(
        {"vectors": (16, 4), "width": (64, 128), "learning_rate": (1e-3, 3e-3, 3e-4)}
    )

    def __init__(self, encoder: str = BASE) -> None:
        """A method whose events become vectors by `encoder`: `base`, or a hub name or folder."""
        self._reader = Reader(encoder)
        self._networks: WeakKeyDictionary[Shared, Network] = WeakKeyDictionary()
        self._parts: WeakKeyDictionary[UserState, Parts] = WeakKeyDictionary()

    def learn(
        self, base: Base, people: Sequence[Person], configuration: Configuration, seed: int
    ) -> Shared:
        """Encoder, resampler and way in, learned from other people.

        Raises:
            ValueError: too few people, or a base that can't hold the soft tokens.
        """
        options = require(configuration)
        sharing.require(list(people), FEWEST_PEOPLE, self.name)
        network = self._fresh(base, options, seed)
        items = [item for person in people for item in person.history]
        lengths = [len(person.history) for person in people]
        events_of = torch.split(self._reader.items(base, items), lengths)
        pretrain(network.timeline, events_of, seed)
        rows = jointly.person_rows(base, people, self._soft_tokens(options))
        rate, learner = options.number("learning_rate"), UelpLearner(network, events_of)
        jointly.learn(base, learner, rows, rate, jointly.epochs_of(rows), seed)
        configuration_of = {**options.to_json(), "encoder": self._reader.of(base).name}
        return Shared(self.name, configuration_of, network.tensors())

    def start(self, base: Base) -> ReadFitting:
        """A fitting that encodes: no task is trained."""
        return ReadFitting(lambda task: self._state(base, task))

    def frame(self, base: Base, state: UserState | None, query: str) -> Framed:
        """The query behind a soft token for each vector."""
        return Framed(query, 0 if state is None else len(state.tensors[VECTORS]))

    def parts(
        self,
        base: Base,
        states: Sequence[UserState],
        prompts: Sequence[Sequence[int]] | None,
    ) -> list[Parts]:
        """Soft tokens of prompts; while answers go on they are in the cache."""
        if prompts is None:
            return [Parts()] * len(states)
        return self._parts_of(base, states)

    def _soft_tokens(self, options: Options) -> int:
        return options.whole("vectors")

    def _fresh_way_in(self, base: Base, options: Options, seed: int) -> WayIn:
        require_room(base, options.whole("vectors"), self.name)
        generator = torch.Generator().manual_seed(seed)
        return AsSoftTokens(Projection.initialise(base, options.whole("width"), generator))

    def _known_way_in(self, base: Base, shared: Shared) -> WayIn:
        width = _options(shared).whole("width")
        return AsSoftTokens(Projection.from_tensors(base, shared.tensors, "projection", width))

    def _parts_of(self, base: Base, states: Sequence[UserState]) -> list[Parts]:
        """Each state's parts, made once: alone, so that no neighbour changes a rounding."""
        for state in states:
            if state not in self._parts:
                self._parts[state] = self._made(base, state)
        return [self._parts[state] for state in states]

    @torch.no_grad()
    def _made(self, base: Base, state: UserState) -> Parts:
        shared = sharing.shared_of(state)
        options = _options(shared)
        shape = (options.whole("vectors"), options.whole("width"))
        vectors_KS = checked(state.tensors, {VECTORS: shape})[VECTORS]
        vectors_KS = vectors_KS.to(base.device, parameter_kind(base))
        (parts,) = self._network(base, shared).way_in.parts(vectors_KS[None])
        return parts

    @torch.no_grad()
    def _state(self, base: Base, task: Task) -> UserState:
        shared = sharing.learned_for(task, self.name)
        require_encoder(shared, self._reader.of(base))
        events_nE = self._reader.items(base, task.train)
        vectors_PKS = self._network(base, shared).vectors([events_nE])
        tensors = {VECTORS: vectors_PKS[0].cpu()}
        configured = task.configuration.to_json()
        return UserState(self.name, task.user_id, configured, tensors, shared=shared)

    def _fresh(self, base: Base, options: Options, seed: int) -> Network:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            modules = _modules(base, options, self._reader.of(base).width)
            return Network(*modules, self._fresh_way_in(base, options, seed))

    def _network(self, base: Base, shared: Shared) -> Network:
        """A shared part's network on the base's device, without gradients, made once."""
        if shared not in self._networks:
            # Made as part of an answer, it would be of no use for anything else.
            with torch.inference_mode(False):
                timeline, resampler = _modules(base, _options(shared), _event_width(shared))
                load(timeline, shared.tensors, "timeline")
                load(resampler, shared.tensors, "resampler")
                way_in = self._known_way_in(base, shared)
            self._networks[shared] = Network(timeline, resampler, way_in)
        return self._networks[shared]


class UelpCross(Uelp):
    """Personalizer: a user encoder, a resampler, gated cross-attention; no token is added."""

    name = "uelp-cross"
    space: Space = MappingProxyType(
        {
            "layers": ("upper", "every"),
            "vectors": (16, 4),
            "width": (64, 128),
            "learning_rate": (3e-3, 1e-2, 1e-3),
        }
    )

    def frame(self, base: Base, state: UserState | None, query: str) -> Framed:
        """The query alone."""
        return Framed(query)

    def parts(
        self,
        base: Base,
        states: Sequence[UserState],
        prompts: Sequence[Sequence[int]] | None,
    ) -> list[Parts]:
        """What every token of a row attends to, also those of its answer."""
        return self._parts_of(base, states)

    def _soft_tokens(self, options: Options) -> int:
        return 0

    def _fresh_way_in(self, base: Base, options: Options, seed: int) -> WayIn:
        return Crossed(_attention(base, options))

    def _known_way_in(self, base: Base, shared: Shared) -> WayIn:
        attention = _attention(base, _options(shared))
        load(attention, shared.tensors, "attention")
        return Crossed(attention)


def _options(shared: Shared) -> Options:
    return Options(tuple((name, cast(Value, v)) for name, v in shared.configuration.items()))


def _event_width(shared: Shared) -> int:
    if "timeline.mean" not in shared.tensors:
        raise ValueError("expected the tensors of a timeline in the shared part, got none")
    return len(shared.tensors["timeline.mean"])


def _modules(base: Base, options: Options, events: int) -> tuple[Timeline, Resampler]:
    width, kind = options.whole("width"), parameter_kind(base)
    timeline = Timeline(events, width).to(base.device, kind)
    return timeline, Resampler(options.whole("vectors"), width).to(base.device, kind)


def _attention(base: Base, options: Options) -> CrossAttention:
    layers = options.one_of("layers", ("upper", "every"))
    first = base.layer_count // 2 if layers == "upper" else 0
    width = options.whole("width")
    attention = CrossAttention(range(first, base.layer_count), base.hidden_width, width, HEADS)
    return attention.to(base.device, parameter_kind(base))
