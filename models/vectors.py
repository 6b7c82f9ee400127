"""A user's items and queries as vectors, for the methods that read a history by an encoder.

An item is a query with its response, or a post: whichever of the two the user said, it is in it.
The encoder is frozen, so that a vector is made once.

Notation: n items, E width of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from models.base import Base
from models.encoder import BASE, BaseEncoder, Encoder, encoder_of
from models.history import Interaction
from models.personalizer import Shared


class Reader:
    """Reads with the encoder of a name, which it loads once for a base."""

    def __init__(self, encoder: str = BASE) -> None:
        """A reader.

        Args:
            encoder: `base` for the base's own hidden states, or a hub name or folder.
        """
        self.name = encoder
        self._encoders: WeakKeyDictionary[nn.Module, Encoder] = WeakKeyDictionary()

    def of(self, base: Base) -> Encoder:
        """The encoder.

        Raises:
            ValueError: no such encoder.
        """
        if base.model not in self._encoders:
            self._encoders[base.model] = encoder_of(self.name, base)
        return self._encoders[base.model]

    def items(self, base: Base, interactions: Sequence[Interaction]) -> Tensor:
        """`[n, E]` of items, each of length 1, on the base's device.

        Raises:
            ValueError: no items, or no such encoder.
        """
        if not interactions:
            raise ValueError("expected a history to read, got an empty one")
        return self.of(base).encode([_text(item) for item in interactions])

    def prompts(self, base: Base, prompts: Sequence[Sequence[int]]) -> Tensor:
        """`[n, E]` of the tokens of prompts, each of length 1; soft tokens are not read."""
        encoder = self.of(base)
        if isinstance(encoder, BaseEncoder):
            return encoder.encode_tokens(prompts)
        words = [[token for token in prompt if token >= 0] for prompt in prompts]
        return encoder.encode([base.prompt.decode(tokens) for tokens in words])


def require_encoder(shared: Shared, encoder: str) -> None:
    """Refuse a shared part that was learned with another encoder.

    Raises:
        ValueError: it was.
    """
    learned_with = shared.configuration.get("encoder")
    if learned_with != encoder:
        raise ValueError(
            f"expected a shared part learned with the encoder {encoder!r}, got one learned with "
            f"{learned_with!r}; name that encoder, or learn again"
        )


def _text(item: Interaction) -> str:
    return item.response if item.query is None else f"{item.query}\n{item.response}"
