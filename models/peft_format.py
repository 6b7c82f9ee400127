"""PEFT's adapter folder: `adapter_model.safetensors` and `adapter_config.json`, in and out.

What is written here is read unchanged by PEFT, vLLM and LoRAX. Both files are made by hand, from
tensors and JSON, so that the same memory gives the same bytes under any version of PEFT; nothing is
ever pickled. It knows no user and no registry.

An adapter's tensors carry full module names (`model.layers.3.mlp.gate_proj.lora_A.weight`), with
PEFT's prefix in the file only. All modules have one rank, and lora_alpha equals it: vLLM ignores
PEFT's `rank_pattern` and `alpha_pattern`. `layers_to_transform` is not written: PEFT reads an empty
list as all layers.

Notation: R rank, I and O features in and out; A is `[R, I]`, B is `[O, R]`, and B A is added to W.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

WEIGHTS = "adapter_model.safetensors"
CONFIGURATION = "adapter_config.json"
PREFIX = "base_model.model."

_NAME = re.compile(r"([A-Za-z0-9_.]{1,300})\.lora_([AB])\.weight")
# What PEFT can do beyond W + B A. An adapter with any of it set is not a plain LoRA.
_BEYOND_LORA = (
    "use_dora", "lora_bias", "modules_to_save", "rank_pattern", "alpha_pattern", "megatron_config",
    "layer_replication", "trainable_token_indices", "target_parameters",
)  # fmt: skip


def is_lora(name: str) -> bool:
    """Whether a tensor's name is that of a LoRA's half."""
    return _NAME.fullmatch(name) is not None


def module_of(name: str) -> str:
    """The full module name in a LoRA tensor's name."""
    return name.rsplit(".lora_", 1)[0]


def rank_of(tensors: Mapping[str, Tensor]) -> int:
    """The one rank of an adapter.

    Raises:
        ValueError: a half is missing, halves do not fit each other, or ranks differ.
    """
    ranks = set()
    for module in sorted({module_of(name) for name in tensors}):
        a_RI = tensors.get(f"{module}.lora_A.weight")
        b_OR = tensors.get(f"{module}.lora_B.weight")
        if a_RI is None or b_OR is None:
            raise ValueError(f"expected lora_A and lora_B of {module}, got one of them")
        if a_RI.ndim != 2 or b_OR.ndim != 2 or a_RI.shape[0] != b_OR.shape[1]:
            got = f"A {tuple(a_RI.shape)} and B {tuple(b_OR.shape)}"
            raise ValueError(f"expected {module} to have A [R, I] and B [O, R], got {got}")
        ranks.add(int(a_RI.shape[0]))
    if len(ranks) != 1:
        raise ValueError(f"expected one rank over all modules of an adapter, got {sorted(ranks)}")
    return ranks.pop()


def encode(tensors: Mapping[str, Tensor], base_name: str, fan_in_fan_out: bool) -> dict[str, bytes]:
    """The two files of an adapter, by name; the same bytes for the same arguments.

    Raises:
        ValueError: the tensors are not a LoRA of one rank.
    """
    configuration = {
        "base_model_name_or_path": base_name,
        "bias": "none",
        "fan_in_fan_out": fan_in_fan_out,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": rank_of(tensors),
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank_of(tensors),
        "target_modules": sorted({module_of(name) for name in tensors}),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    return {
        WEIGHTS: encode_tensors({PREFIX + name: tensor for name, tensor in tensors.items()}),
        CONFIGURATION: json.dumps(configuration, indent=2, sort_keys=True).encode(),
    }


def encode_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as safetensors.

    Raises:
        ValueError: a tensor is not of floating point, or holds a value that is not finite.
    """
    plain = {}
    for name, tensor in sorted(tensors.items()):
        if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
            raise ValueError(f"expected finite floating-point values in {name}, got others")
        # A copy of its own: safetensors refuses views into one storage.
        plain[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return save_tensors(plain, metadata={"format": "pt"})


def decode_tensors(content: bytes) -> dict[str, Tensor]:
    """Tensors from safetensors, all of floating point.

    Raises:
        ValueError: not safetensors, or another type of number.
    """
    try:
        tensors: dict[str, Tensor] = load_tensors(content)
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise ValueError(f"expected safetensors, got {_short(error)}") from error
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ValueError(f"expected floating point in {name[:80]!r}, got {tensor.dtype}")
    return tensors


def decode_adapter(content: bytes) -> dict[str, Tensor]:
    """A LoRA's tensors from safetensors, without PEFT's prefix.

    Raises:
        ValueError: not safetensors, a name that is not a LoRA's, or not of one rank.
    """
    tensors = decode_tensors(content)
    for name in tensors:
        if not name.startswith(PREFIX) or not is_lora(name):
            raise ValueError(f"expected {PREFIX}<module>.lora_A.weight or B, got {name[:80]!r}")
    plain = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    rank_of(plain)
    return plain


def read_adapter(folder: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Tensors at scale 1 and configuration of a plain LoRA in a folder.

    Raises:
        FileNotFoundError: no adapter there.
        ValueError: not a plain LoRA of one rank.
    """
    try:
        configuration = _configuration((folder / CONFIGURATION).read_bytes())
        tensors = decode_adapter((folder / WEIGHTS).read_bytes())
        rank = rank_of(tensors)
        if configuration["r"] != rank:
            raise ValueError(f"expected tensors of rank {configuration['r']}, got {rank}")
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    divisor = math.sqrt(rank) if configuration.get("use_rslora") else rank
    scale = float(configuration["lora_alpha"]) / divisor
    scaled = {n: t * scale if ".lora_B." in n and scale != 1 else t for n, t in tensors.items()}
    return scaled, configuration


def concatenate(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One adapter that adds what both add: W + B1 A1 + B2 A2 = W + [B1 B2] [A1; A2].

    Every module gets the rank R1 + R2; where it had only one of the two, the rest is zero.

    Raises:
        ValueError: a module that both have differs in shape.
    """
    ranks = rank_of(first), rank_of(second)
    joined = {}
    for name in sorted({*first, *second}):
        axis = 0 if ".lora_A." in name else 1  # where the rank is
        halves = [
            _padded(first, second, name, axis, ranks[0]),
            _padded(second, first, name, axis, ranks[1]),
        ]
        if halves[0].shape[1 - axis] != halves[1].shape[1 - axis]:
            sizes = [half.shape[1 - axis] for half in halves]
            raise ValueError(f"expected adapters of one base, got {name} of {sizes} features")
        kind = torch.promote_types(halves[0].dtype, halves[1].dtype)
        joined[name] = torch.cat([half.to(kind) for half in halves], dim=axis)
    return joined


def _padded(
    mine: Mapping[str, Tensor], other: Mapping[str, Tensor], name: str, axis: int, rank: int
) -> Tensor:
    """My half of a module, or zeros of my rank that fit the other's."""
    if name in mine:
        return mine[name]
    features = other[name].shape[1 - axis]
    return other[name].new_zeros((rank, features) if axis == 0 else (features, rank))


def _configuration(content: bytes) -> Mapping[str, Any]:
    """The configuration of a plain LoRA."""
    try:
        configuration = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected JSON in {CONFIGURATION}, got {_short(error)}") from error
    if not isinstance(configuration, dict) or configuration.get("peft_type") != "LORA":
        raise ValueError("expected the configuration of a LoRA (peft_type LORA), got another")
    beyond = [key for key in _BEYOND_LORA if configuration.get(key)]
    if configuration.get("bias", "none") != "none":
        beyond.append("bias")
    if beyond:
        raise ValueError(f"expected a plain LoRA, got one with {', '.join(beyond)}")
    for key in ("r", "lora_alpha"):
        if not isinstance(configuration.get(key), int | float):
            raise ValueError(f"expected a number {key} in {CONFIGURATION}, got none")
    return configuration


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
