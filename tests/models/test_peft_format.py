"""Adapters written by hand are PEFT's own, and two of them add up to one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from models import peft_format
from tests.states import TOKENS, lora, write
from tests.tiny import tiny_model


def change(folder: Path, **changed: Any) -> None:
    file = folder / peft_format.CONFIGURATION
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))


def peft_logits(model: Any, folder: Path) -> Tensor:
    with torch.no_grad():
        wrapped = peft.PeftModel.from_pretrained(model, folder)
        return wrapped.double().eval()(TOKENS).logits  # type: ignore[no-any-return]


def test_a_written_adapter_is_read_back(tmp_path: Path) -> None:
    tensors = lora("llama", (0, 2), 3, 1)
    read, configuration = peft_format.read_adapter(write(tmp_path / "a", tensors))
    assert set(read) == set(tensors)
    for name in tensors:
        assert_close(read[name], tensors[name], rtol=0, atol=0)
    assert configuration["r"] == configuration["lora_alpha"] == 3
    assert "layers_to_transform" not in configuration
    assert configuration["target_modules"] == sorted(set(map(peft_format.module_of, tensors)))


def test_the_same_memory_gives_the_same_bytes() -> None:
    tensors = lora("llama", (1,), 3, 1)
    backwards = dict(reversed(tensors.items()))
    assert peft_format.encode(tensors, "b", False) == peft_format.encode(backwards, "b", False)


def test_views_into_one_storage_are_written_whole() -> None:
    whole = torch.randn(4, 2, 3)
    tensors = {"m.lora_A.weight": whole[0], "m.lora_B.weight": whole[1].T.contiguous().T[:, :2]}
    content = peft_format.encode(tensors, "b", False)[peft_format.WEIGHTS]
    read = peft_format.decode_adapter(content)
    for name in tensors:
        assert_close(read[name], tensors[name], rtol=0, atol=0)


@pytest.mark.parametrize(("family", "fan"), [("llama", False), ("gpt2", True)])
def test_two_adapters_add_up_to_one(tmp_path: Path, family: str, fan: bool) -> None:
    # Layer 0 has both, layer 1 the first alone, layer 3 the second alone.
    first, second = lora(family, (0, 1), 3, 1), lora(family, (0, 3), 5, 2)
    joined = peft_format.concatenate(first, second)
    assert peft_format.rank_of(joined) == 8
    model = tiny_model(family, torch.float64)
    for name in {peft_format.module_of(n) for n in joined}:
        module = model.get_submodule(name)
        for part in (first, second):
            if f"{name}.lora_A.weight" in part:
                a_RI = part[f"{name}.lora_A.weight"].double()
                delta = part[f"{name}.lora_B.weight"].double() @ a_RI
                module.weight.data += delta.T if fan else delta
    with torch.no_grad():
        expected = model.eval()(TOKENS).logits
    folder = write(tmp_path / "joined", joined, fan)
    got = peft_logits(tiny_model(family, torch.float64), folder)
    assert_close(got, expected, rtol=0, atol=1e-9)
    plain = tiny_model(family, torch.float64).eval()(TOKENS).logits
    assert (got - plain).abs().max() > 1e-2


def test_adapters_of_different_bases_do_not_add_up() -> None:
    first = {"m.lora_A.weight": torch.ones(2, 8), "m.lora_B.weight": torch.ones(4, 2)}
    second = {"m.lora_A.weight": torch.ones(2, 6), "m.lora_B.weight": torch.ones(4, 2)}
    with pytest.raises(ValueError, match=r"adapters of one base, got m.lora_A.weight of \[8, 6\]"):
        peft_format.concatenate(first, second)


def test_scaling_of_others_adapters_is_folded_in(tmp_path: Path) -> None:
    tensors = lora("llama", (1,), 4, 1)
    folder = write(tmp_path / "scaled", tensors)
    change(folder, lora_alpha=8)
    double = peft_logits(tiny_model("llama", torch.float64), folder)
    read, _ = peft_format.read_adapter(folder)
    plain = write(tmp_path / "plain", read)
    assert_close(peft_logits(tiny_model("llama", torch.float64), plain), double, rtol=0, atol=1e-9)
    change(folder, use_rslora=True)
    rooted, _ = peft_format.read_adapter(folder)
    name = next(n for n in tensors if ".lora_B." in n)
    assert_close(rooted[name], tensors[name] * 4)  # alpha 8 over the square root of 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"rank_pattern": {"mlp": 4}}, "rank_pattern"),
        ({"bias": "all"}, "bias"),
        ({"peft_type": "PROMPT_TUNING"}, "peft_type LORA"),
        ({"r": None}, "a number r"),
        ({"r": 5}, "tensors of rank 5, got 3"),
    ],
)
def test_what_is_not_a_plain_lora_is_refused(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    folder = write(tmp_path / "a", lora("llama", (1,), 3, 1))
    change(folder, **changed)
    with pytest.raises(ValueError, match=message):
        peft_format.read_adapter(folder)


@pytest.mark.parametrize("content", [b"", b"x" * 20, b"\xff" * 8 + b"{}", b"{" * 100])
def test_bytes_that_are_no_safetensors_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="expected safetensors"):
        peft_format.decode_adapter(content)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"base_model.model.m.lora_A.weight": torch.ones(2, 3)}, "lora_A and lora_B of m"),
        ({"m.lora_A.weight": torch.ones(2, 3)}, "expected base_model.model."),
        ({"base_model.model.m.weight": torch.ones(2, 3)}, "expected base_model.model."),
        ({"base_model.model.../m.lora_A.weight": torch.ones(2, 3)}, "expected base_model.model."),
    ],
)
def test_strange_names_and_halves_are_refused(tensors: dict[str, Tensor], message: str) -> None:
    content = peft_format.encode_tensors(tensors)
    with pytest.raises(ValueError, match=message):
        peft_format.decode_adapter(content)


def test_values_that_are_not_finite_are_not_written() -> None:
    with pytest.raises(ValueError, match="finite"):
        peft_format.encode_tensors({"a": torch.tensor([1.0, float("nan")])})
    with pytest.raises(ValueError, match="finite"):
        peft_format.encode_tensors({"a": torch.tensor([1])})


def test_ranks_must_be_equal() -> None:
    tensors = {**lora("llama", (0,), 3, 1), **lora("llama", (1,), 4, 1)}
    with pytest.raises(ValueError, match=r"one rank over all modules .* \[3, 4\]"):
        peft_format.encode(tensors, "b", False)
    with pytest.raises(ValueError, match="one rank"):
        peft_format.rank_of({})
