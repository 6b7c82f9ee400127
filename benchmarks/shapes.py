"""Random bases of a real model's shape, made on the device: weights don't matter for speed.

`1b` and `7b` are Llama 3.2 1B and Llama 2 7B, or Qwen 2.5 1.5B and 7B, by their published
configurations. The tokenizer is made on the spot and knows few words; the model's vocabulary has
its full size, since the head is where much of the time and memory goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from models.base import Base
from models.pretrain import PretrainSettings, train_tokenizer

CONTEXT = 1024
TOKENIZER_WORDS = 1024  # tokens that texts are made of; the rest of a vocabulary is never seen


def _sizes(
    width: int, inner: int, layers: int, heads: int, key_heads: int, vocabulary: int, tied: bool
) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }


SHAPES: dict[str, dict[str, dict[str, Any]]] = {
    "llama": {
        "tiny": _sizes(64, 160, 4, 4, 2, 2048, True),
        "1b": _sizes(2048, 8192, 16, 32, 8, 128256, True),
        "7b": _sizes(4096, 11008, 32, 32, 32, 32000, False),
    },
    "qwen2": {
        "tiny": _sizes(64, 160, 4, 4, 2, 2048, True),
        "1b": _sizes(1536, 8960, 28, 12, 2, 151936, True),
        "7b": _sizes(3584, 18944, 28, 28, 4, 152064, False),
    },
}


def random_base(
    family: str, size: str, device: str, dtype: torch.dtype, texts: Sequence[str]
) -> Base:
    """A base of a shape on a device; its tokenizer is made for the texts."""
    tokenizer = train_tokenizer(list(texts), PretrainSettings(vocabulary=TOKENIZER_WORDS))
    end = tokenizer.eos_token_id
    # Without a token to pad with: the one that begins all texts would have an embedding of zeros,
    # and a norm multiplies a gradient at zeros by a thousand, in each layer again.
    special = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": None}
    config = AutoConfig.for_model(
        family, **SHAPES[family][size], **special, max_position_embeddings=CONTEXT
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    name = f"random-{family}-{size}"
    return Base.wrap(name, model, tokenizer, fingerprint=name)
