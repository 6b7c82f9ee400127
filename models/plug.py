"""The network of PPlug: two soft tokens of a query and the items of a user's history.

The query attends over the items; their weighted mean is projected. At a temperature of 1 (the
paper's) the weights of a history are nearly equal; 0.1 is sharp. What differs from the paper stands
in `models/pplug.py`.

Notation: E width of an encoder's vector, D width of the base, B rows, N items of all users in a
batch, P people.

Reference: Liu et al., LLMs + Persona-Plug = Personalized LLMs, arXiv 2409.11901.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.base import Base
from models.personalizer import Shared
from models.projection import Projection, checked, parameter_kind

SOFT_TOKENS = 2


@dataclass(frozen=True, eq=False)
class Plug:
    """What makes the two soft tokens.

    `query` is `[E, E]`, `instruction` and the centres `[E]`; the centres are not trained.
    """

    query: Tensor
    instruction: Tensor
    item_centre: Tensor
    query_centre: Tensor
    persona: Projection
    instruct: Projection
    temperature: float

    @classmethod
    def initialise(
        cls, base: Base, items_NE: Tensor, queries_NE: Tensor, temperature: float, seed: int
    ) -> Plug:
        """A fresh one, for items and queries that are spread like these."""
        generator = torch.Generator().manual_seed(seed)
        kind, width = parameter_kind(base), items_NE.shape[1]
        instruction = torch.rand(width, generator=generator, dtype=kind)
        return cls(
            torch.eye(width, dtype=kind).to(base.device).requires_grad_(),
            instruction.to(base.device).requires_grad_(),
            items_NE.mean(0),
            queries_NE.mean(0),
            Projection.initialise(base, width, generator),
            Projection.initialise(base, width, generator),
            temperature,
        )

    @classmethod
    def from_shared(cls, base: Base, shared: Shared) -> Plug:
        """What was learned, on the base's device.

        Raises:
            ValueError: a tensor is missing or has another shape.
        """
        width = len(shared.tensors.get("instruction", ()))
        shapes: dict[str, tuple[int, ...]] = {"query": (width, width), "instruction": (width,)}
        shapes |= {"item_centre": (width,), "query_centre": (width,)}
        found = {n: t.to(base.device) for n, t in checked(shared.tensors, shapes).items()}
        persona, instruct = (
            Projection.from_tensors(base, shared.tensors, name, width)
            for name in ("persona", "instruct")
        )
        temperature = float(str(shared.configuration["temperature"]))
        return cls(**found, persona=persona, instruct=instruct, temperature=temperature)

    def soft(self, queries_BE: Tensor, items: Sequence[Tensor], owners: Sequence[int]) -> Tensor:
        """The two soft tokens `[B, 2, D]` of each row: the instruction, then the persona.

        Args:
            queries_BE: vectors of the rows' queries.
            items: the vectors `[n, E]` of each user's items.
            owners: for each row, which of the users it is of.
        """
        lengths = torch.tensor([len(own) for own in items])
        owner_N = torch.repeat_interleave(torch.arange(len(items)), lengths)
        mask_BN = (torch.tensor(owners)[:, None] == owner_N).to(queries_BE.device)
        items_NE = centred(torch.cat(list(items)), self.item_centre)
        asked_BE = centred(queries_BE, self.query_centre).to(self.query.dtype)
        asked_BE = nn.functional.normalize(asked_BE @ self.query.T, dim=1)
        share_BN = attention(asked_BE, items_NE, mask_BN, self.temperature)
        inner_ND = self.persona.inner(items_NE * math.sqrt(items_NE.shape[1]))
        persona_BD = self.persona.read_out(share_BN @ inner_ND)
        return torch.stack([self.instruct(self.instruction).expand_as(persona_BD), persona_BD], 1)

    def parameters(self) -> list[Tensor]:
        """What takes a gradient, in a stable order."""
        projected = [*self.persona.parameters(), *self.instruct.parameters()]
        return [self.query, self.instruction, *projected]

    def tensors(self) -> dict[str, Tensor]:
        """Detached copies on the CPU, by name."""
        own = {
            "query": self.query,
            "instruction": self.instruction,
            "item_centre": self.item_centre,
            "query_centre": self.query_centre,
        }
        return {
            **{name: tensor.detach().cpu().clone() for name, tensor in own.items()},
            **self.persona.tensors("persona"),
            **self.instruct.tensors("instruct"),
        }


def attention(queries_BE: Tensor, items_NE: Tensor, mask_BN: Tensor, temperature: float) -> Tensor:
    """Weights `[B, N]` of items for each query, which add up to 1 over those that the mask allows.

    Source: Liu et al., section 3.2; `w_i = softmax_i(h_i . x / temperature)`.
    """
    scores_BN = queries_BE @ items_NE.to(queries_BE.dtype).T / temperature
    return scores_BN.masked_fill(~mask_BN, -math.inf).softmax(1)


def centred(vectors: Tensor, centre: Tensor) -> Tensor:
    """Vectors `[n, E]` without their centre `[E]`, of length 1."""
    return nn.functional.normalize(vectors - centre, dim=1)
