"""A user encoder with its resampler, and the two ways in which their vectors reach a base.

Notation: P people, n events of a history, E width of an event's vector, K vectors, S their width,
D width of the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from models.attended import CrossAttention
from models.named import tensors_of
from models.parts import Parts
from models.projection import Projection
from models.resampler import Resampler
from models.timeline import Timeline


class WayIn(Protocol):
    """How K vectors of width S reach the base."""

    def parameters(self) -> list[Tensor]:
        """Tensors that take a gradient, in a stable order."""

    def tensors(self) -> dict[str, Tensor]:
        """Detached copies on the CPU, by name."""

    def parts(self, vectors_PKS: Tensor) -> list[Parts]:
        """What a row of each of P people runs under."""


class AsSoftTokens:
    """Vectors as soft tokens, by a projection."""

    def __init__(self, projection: Projection) -> None:
        self._projection = projection

    def parameters(self) -> list[Tensor]:
        """The projection's."""
        return self._projection.parameters()

    def tensors(self) -> dict[str, Tensor]:
        """The projection's."""
        return self._projection.tensors("projection")

    def parts(self, vectors_PKS: Tensor) -> list[Parts]:
        """K soft tokens each."""
        return [Parts(soft=soft_KD) for soft_KD in self._projection(vectors_PKS)]


class Crossed:
    """Vectors to attend to after layers of the base."""

    def __init__(self, attention: CrossAttention) -> None:
        self._attention = attention

    def parameters(self) -> list[Tensor]:
        """The cross-attention's."""
        return list(self._attention.parameters())

    def tensors(self) -> dict[str, Tensor]:
        """The cross-attention's."""
        return tensors_of(self._attention, "attention")

    def parts(self, vectors_PKS: Tensor) -> list[Parts]:
        """Keys and values of K vectors each."""
        return [Parts(attended=one) for one in self._attention.attended(vectors_PKS)]


class Network:
    """Encoder, resampler and way in: what a method shares, on the base's device."""

    def __init__(self, timeline: Timeline, resampler: Resampler, way_in: WayIn) -> None:
        self.timeline, self.resampler, self.way_in = timeline, resampler, way_in

    def parameters(self) -> list[Tensor]:
        """All that take a gradient, in a stable order."""
        own = [*self.timeline.parameters(), *self.resampler.parameters()]
        return [*own, *self.way_in.parameters()]

    def vectors(self, events_of: Sequence[Tensor]) -> Tensor:
        """`[P, K, S]` of people's events, `[n, E]` each."""
        events_PnE, empty_Pn = self.timeline.scaled(events_of)
        return self.resampler(self.timeline(events_PnE, empty_Pn), empty_Pn)  # type: ignore[no-any-return]

    def tensors(self) -> dict[str, Tensor]:
        """Detached copies of everything on the CPU, by name."""
        return {
            **tensors_of(self.timeline, "timeline"),
            **tensors_of(self.resampler, "resampler"),
            **self.way_in.tensors(),
        }
