"""Where each supported family of language models keeps the matrices that memories are added to.

A family is named by transformers' `model_type`. Two share a matrix's last name with attention
(RoBERTa's `output.dense`, GPT-2's `c_proj`), so matrices are always named in full.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Path of the list of layers in the model, and of the matrices inside a layer.

    `matrices` are the feed-forward ones; `attention` those of queries and values, or the one that
    holds them. `fan_in_fan_out` marks weights stored as `[in, out]` (GPT-2's Conv1D).
    """

    layers: str
    matrices: tuple[str, ...]
    attention: tuple[str, ...]
    fan_in_fan_out: bool = False


_QUERY_VALUE = ("self_attn.q_proj", "self_attn.v_proj")
_GATED = Family("model.layers", ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"), _QUERY_VALUE)

FAMILIES: dict[str, Family] = {
    "llama": _GATED,
    "qwen2": _GATED,
    "qwen3": _GATED,
    "mistral": _GATED,
    "gemma": _GATED,
    "gemma2": _GATED,
    "gemma3_text": _GATED,
    "gpt2": Family("transformer.h", ("mlp.c_fc", "mlp.c_proj"), ("attn.c_attn",), True),
    "opt": Family("model.decoder.layers", ("fc1", "fc2"), _QUERY_VALUE),
    "gpt_neox": Family(
        "gpt_neox.layers",
        ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        ("attention.query_key_value",),
    ),
    "roberta": Family(
        "roberta.encoder.layer",
        ("intermediate.dense", "output.dense"),
        ("attention.self.query", "attention.self.value"),
    ),
}


def family_of(model_type: str) -> Family:
    """The family of a `model_type`.

    Raises:
        ValueError: the architecture is not supported; names those that are.
    """
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise ValueError(f"expected a base of one of the families {known}; got {model_type!r}")
    return FAMILIES[model_type]
