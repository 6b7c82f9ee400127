"""The one frozen language model: loading it, and where its feed-forward layers are.

It knows nothing of users or memories: whatever runs on top of it comes through forward hooks
(`models/bank.py`).

Notation: B rows, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from models import loading
from models.attention import NAME, take_attention
from models.families import Family, family_of
from models.fingerprint import fingerprint_of
from models.layout import Layout
from models.pointwise import take_pointwise
from models.precision import Precision, require
from models.products import freeze_linears
from models.prompt import PlainPrompt, prompt_format

LARGEST_CONTEXT = 4096  # rows longer than this are cut, whatever the base could read


@dataclass(frozen=True)
class Base:
    """A frozen model with its tokenizer, prompt format and layers.

    `feed_forward[i]` maps the full name of each feed-forward matrix of layer i to its module,
    `attention[i]` that of the matrices of its queries and values.
    """

    name: str
    model: Any
    tokenizer: PreTrainedTokenizerBase
    prompt: PlainPrompt
    family: Family
    feed_forward: tuple[dict[str, nn.Module], ...]
    attention: tuple[dict[str, nn.Module], ...]
    context: int
    position_offset: int
    fingerprint: str

    @classmethod
    def load(cls, source: str | Path, device: str = "auto", dtype: str = "auto") -> Base:
        """The base at a path or of a hub name, frozen, on a device.

        Args:
            source: a folder written by transformers, or a hub name such as `Qwen/Qwen3-0.6B`.
            device: `auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:1`.
            dtype: `auto` (bfloat16 on a GPU and on processors that multiply it, else float32),
                a torch dtype's name, `8bit` or `4bit`. Memories are float32 either way.

        Raises:
            ValueError: unsupported architecture, no usable tokenizer, weights that are damaged or
                too few, it does not fit, or bitsandbytes is wanted and not installed.
            OSError: nothing to load at that path or name.
        """
        source = str(source)
        model = Precision.of(device, dtype).load(source, loading.configuration(source))
        return cls.wrap(source, model, loading.tokenizer(source))

    @classmethod
    def wrap(
        cls,
        name: str,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        fingerprint: str | None = None,
    ) -> Base:
        """A base around a model and tokenizer in memory; freezes the model.

        Args:
            name: what it was loaded from.
            model: a causal language model of transformers.
            tokenizer: its tokenizer.
            fingerprint: read off files or weights if not given.

        Raises:
            ValueError: unsupported architecture, or a tokenizer that is not the model's.
        """
        loading.require_rows(name, tokenizer, model.get_input_embeddings().weight.shape[0])
        model.requires_grad_(False).eval()
        freeze_linears(model)
        take_attention(model)
        take_pointwise(model)
        family = family_of(model.config.model_type)
        context, offset = _context(model.config)
        prompt = prompt_format(tokenizer, context)
        modules = dict(model.named_modules())
        paths = [f"{family.layers}.{i}" for i in range(len(modules[family.layers]))]
        feed_forward, attention = (
            tuple({f"{path}.{m}": modules[f"{path}.{m}"] for m in matrices} for path in paths)
            for matrices in (family.matrices, family.attention)
        )
        if fingerprint is None and Path(name).is_dir():
            fingerprint = fingerprint_of(Path(name), prompt.name)
        elif fingerprint is None:
            fingerprint = fingerprint_of_model(model, tokenizer, prompt.name)
        return cls(
            name, model, tokenizer, prompt, family, feed_forward, attention, context, offset,
            fingerprint,
        )  # fmt: skip

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return torch.device(self.model.device)

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return next(iter(self.model.parameters())).dtype  # type: ignore[no-any-return]

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The model's layers, each with its attention and its feed-forward matrices."""
        return self.model.get_submodule(self.family.layers)  # type: ignore[no-any-return]

    @property
    def layer_count(self) -> int:
        """Number of layers that may hold a memory."""
        return len(self.feed_forward)

    @property
    def fan_in_fan_out(self) -> bool:
        """Whether feed-forward weights are stored `[in, out]`."""
        return self.family.fan_in_fan_out

    def matrix_shapes(self, layer: int) -> dict[str, tuple[int, int]]:
        """(features in, features out) of each feed-forward matrix of a layer."""
        return {name: _features(module) for name, module in self.feed_forward[layer].items()}

    def attention_shapes(self, layer: int) -> dict[str, tuple[int, int]]:
        """(features in, features out) of the matrices of a layer's queries and values."""
        return {name: _features(module) for name, module in self.attention[layer].items()}

    @property
    def per_rank(self) -> tuple[int, ...]:
        """Weights of a LoRA on each layer's feed-forward matrices, for each unit of its rank."""
        layers = (self.matrix_shapes(layer).values() for layer in range(self.layer_count))
        return tuple(sum(i + o for i, o in shapes) for shapes in layers)

    @property
    def places(self) -> dict[str, tuple[int, int]]:
        """(features in, features out) of every matrix that a LoRA may be added to, by full name."""
        layers = range(self.layer_count)
        shapes = [{**self.matrix_shapes(i), **self.attention_shapes(i)} for i in layers]
        return {name: shape for layer in shapes for name, shape in layer.items()}

    @property
    def width(self) -> int:
        """D: features of a token's embedding, and of a soft token."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    @property
    def hidden_width(self) -> int:
        """Features of a hidden state."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def smallest_dimension(self) -> int:
        """The smallest side of any feed-forward matrix: what ranks are held against."""
        return min(min(shape) for shape in self.matrix_shapes(0).values())

    @property
    def longest_behind(self) -> int:
        """Tokens of the longest row that may lie behind another in `hidden_behind`, or 0."""
        config = self.model.config.get_text_config()
        if self.model.config._attn_implementation != NAME:
            return 0
        return min(self.context, getattr(config, "sliding_window", None) or self.context)

    def hidden(self, tokens_BT: Tensor) -> Tensor:
        """Last hidden states `[B, T, D]` of right-padded rows."""
        positions = torch.arange(tokens_BT.shape[1], device=self.device)
        return self._hidden(tokens_BT, positions.expand_as(tokens_BT))

    def hidden_behind(self, tokens_N: Tensor, layout: Layout) -> Tensor:
        """Last hidden states `[N, D]` of rows that lie behind one another."""
        # A mask of four dimensions is taken as it is: nothing is made of it, and nobody reads it.
        unread = torch.zeros(1, 1, 1, 1, device=self.device)
        positions = layout.positions[None]
        return self._hidden(tokens_N[None], positions, attention_mask=unread, layout=layout)[0]

    def _hidden(self, tokens_BT: Tensor, positions_BT: Tensor, **more: Any) -> Tensor:
        output = self.model.base_model(
            input_ids=tokens_BT,
            position_ids=positions_BT + self.position_offset,
            use_cache=False,
            **more,
        )
        return output[0]  # type: ignore[no-any-return]

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits `[..., V]` of hidden states `[..., D]`."""
        if self.model.config.model_type == "roberta":
            return self.model.lm_head(hidden)  # type: ignore[no-any-return]
        logits: Tensor = self.model.get_output_embeddings()(hidden)
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap


def _features(module: nn.Module) -> tuple[int, int]:
    """(in, out): a linear layer knows them, whatever form its weight has; Conv1D's weight does."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    features_in, features_out = cast(Tensor, module.weight).shape
    return features_in, features_out


def _context(config: Any) -> tuple[int, int]:
    """(tokens a row may have, number of the first position)."""
    length = getattr(config, "max_position_embeddings", None) or config.n_positions
    # RoBERTa numbers its positions from the padding token's id onwards.
    offset = config.pad_token_id + 1 if config.model_type == "roberta" else 0
    return min(int(length) - offset, LARGEST_CONTEXT), offset


def fingerprint_of_model(model: Any, tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """A fingerprint for a model that lies in no local folder (a hub name, a test's model)."""
    digest = hashlib.sha256(prompt.encode())
    digest.update(model.config.to_json_string().encode())
    digest.update(repr(sorted(tokenizer.get_vocab().items())).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(
            tensor.detach().contiguous().cpu().view(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


def check(source: str | Path, dtype: str = "auto") -> None:
    """Refuse a base that `Base.load` would refuse, without loading its weights.

    Raises:
        ValueError: unsupported architecture, no usable tokenizer, or no such dtype here.
        OSError: nothing to load at that path or name.
    """
    if Path(source).is_absolute() and not Path(source).is_dir():
        why = "a file: give its folder" if Path(source).is_file() else "nothing there"
        raise FileNotFoundError(f"expected a base's folder or hub name, got {str(source)!r}, {why}")
    require(dtype)
    config = loading.configuration(str(source))
    tokenizer = loading.tokenizer(str(source))
    loading.require_rows(str(source), tokenizer, config.get_text_config().vocab_size)
