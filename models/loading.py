"""A base's files as transformers reads them, or why it can't: configuration, tokenizer, weights.

A base brings no code of its own: unless told not to, transformers asks at a terminal whether to run
what lies beside the weights, and does.

Where a file lacks weights, transformers draws them at random and only says so. A base like that
would answer, and nothing that is learned on it would mean anything: it is refused here.

It knows no device and no memory; what a base is once it is loaded is `base.py`'s part.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from models.families import family_of


def configuration(source: str) -> Any:
    """The configuration of a supported base, set to be a decoder.

    Raises:
        ValueError: an unsupported architecture; names those that are.
        OSError: nothing to load at that path or name.
    """
    try:
        known = PreTrainedConfig.get_config_dict(source)[0]
        if not known:
            raise FileNotFoundError("no config.json there")
    except OSError as error:
        why = " ".join(str(error).split())
        raise OSError(f"expected a base's folder or hub name, got {source!r}: {why}") from error
    # Asked before transformers is: it would refuse an architecture that it doesn't know otherwise.
    family_of(str(known.get("model_type")))
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if config.model_type == "roberta":
        config.is_decoder = True
    return config


def tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer beside a base's weights.

    Raises:
        ValueError: none that loads.
    """
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"expected a tokenizer beside the weights of the base {source!r}, got none that loads"
        ) from error


def weight_count(source: str) -> int:
    """How many numbers a base's safetensors hold, by their heads alone; 0 where there are none.

    Raises:
        ValueError: a damaged file.
    """
    count = 0
    for file in Path(source).glob("model*.safetensors"):  # a shard each, or the only one
        try:
            with safe_open(file, "pt") as stored:
                count += sum(
                    math.prod(stored.get_slice(n).get_shape()) for n in stored.offset_keys()
                )
        except SafetensorError as error:
            raise _damaged(source, error) from error
    return count


def require_rows(source: str, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Refuse a tokenizer with tokens that a base has no embeddings for.

    On a GPU one such token takes the device from the whole process. Special ones that no prompt
    holds may lack theirs, as a pad does that was added later: a text never becomes such a token.

    Raises:
        ValueError: ids at or beyond the number of rows.
    """
    unused = set(tokenizer.all_special_ids) - {tokenizer.bos_token_id, tokenizer.eos_token_id}
    largest = max(set(tokenizer.get_vocab().values()) - unused, default=0)
    if largest >= rows:
        raise ValueError(
            f"expected a tokenizer with ids below {rows}, the rows of {source!r} for embeddings, "
            f"got ids up to {largest}; take the tokenizer that the weights were trained with, or "
            f"resize the embeddings (transformers' resize_token_embeddings) and save the base again"
        )


def weights(source: str, config: Any, **settings: Any) -> Any:
    """The causal model with all its weights.

    Args:
        source: a path or hub name.
        config: as `configuration` gives it.
        settings: for transformers' `from_pretrained`.

    Raises:
        ValueError: weights that are damaged, too few, or of another model.
        OSError: none there.
    """
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told below, all together
            **settings,
        )
    except SafetensorError as error:
        raise _damaged(source, error) from error
    absent = sorted([*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])])
    if absent:
        raise ValueError(
            f"expected in {source!r} all weights of a causal {config.model_type} as config.json "
            f"describes it, got none that fit {absent[0]} and {len(absent) - 1} more; give a base "
            "that writes text"
        )
    return model


def _damaged(source: str, error: SafetensorError) -> ValueError:
    return ValueError(
        f"expected the weights of a base in {source!r}, got a damaged file ({error}); copy it again"
    )
