"""Latent slots of a user, and the shared network that reads them for a query.

A user's slots are N vectors of a small width. K learned latents, moved by what the query is about
(the mean of its tokens' embeddings), attend to them; what they find is projected to K soft tokens.
So the slots hold what is the user's, and the network, which is everybody's, says how to read it.

Notation: B rows, N slots of width M, K soft tokens, D width of the base.

Reference: Latent Personal Memory, arXiv 2606.20911. Its sizes are not public: ours are options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.base import Base
from models.named import load, tensors_of
from models.options import Options
from models.parts import Parts
from models.projection import Projection, parameter_kind
from models.prompt import Row
from models.resampler import Resampler
from models.soft import embedded

SPREAD = 0.02  # of fresh slots


@dataclass(frozen=True, eq=False)
class SlotNetwork:
    """What is shared: the reading latents, the map from a query to them, the projection."""

    resampler: Resampler
    asked: nn.Linear
    projection: Projection

    @classmethod
    def initialise(cls, base: Base, options: Options, seed: int) -> SlotNetwork:
        """Fresh weights that take a gradient."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            resampler, asked = _modules(base, options)
        generator = torch.Generator().manual_seed(seed)
        return cls(resampler, asked, Projection.initialise(base, options.whole("width"), generator))

    @classmethod
    def from_tensors(
        cls, base: Base, options: Options, tensors: Mapping[str, Tensor]
    ) -> SlotNetwork:
        """A network that was kept, on the base's device; it takes no gradient.

        Raises:
            ValueError: a tensor is missing or has another shape.
        """
        # Made as part of an answer, its tensors would be of no use to a training.
        with torch.inference_mode(False):
            resampler, asked = _modules(base, options)
            load(resampler, tensors, "resampler")
            load(asked, tensors, "asked")
            width = options.whole("width")
            projection = Projection.from_tensors(base, tensors, "projection", width)
        return cls(resampler, asked, projection)

    def parameters(self) -> list[Tensor]:
        """All weights, in a stable order."""
        modules = [*self.resampler.parameters(), *self.asked.parameters()]
        return [*modules, *self.projection.parameters()]

    def tensors(self) -> dict[str, Tensor]:
        """Detached copies on the CPU, by name."""
        return {
            **tensors_of(self.resampler, "resampler"),
            **tensors_of(self.asked, "asked"),
            **self.projection.tensors("projection"),
        }

    def soft(self, slots_BNM: Tensor, pooled_BD: Tensor) -> Tensor:
        """Soft tokens `[B, K, D]` of rows' slots, for their pooled queries."""
        asked_BM = self.asked(pooled_BD)
        return self.projection(self.resampler(slots_BNM, asked_PS=asked_BM))

    def masses(self, slots_BNM: Tensor, pooled_BD: Tensor) -> Tensor:
        """`[B, N]`: which share of the attention each slot gets, for each row's query."""
        return self.resampler.masses(slots_BNM, self.asked(pooled_BD))


@dataclass(frozen=True, eq=False)
class Slots:
    """One user's slots `[N, M]` in training, read through a network that stays as it is."""

    slots: Tensor
    network: SlotNetwork

    def parameters(self) -> list[Tensor]:
        """The slots alone."""
        return [self.slots]


def fresh_slots(base: Base, shape: Sequence[int], seed: int) -> Tensor:
    """Slots that take a gradient, drawn on the CPU, so that they are the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(*shape, generator=generator, dtype=parameter_kind(base)) * SPREAD
    return drawn.to(base.device).requires_grad_()


def pooled(base: Base, prompts: Sequence[Sequence[int]]) -> Tensor:
    """`[B, D]` of prompts: the mean embedding of their tokens, normalised; soft tokens left out."""
    kept = [[token for token in tokens if token >= 0] for tokens in prompts]
    kind = parameter_kind(base)
    sums_BD = torch.zeros(len(kept), base.width, dtype=kind, device=base.device)
    owners = [row for row, tokens in enumerate(kept) for _ in tokens]
    if owners:
        found = embedded(base, [token for tokens in kept for token in tokens]).to(kind)
        sums_BD = sums_BD.index_add(0, torch.tensor(owners, device=base.device), found)
    return nn.functional.layer_norm(sums_BD, sums_BD.shape[1:])


def parts_of(
    base: Base, learners: Sequence[Slots], prompts: Sequence[Sequence[int]]
) -> list[Parts]:
    """What row i runs under: the slots of learner i, read for prompt i; all rows together."""
    parts = [Parts()] * len(learners)
    pooled_BD = pooled(base, prompts)
    for network in dict.fromkeys(learner.network for learner in learners):
        rows = [row for row, learner in enumerate(learners) if learner.network is network]
        slots_BNM = torch.stack([learners[row].slots for row in rows])
        for row, soft_KD in zip(rows, network.soft(slots_BNM, pooled_BD[rows]), strict=True):
            parts[row] = Parts(soft=soft_KD)
    return parts


def prompt_of(row: Row) -> tuple[int, ...]:
    """The tokens that a row answers."""
    return row.tokens[: row.predict_from]


def _modules(base: Base, options: Options) -> tuple[Resampler, nn.Linear]:
    width, kind = options.whole("width"), parameter_kind(base)
    resampler = Resampler(options.whole("vectors"), width).to(base.device, kind)
    return resampler, nn.Linear(base.width, width, bias=False).to(base.device, kind)
