"""A user's items and queries as vectors, for the methods that read a history by an encoder.

An item is a query with its response, or a post: whichever of the two the user said, it is in it.
The encoder is frozen, so that vectors are made once: what a method shares is learned under several
configurations and seeds, from the same people each time, and reading them took as long as an epoch.

Notation: n items, E width of a vector.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import ClassVar
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from models.base import Base
from models.encoder import BASE, BaseEncoder, Encoder, encoder_of
from models.history import Interaction
from models.personalizer import Shared

KEPT_BYTES = 64 << 20  # of vectors, for a base


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
        encoder, texts = self.of(base), [_text(item) for item in interactions]
        key = _key(self.name, interactions[0].user_id, texts)
        return _Read.of(base).get(key, lambda: encoder.encode(texts))

    def prompts(self, base: Base, prompts: Sequence[Sequence[int]]) -> Tensor:
        """`[n, E]` of the tokens of prompts, each of length 1; soft tokens are not read."""
        encoder = self.of(base)
        if isinstance(encoder, BaseEncoder):
            return encoder.encode_tokens(prompts)
        words = [[token for token in prompt if token >= 0] for prompt in prompts]
        return encoder.encode([base.prompt.decode(tokens) for tokens in words])


def require_encoder(shared: Shared, encoder: Encoder) -> None:
    """Refuse a shared part that was learned with another encoder.

    Raises:
        ValueError: it was.
    """
    learned_with = shared.configuration.get("encoder")
    if learned_with != encoder.name:
        raise ValueError(
            f"expected a shared part learned with the encoder {encoder.name!r}, got one learned "
            f"with {learned_with!r}; name that encoder, or learn again"
        )


class _Read:
    """Vectors of whole histories by digests, of those last asked for, for as long as a base lives.

    The same texts of the same user are read again as they were: in one call, so bit for bit.
    """

    _made: ClassVar[WeakKeyDictionary[nn.Module, _Read]] = WeakKeyDictionary()
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    @classmethod
    def of(cls, base: Base) -> _Read:
        """Those of a base."""
        with cls._lock:
            return cls._made.setdefault(base.model, cls())

    def get(self, key: str, make: Callable[[], Tensor]) -> Tensor:
        """The vectors of a key, made where they are not kept."""
        with self._lock:
            found = self._kept.get(key)
        if found is None:
            found = make()
        with self._lock:
            self._kept[key] = found
            self._kept.move_to_end(key)
            while sum(each.nbytes for each in self._kept.values()) > KEPT_BYTES:
                self._kept.popitem(last=False)
        return found


def _key(encoder: str, user_id: str, texts: Sequence[str]) -> str:
    """A digest, so that no text is kept."""
    return hashlib.sha256(json.dumps([encoder, user_id, *texts]).encode()).hexdigest()


def _text(item: Interaction) -> str:
    return item.response if item.query is None else f"{item.query}\n{item.response}"
