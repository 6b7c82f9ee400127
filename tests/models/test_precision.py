"""A base in fewer bits carries memories as any other does: PEFT's on the same quantised base."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from models.bank import Bank, Memory
from models.base import Base, check
from models.loss import row_nll
from models.precision import BITS, Precision, packer_bytes
from models.prompt import Row
from models.trainer import Trainer
from models.training import Stage, Training
from search.space import MemoryConfig
from tests.tiny import save_tiny_base, tiny_base

ROWS = tuple(Row(tuple(range(start, start + 12)), 1) for start in range(5, 85, 10))
FAMILIES = ("llama", "gpt2", "opt")
BFLOAT16_NATS = 0.02  # a token; what `models/precision.py` says


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same products on every processor."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A base of a family on disk."""
    folders = {f: save_tiny_base(tmp_path_factory.mktemp(f), f) for f in FAMILIES}
    return folders.__getitem__


def trained(base: Base, steps: int = 8) -> Memory:
    """A memory after so many steps on a base."""
    memory = Memory.initialise(base, MemoryConfig((1, 3), 4, 5e-3), 0)
    trainer = Trainer(base)
    stage = Stage("tuning", ROWS, steps)
    trainer.add(Training("a", memory, (stage,), ROWS, 5e-3, 0, patience_epochs=9))
    while trainer.running:
        _, outcomes = trainer.step()
    assert outcomes[0].error is None
    for parameter in memory.parameters():
        parameter.grad = None
    return memory


def loss_of(base: Base, memory: Memory | None) -> float:
    """Nats per token of all rows."""
    with torch.no_grad(), Bank.of(base).rows([memory] * len(ROWS)):
        nll_B = row_nll(base, ROWS)
    return float(nll_B.sum()) / sum(row.predicted for row in ROWS)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_bfloat16_a_training_ends_near_to_where_it_does_in_float32(family: str) -> None:
    ends = []
    for dtype in (torch.float32, torch.bfloat16):
        base = tiny_base(family, dtype)
        memory = trained(base, steps=40)
        assert {parameter.dtype for parameter in memory.parameters()} == {torch.float32}
        ends.append(loss_of(base, memory))
        assert ends[-1] < loss_of(base, None) - 5 * BFLOAT16_NATS
    assert abs(ends[1] - ends[0]) < BFLOAT16_NATS


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", BITS)
def test_a_quantised_base_keeps_its_shapes_in_fewer_bytes(
    saved: Callable[[str], Path], family: str, dtype: str
) -> None:
    base, plain = Base.load(saved(family), "cpu", dtype), tiny_base(family)
    assert base.dtype == torch.float32
    for layer in range(4):
        assert base.matrix_shapes(layer) == plain.matrix_shapes(layer)
        for name, module in base.feed_forward[layer].items():
            weight = module.weight
            features = plain.matrix_shapes(layer)[name]
            assert weight.nbytes * 8 == features[0] * features[1] * BITS[dtype]
    assert base.fingerprint == Base.load(saved(family), "cpu").fingerprint


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", BITS)
def test_a_memory_on_a_quantised_base_is_pefts(
    saved: Callable[[str], Path], family: str, dtype: str
) -> None:
    base, tokens = Base.load(saved(family), "cpu", dtype), torch.tensor([ROWS[0].tokens])
    memory = trained(base)
    with torch.no_grad():
        alone = base.hidden(tokens)
    with Bank.of(base).rows([memory]):
        got = base.hidden(tokens)
    got.square().sum().backward()
    wrapped = peft.get_peft_model(
        Base.load(saved(family), "cpu", dtype).model,
        peft.LoraConfig(r=4, lora_alpha=4, target_modules=list(memory.pairs)),
    ).eval()
    state = {f"base_model.model.{name}": tensor for name, tensor in memory.tensors().items()}
    assert not peft.set_peft_model_state_dict(wrapped, state).unexpected_keys
    expected = wrapped.base_model.model.base_model(tokens)[0]
    expected.square().sum().backward()
    assert_close(got, expected, rtol=0, atol=1e-4)
    assert (got - alone).abs().max() > 0.05
    gradients = [p.grad for n, p in wrapped.named_parameters() if "lora_" in n]
    for ours, theirs in zip(memory.parameters(), gradients, strict=True):
        assert_close(ours.grad, theirs, rtol=1e-3, atol=1e-3)


def test_refuses_what_is_not_installed_before_anything_is_loaded(
    saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for refused in (check, lambda source, dtype: Base.load(source, "cpu", dtype)):
        with pytest.raises(ValueError, match=r"bitsandbytes.*milpa\[quantized\]"):
            refused(saved("llama"), "4bit")
    check(saved("llama"), "float32")


@pytest.mark.parametrize("dtype", ["float99", "int8", "nn"])
def test_refuses_what_is_no_dtype_of_a_base(saved: Callable[[str], Path], dtype: str) -> None:
    with pytest.raises(ValueError, match=rf"4bit.*{dtype}"):
        check(saved("llama"), dtype)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_takes_as_much_however_it_is_stored_and_in_however_many_files(
    tmp_path: Path, family: str, stored: torch.dtype
) -> None:
    model = tiny_base(family, stored).model
    numbers = sum(parameter.numel() for parameter in model.parameters())
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    for folder in ("whole", "sharded"):
        source = str(tmp_path / folder)
        for dtype in (torch.float32, torch.bfloat16):
            needed = Precision(torch.device("cpu"), dtype).weight_bytes(source)
            assert needed == numbers * dtype.itemsize
        assert packer_bytes(source, "bfloat16") == 2 * numbers + 2**30
    assert packer_bytes("a/name-on-the-hub", "bfloat16") == math.inf


def test_a_damaged_base_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(2000))
    with pytest.raises(ValueError, match=r"damaged file.*copy it again"):
        packer_bytes(str(tmp_path), "float32")


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_refuses_a_base_that_does_not_fit_and_takes_it_in_fewer_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: torch.dtype
) -> None:
    save_file({"weight": torch.zeros(1000, dtype=stored)}, tmp_path / "model.safetensors")
    free = type("Memory", (), {"available": 1300})
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    cpu = torch.device("cpu")
    for bits in (8, 4):
        Precision(cpu, torch.bfloat16, bits).check_room(str(tmp_path))
    for dtype in (torch.bfloat16, torch.float32):
        with pytest.raises(ValueError, match=r"fits cpu.*fewer bits"):
            Precision(cpu, dtype).check_room(str(tmp_path))
