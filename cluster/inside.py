"""What a user's memory changed, as it is kept with the user's result and shown in the report.

The tokens are read off the user's validation responses, so they are the user's words: kept where
quotes of the user are kept, left out where quotes are left out, and removed with the user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.base import Base
    from models.history import Interaction
    from models.personalizer import Attach, UserState
    from models.prompt import Row

SHOWN = 10  # tokens of each kind


@dataclass(frozen=True)
class Risen:
    """A token that truly came next `count` times, and rose by so many nats on average."""

    text: str
    count: int
    mean_nats: float


@dataclass(frozen=True)
class Leaning:
    """A token, and the probability that it gained as a mean over all places, in [0, 1]."""

    text: str
    mean_mass: float


@dataclass(frozen=True)
class Inside:
    """What one memory changed.

    `risen` are the tokens that most of the gain on the validation responses is made of, `places`
    the tokens of those; `leaning` gained most probability there, `neutral` in answers to questions
    that anybody may ask anybody.
    """

    places: int
    gain_nats: float
    risen: tuple[Risen, ...]
    leaning: tuple[Leaning, ...]
    neutral: tuple[Leaning, ...]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Inside:
        """The inverse of `dataclasses.asdict` after a way through JSON."""
        parts = {
            "risen": tuple(Risen(**token) for token in value["risen"]),
            "leaning": tuple(Leaning(**token) for token in value["leaning"]),
            "neutral": tuple(Leaning(**token) for token in value["neutral"]),
        }
        return cls(**{**value, **parts})

    def share(self, token: Risen) -> float | None:
        """The part of the whole gain that a token makes; None where nothing was gained."""
        whole = self.gain_nats * self.places
        return token.count * token.mean_nats / whole if whole > 0 else None


def inside_of(
    base: Base,
    attach: Attach,
    state: UserState,
    items: Sequence[Interaction],
    neutral: Sequence[Row],
) -> Inside:
    """What a memory changed.

    Args:
        base: the memory's.
        attach: runs rows under memories.
        state: the memory.
        items: the user's validation items, which have queries.
        neutral: of `models.inside.neutral_rows`, the same for all users of a base.
    """
    # NOTE: imported here, since results are also read by processes that hold no torch.
    from models.inside import change
    from models.milp import pair_rows

    said = change(base, attach, state, pair_rows(base, items), SHOWN)
    anywhere = change(base, attach, state, neutral, SHOWN)
    total = sum(rise.count * rise.mean_nats for rise in said.rises)
    risen = [rise for rise in said.rises if rise.mean_nats > 0][:SHOWN]
    text = base.tokenizer.decode
    return Inside(
        said.places,
        total / said.places,
        tuple(Risen(str(text([r.token])), r.count, r.mean_nats) for r in risen),
        tuple(Leaning(str(text([g.token])), g.mean_mass) for g in said.gained),
        tuple(Leaning(str(text([g.token])), g.mean_mass) for g in anywhere.gained),
    )
