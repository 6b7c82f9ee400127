"""How much of a trained memory is kept: its product times one of a few factors up to 1.

A memory that was trained, stopped and chosen on a few hundred validation words fits them better
than it fits the user's next ones. A part of the way from the base to the memory often serves those
better (as between two whole models: Wortsman et al., Robust fine-tuning of zero-shot models, arXiv
2109.01903). How large a part is chosen with caution: each factor is judged by the loss that it
saves on the validation items, less one standard error of that saving; the error grows with the
factor. So of a memory validated on few words, as in a chat log, a smaller part is kept; of one
validated on many, as in a court's transcripts, nearly all.

The factor is multiplied into B, so a state stays what it was: a plain LoRA.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from models.base import Base
from models.history import Interaction
from models.personalizer import Attach, Frame, UserState
from models.scoring import Loss, losses

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
LORA_B = ".lora_B."


def is_lora(state: UserState) -> bool:
    """Whether a state holds a LoRA, which can be kept in part."""
    return any(LORA_B in name for name in state.tensors)


def moderated(
    base: Base,
    attach: Attach,
    state: UserState,
    items: Sequence[Interaction],
    frame: Frame | None = None,
) -> tuple[UserState, float]:
    """A memory at its strength, and that strength, chosen on validation items."""
    states = [scaled(state, strength) for strength in STRENGTHS]
    of_base, *found = losses(base, attach, [None, *states], [items] * (1 + len(states)), frame)
    best = surest(found, of_base)
    return states[best], STRENGTHS[best]


def surest(found: Sequence[Loss], of_base: Loss) -> int:
    """Which of these losses saves most against the base's, less a standard error of the saving."""
    cautious = [sum(difference(loss, of_base)) for loss in found]
    return cautious.index(min(cautious))


def scaled(state: UserState, strength: float) -> UserState:
    """A LoRA whose product is `strength` times that of `state`."""
    tensors = {
        name: tensor * strength if LORA_B in name else tensor
        for name, tensor in state.tensors.items()
    }
    return replace(state, tensors=tensors)


def difference(loss: Loss, other: Loss) -> tuple[float, float]:
    """`loss` minus `other` in nats per token, and its standard error over the items.

    Items weigh as many tokens as they have, so both are those of a ratio of sums. The standard
    error of a single item is infinite.
    """
    counts, total = loss.tokens, sum(loss.tokens)
    nats = [
        (a - b) * count for a, b, count in zip(loss.item_nats, other.item_nats, counts, strict=True)
    ]
    mean, n = math.fsum(nats) / total, len(counts)
    if n == 1:
        return mean, math.inf
    rest = math.fsum((d - mean * count) ** 2 for d, count in zip(nats, counts, strict=True))
    return mean, math.sqrt(rest * n / (n - 1)) / total
