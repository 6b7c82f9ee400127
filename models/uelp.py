"""Personalizers that encode a user's history into a few vectors: User-LLM, with two ways in.

A user encoder reads the history's events, a resampler makes K vectors of its states, and the
frozen base gets them as soft tokens (`uelp`, which any engine can serve) or by gated
cross-attention after chosen layers (`uelp-cross`, the paper's form). Everything is learned from
other people: first the encoder alone, to foresee their next event, then encoder, resampler and the
way in together, by the loss of their answers. A new user costs one encoding and no gradient.

A state holds the K vectors as they come from the resampler: they are narrower than the base, so
they take fewer bytes than soft tokens, or than keys and values in every layer.

Notation: P people, n events, E width of an event's vector, K vectors, S their width.

Reference: Ning et al., User-LLM, arXiv 2402.13598 (regime "encoder and projection", base frozen).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from models import jointly, sharing
from models.attended import CrossAttention
from models.base import Base
from models.encoder import BASE, Encoder, encoder_of
from models.fitting import ReadFitting
from models.history import Interaction
from models.named import load
from models.options import Options, Space, require
from models.parts import Parts
from models.personalizer import Configuration, Framed, Person, Shared, Task, UserState
from models.projection import Projection, parameter_kind
from models.prompt import Row
from models.resampler import Resampler
from models.soft import require_room
from models.timeline import Timeline, pretrain
from models.user_network import AsSoftTokens, Crossed, Network, WayIn

FEWEST_PEOPLE = 8
EPOCHS = 6
HEADS = 4
VECTORS = "vectors"


class _Learner:
    """A network, and whose rows it is trained on."""

    def __init__(self, network: Network, events_of: Sequence[Tensor]) -> None:
        self._network, self._events_of = network, events_of

    def parameters(self) -> list[Tensor]:
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
        self._encoder_name = encoder
        self._encoders: dict[str, Encoder] = {}
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
        encoder = self._encoder(base, self._encoder_name)
        described = {**options.to_json(), "encoder": encoder.name, "events": encoder.width}
        network = self._fresh(base, described, seed)
        events_of = _events(encoder, [person.history for person in people])
        pretrain(network.timeline, events_of, seed)
        rows = jointly.person_rows(base, people, self._soft_tokens(options))
        learner = _Learner(network, events_of)
        jointly.learn(base, learner, rows, options.number("learning_rate"), EPOCHS, seed)
        return Shared(self.name, described, network.tensors())

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

    def _way_in(self, base: Base, described: Mapping[str, object], seed: int) -> WayIn:
        require_room(base, _whole(described, "vectors"), self.name)
        generator = torch.Generator().manual_seed(seed)
        return AsSoftTokens(Projection.initialise(base, _whole(described, "width"), generator))

    def _known_way_in(self, base: Base, shared: Shared) -> WayIn:
        width = _whole(shared.configuration, "width")
        return AsSoftTokens(Projection.from_tensors(base, shared.tensors, "projection", width))

    def _parts_of(self, base: Base, states: Sequence[UserState]) -> list[Parts]:
        """Each state's parts, made once: alone, so that no neighbour changes a rounding."""
        for state in states:
            if state not in self._parts:
                network = self._network(base, _shared(state.shared, self.name))
                vectors_KS = state.tensors[VECTORS].to(base.device, parameter_kind(base))
                with torch.no_grad():
                    (self._parts[state],) = network.way_in.parts(vectors_KS[None])
        return [self._parts[state] for state in states]

    def _state(self, base: Base, task: Task) -> UserState:
        shared = _shared(task.shared, self.name)
        options = require(task.configuration)
        if not task.train:
            raise ValueError("expected interactions to read in the training part, got none")
        encoder = self._encoder(base, str(shared.configuration["encoder"]))
        with torch.no_grad():
            vectors_PKS = self._network(base, shared).vectors(_events(encoder, [task.train]))
        tensors = {VECTORS: vectors_PKS[0].cpu()}
        return UserState(self.name, task.user_id, options.to_json(), tensors, shared=shared)

    def _fresh(self, base: Base, described: Mapping[str, object], seed: int) -> Network:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            modules = _modules(base, described)
            return Network(*modules, self._way_in(base, described, seed))

    def _network(self, base: Base, shared: Shared) -> Network:
        """A shared part's network on the base's device, without gradients, made once."""
        if shared not in self._networks:
            # Made inside an answer, it would be of no use outside.
            with torch.inference_mode(False):
                timeline, resampler = _modules(base, shared.configuration)
                load(timeline, shared.tensors, "timeline")
                load(resampler, shared.tensors, "resampler")
                way_in = self._known_way_in(base, shared)
            self._networks[shared] = Network(timeline, resampler, way_in)
        return self._networks[shared]

    def _encoder(self, base: Base, name: str) -> Encoder:
        if name == BASE:
            return encoder_of(name, base)
        if name not in self._encoders:
            self._encoders[name] = encoder_of(name, base)
        return self._encoders[name]


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

    def _way_in(self, base: Base, described: Mapping[str, object], seed: int) -> WayIn:
        return Crossed(_attention(base, described))

    def _known_way_in(self, base: Base, shared: Shared) -> WayIn:
        attention = _attention(base, shared.configuration)
        load(attention, shared.tensors, "attention")
        return Crossed(attention)


def event_text(interaction: Interaction) -> str:
    """An interaction as an encoder reads it: what was asked, if anything, and what was answered."""
    if interaction.query is None:
        return interaction.response
    return f"{interaction.query}\n{interaction.response}"


def _events(encoder: Encoder, histories: Sequence[Sequence[Interaction]]) -> list[Tensor]:
    """`[n, E]` of each history, all texts in the same batches."""
    texts = [event_text(item) for history in histories for item in history]
    lengths = [len(history) for history in histories]
    return list(torch.split(encoder.encode(texts), lengths))


def _modules(base: Base, described: Mapping[str, object]) -> tuple[Timeline, Resampler]:
    width, kind = _whole(described, "width"), parameter_kind(base)
    timeline = Timeline(_whole(described, "events"), width)
    resampler = Resampler(_whole(described, "vectors"), width)
    return timeline.to(base.device, kind), resampler.to(base.device, kind)


def _attention(base: Base, described: Mapping[str, object]) -> CrossAttention:
    first = base.layer_count // 2 if described["layers"] == "upper" else 0
    layers, width = range(first, base.layer_count), _whole(described, "width")
    attention = CrossAttention(layers, base.hidden_width, width, HEADS)
    return attention.to(base.device, parameter_kind(base))


def _whole(described: Mapping[str, object], name: str) -> int:
    value = described.get(name)
    if not isinstance(value, int):
        raise ValueError(f"expected a whole number for {name}, got {value!r}")
    return value


def _shared(shared: Shared | None, method: str) -> Shared:
    if shared is None or shared.method != method:
        got = "none" if shared is None else f"one of {shared.method}"
        raise ValueError(f"expected the shared part that {method} learned, got {got}")
    return shared
