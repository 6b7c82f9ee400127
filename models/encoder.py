"""Texts to vectors: by an encoder from the hub, or by the base itself, which needs no download.

The base's vector of a text is the mean of its last hidden states. A hub encoder's is the state of
its first token, as BGE is read (BAAI/bge-base-en-v1.5 in PPlug). Both have length 1, so that a
product of two is their cosine.

Vectors of two encoders can't be compared, nor those of one before and after it changed. So a state
or a shared part keeps the full name of its encoder, `SOURCE#sha256=DIGEST` (of its vocabulary and
weights), and is served with that very one, or not at all.

Notation: n texts, E width of a vector, B rows, T tokens, D width of the base.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from models.base import Base
from models.batching import batches, default_padded_tokens
from models.parts import alone
from models.prompt import Row
from models.reading import Reading

LONGEST = 256  # tokens of a text that are read
BASE = "base"  # the name of the base as its own encoder
_DIGEST = "#sha256="
_UNUSED = "pooler."  # weights of an encoder that vectors don't depend on


class Encoder(Protocol):
    """What turns texts into vectors; its full name says which weights do."""

    name: str
    width: int

    def encode(self, texts: Sequence[str]) -> Tensor:
        """`[n, E]` in float32, on the base's device, each of length 1."""


class BaseEncoder:
    """The base's own mean-pooled hidden states."""

    name = BASE

    def __init__(self, base: Base) -> None:
        self._base = base
        self.width = base.hidden_width

    def encode(self, texts: Sequence[str]) -> Tensor:
        """`[n, E]` of texts."""
        begin, reading = self._base.prompt.begin, Reading.of(self._base)
        return self.encode_tokens([[*begin, *reading.text(text)] for text in texts])

    @torch.no_grad()
    def encode_tokens(self, tokens_of: Sequence[Sequence[int]]) -> Tensor:
        """`[n, E]` of token sequences; soft tokens among them are left out."""
        base = self._base
        longest = min(LONGEST, base.context)
        kept = [[t for t in tokens if t >= 0][-longest:] or [0] for tokens in tokens_of]
        rows = [Row(tuple(tokens), len(tokens)) for tokens in kept]
        found = torch.zeros(len(rows), self.width, device=base.device)
        with alone(base):
            for batch in batches(rows, default_padded_tokens(base.device), base.device):
                found[batch] = self._means([rows[i].tokens for i in batch])
        return nn.functional.normalize(found, dim=1)

    def _means(self, tokens_of: Sequence[Sequence[int]]) -> Tensor:
        lengths = torch.tensor([len(tokens) for tokens in tokens_of])
        tokens_BT = torch.zeros(len(tokens_of), int(lengths.max()), dtype=torch.long)
        for i, tokens in enumerate(tokens_of):
            tokens_BT[i, : len(tokens)] = torch.tensor(tokens)
        mask_BT = torch.arange(tokens_BT.shape[1]) < lengths[:, None]
        device = self._base.device
        hidden_BTD = self._base.hidden(tokens_BT.to(device)).float()
        weights_BT = (mask_BT / lengths[:, None]).to(device)
        return torch.einsum("btd,bt->bd", hidden_BTD, weights_BT)


class HubEncoder:
    """An encoder by hub name or folder: the first token's last hidden state."""

    def __init__(self, source: str, device: torch.device) -> None:
        """Loads it.

        Raises:
            ValueError: it isn't there, lacks its tokenizer or weights, or is no encoder.
        """
        self._source, self._lock = source, threading.Lock()
        try:
            # It brings no code of its own: transformers would ask at a terminal whether to run it.
            self._tokenizer: Any = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
            self._model, found = AutoModel.from_pretrained(
                source, use_safetensors=True, output_loading_info=True, trust_remote_code=False
            )
        except (OSError, ValueError, TypeError, SafetensorError) as error:
            raise ValueError(f"{_expected(source)}: {str(error)[:200]}") from error
        weights = {k: v for k, v in self._model.state_dict().items() if not k.startswith(_UNUSED)}
        self.name = f"{source}{_DIGEST}{_digest(self._tokenizer.get_vocab(), weights)}"
        self._model = self._model.to(device).eval().requires_grad_(False)
        self._device = device
        self.width = int(self._model.config.hidden_size)
        self._check_weights(found["missing_keys"])
        self._check_tokenizer()
        self._check_reads_ahead()
        positions = getattr(self._model.config, "max_position_embeddings", LONGEST)
        self._longest = min(LONGEST, positions, self._tokenizer.model_max_length)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """`[n, E]` of texts, one thread's at a time."""
        with self._lock:
            parts = [self._states(texts[i : i + 32]) for i in range(0, len(texts), 32)]
        return nn.functional.normalize(torch.cat(parts), dim=1)

    def _states(self, texts: Sequence[str]) -> Tensor:
        encoded = self._tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self._longest,
            return_tensors="pt",
        ).to(self._device)
        return self._model(**encoded).last_hidden_state[:, 0].float()  # type: ignore[no-any-return]

    def _check_weights(self, missing: Iterable[str]) -> None:
        """Refuses weights drawn at random; those of the pooler are never used."""
        absent = sorted(name for name in missing if not name.startswith(_UNUSED))
        if absent:
            raise ValueError(
                f"{_expected(self._source)} without the weights {absent[0]} and "
                f"{len(absent) - 1} more"
            )

    def _check_tokenizer(self) -> None:
        """Refuses the empty one that transformers makes where there is none, and another model's.

        With the first, every word would be the same unknown one.
        """
        known, special = len(self._tokenizer), len(self._tokenizer.all_special_tokens)
        vocabulary = int(self._model.config.vocab_size)
        if special < known <= vocabulary and self._tokenizer.pad_token is not None:
            return
        raise ValueError(
            f"{_expected(self._source)} without its tokenizer: expected one that pads, of at most "
            f"{vocabulary} tokens, got one of {known}, {special} of them special"
        )

    @torch.no_grad()
    def _check_reads_ahead(self) -> None:
        """Refuses a model whose first token knows nothing of what follows, as in any decoder."""
        config = self._model.config
        if not config.is_encoder_decoder:
            tokens = torch.tensor([[0, 1], [0, 2]], device=self._device)
            first, second = self._model(
                input_ids=tokens, attention_mask=torch.ones_like(tokens)
            ).last_hidden_state[:, 0]
            if not torch.equal(first, second):
                return
        raise ValueError(
            f"{_expected(self._source)}, a {config.model_type}, whose first token sees nothing of "
            "the others"
        )


def _expected(source: str) -> str:
    return (
        f"expected an encoder's folder or hub name, or {BASE!r} for the base's own hidden states, "
        f"got {source[:200]!r}"
    )


_LOADED: WeakValueDictionary[tuple[str, str], HubEncoder] = WeakValueDictionary()
_LOADING = threading.Lock()


def encoder_of(name: str, base: Base) -> Encoder:
    """The encoder of a name: `base`, or a hub name or folder, which may stand in a full name.

    One from the hub is loaded once, for whoever asks as long as somebody keeps it.

    Raises:
        ValueError: no such encoder, or not the one of the full name any more.
    """
    if name == BASE:
        return BaseEncoder(base)
    source = name.partition(_DIGEST)[0]
    key = (source, str(base.device))
    with _LOADING:
        encoder = _LOADED.get(key) or HubEncoder(source, base.device)
        _LOADED[key] = encoder
    if name not in (source, encoder.name):
        raise ValueError(
            f"expected the encoder {name}, which this was made with, got {encoder.name}: its words "
            "or weights have changed; bring back the earlier ones, or make this again"
        )
    return encoder


def _digest(vocabulary: Mapping[str, int], weights: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256(json.dumps(sorted(vocabulary.items())).encode())
    for name, tensor in sorted(weights.items()):
        found.update(name.encode() + b"\0")
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
