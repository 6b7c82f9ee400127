"""Tiny random models of every family, with a tokenizer, built from configs, not downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from models.base import Base
from models.families import FAMILIES
from models.history import Interaction

VOCABULARY = 384
WORDS = [
    "Where is my dog Rex today? He sleeps in the garden of our house in Lisbon.",
    "I work as a baker and I am allergic to peanuts; please answer politely.",
    "What should I cook tonight? Try a soup with carrots and bread.",
]
_SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 4, "n_head": 2, "n_inner": 48, "n_positions": 128},
    "opt": {"hidden_size": 32, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "roberta": {"hidden_size": 32, "intermediate_size": 48, "is_decoder": True},
    "gpt_neox": {"hidden_size": 32, "intermediate_size": 48},
}
_GATED = {"hidden_size": 32, "intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 16}


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on a few sentences."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY - 2,
        special_tokens=["<|endoftext|>", "<pad>"],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(WORDS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<pad>",
    )


def tiny_model(family: str = "llama", dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """A random causal model of a family: 4 layers, width 32, context 128."""
    settings = {
        "vocab_size": VOCABULARY,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "max_position_embeddings": 128 + 2 * (family == "roberta"),
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 1,
        **_SIZES.get(family, _GATED),
    }
    torch.manual_seed(seed)
    config = AutoConfig.for_model(family, **settings)
    config.attention_dropout = 0.0
    model = AutoModelForCausalLM.from_config(config)
    # Larger than the usual 0.02, so that a tiny model's answers differ from input to input.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    return model.to(dtype)


def tiny_base(family: str = "llama", dtype: torch.dtype = torch.float32, seed: int = 0) -> Base:
    """A base in memory."""
    return Base.wrap(f"tiny-{family}", tiny_model(family, dtype, seed), tiny_tokenizer())


def save_tiny_base(folder: Path, family: str = "llama", seed: int = 0) -> Path:
    """A base on disk, as transformers writes it."""
    tiny_model(family, seed=seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_interactions(user_id: str, count: int, sessions: int = 10) -> list[Interaction]:
    """Deterministic interactions of a made-up user, in time order."""
    animals = ["dog", "cat", "horse", "parrot", "goat"]
    mine = animals[sum(map(ord, user_id)) % len(animals)]
    return [
        Interaction(
            user_id=user_id,
            time=float(i),
            query=f"question {i}: what about my {mine}?",
            response=f"your {mine} number {i % 7} is fine",
            session=f"{user_id}-{i * sessions // count}",
        )
        for i in range(count)
    ]


ALL_FAMILIES = tuple(sorted(FAMILIES))
