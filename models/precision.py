"""In which numbers a base's weights lie on a device, and whether they fit there.

A base that is too large for its device in 16 bits may be loaded in 8 or 4: `8bit` is LLM.int8(),
`4bit` is QLoRA's NormalFloat4 with its constants quantised too, both by bitsandbytes, which is
an extra (`pip install milpa[quantized]`). Only the frozen base's linear layers are quantised;
embeddings, norms and the head stay in 16 bits, memories and their optimiser in float32. In bfloat16
a training ends within 0.02 nats per token of where it ends in float32: so much is tolerated, and
tested with tiny models.

It knows no memory: a quantised layer is a module like any other to the hooks of the bank.

References: Dettmers et al., LLM.int8(), arXiv 2208.07339; QLoRA, arXiv 2305.14314.
"""

from __future__ import annotations

import importlib.util
import logging
import math
from dataclasses import dataclass
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from transformers import BitsAndBytesConfig

from models import loading

BITS = {"8bit": 8, "4bit": 4}
_PROCESS_BYTES = 2**30  # torch and transformers themselves, with a small pack
_OVERHEAD = 1.2  # of quantised weights: their scales, and what is not quantised


@dataclass(frozen=True)
class Precision:
    """A device, the dtype that is computed in, and the bits that a linear layer's weight takes."""

    device: torch.device
    dtype: torch.dtype
    bits: int | None = None  # None: as many as the dtype has

    @classmethod
    def of(cls, device: str, dtype: str) -> Precision:
        """What the names stand for; `auto` and quantised weights compute in the device's dtype.

        Raises:
            ValueError: no such dtype, or bitsandbytes is not installed.
        """
        require(dtype)
        where = torch.device(_device(device))
        if dtype == "auto" or dtype in BITS:
            return cls(where, _native(where), BITS.get(dtype))
        return cls(where, getattr(torch, dtype))

    def load(self, source: str, config: Any) -> Any:
        """The causal model at a path or of a hub name, on the device.

        Raises:
            ValueError: it does not fit, or its weights are damaged or too few.
        """
        self.check_room(source)
        if self.bits is None:
            return loading.weights(source, config, dtype=self.dtype).to(self.device)
        model = loading.weights(
            source,
            config,
            dtype=self.dtype,
            quantization_config=self._quantization(),
            device_map={"": str(self.device)},
        )
        _make_trainable(model)
        return model

    def _quantization(self) -> BitsAndBytesConfig:
        return BitsAndBytesConfig(
            load_in_8bit=self.bits == 8,
            load_in_4bit=self.bits == 4,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=self.dtype,
        )

    def check_room(self, source: str) -> None:
        """Refuse a base on disk whose weights do not fit the device.

        Raises:
            ValueError: it is larger than what is free, or a file is damaged.
        """
        needed = self.weight_bytes(source)
        if self.device.type == "cuda":
            free = torch.cuda.mem_get_info(self.device)[0]
        else:
            free = psutil.virtual_memory().available
        if needed > free:
            raise ValueError(
                f"expected a base that fits {self.device}, got {source!r} with about "
                f"{needed / 2**30:.1f} GiB of weights and {free / 2**30:.1f} GiB free; "
                "take fewer bits (8bit, 4bit), a smaller base or a larger device"
            )

    def weight_bytes(self, source: str) -> float:
        """What the weights of a base on disk take here, in whatever numbers they are stored.

        0 for a base that is not on disk yet, or not in safetensors: then nobody knows.

        Raises:
            ValueError: a damaged file.
        """
        bits = self.dtype.itemsize * 8 if self.bits is None else self.bits * _OVERHEAD
        return loading.weight_count(source) * bits / 8


def packer_bytes(source: str, dtype: str) -> float:
    """What a process holds with a base on the CPU; infinite where `weight_bytes` can't know.

    Raises:
        ValueError: no such dtype, bitsandbytes is not installed, or a file is damaged.
    """
    weights = Precision.of("cpu", dtype).weight_bytes(source)
    return weights + _PROCESS_BYTES if weights else math.inf


def _make_trainable(model: Any) -> None:
    """Undo what keeps memories from training on bitsandbytes' layers in a frozen model."""
    import bitsandbytes

    # It says of every product in 8 bits that its input becomes float16.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear8bitLt | bitsandbytes.nn.Linear4bit):
            # It may answer with a view of its function's result, and nobody may add to that.
            module.register_forward_hook(lambda _module, _inputs, output: output.clone())
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            # NOTE: on a CPU with bfloat16, one pass without gradients would repack the weights for
            # a product that later passes no gradients on, without a word.
            module.support_avx512bf16_for_cpu = False


def require(dtype: str) -> None:
    """Refuse what no base can be loaded in here.

    Raises:
        ValueError: no such dtype, or bitsandbytes is not installed.
    """
    if dtype in BITS:
        if importlib.util.find_spec("bitsandbytes") is None:
            raise ValueError(
                f"expected bitsandbytes for a base in {dtype}, got none installed; "
                "pip install 'milpa[quantized]'"
            )
    elif dtype != "auto" and not _is_floating(dtype):
        raise ValueError(
            f"expected auto, {', '.join(BITS)} or a torch dtype such as float32 or bfloat16, "
            f"got {dtype!r}"
        )


def _is_floating(dtype: str) -> bool:
    chosen = getattr(torch, dtype, None)
    return isinstance(chosen, torch.dtype) and chosen.is_floating_point


def _device(device: str) -> str:
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _native(device: torch.device) -> torch.dtype:
    """bfloat16 where it is multiplied natively, else float32."""
    native = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32
