"""Norms and rotations with a backward of their own: the numbers and gradients of transformers'."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from models import pointwise
from models.base import Base
from models.pointwise import FrozenNorm, rotated, take_pointwise
from tests.tiny import ALL_FAMILIES, tiny_base, tiny_model

ROTATING = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gpt_neox")
NORMED = ("llama", "mistral", "qwen2", "qwen3")


def untouched(model: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model's modelling file, read once more: in the first one a function may be replaced."""
    name = f"{type(model).__module__}_again"
    spec = spec_from_file_location(name, sys.modules[type(model).__module__].__file__)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def gradients(found: Any, *given: Tensor) -> tuple[Tensor, ...]:
    found = found if isinstance(found, tuple) else (found,)
    generator = torch.Generator().manual_seed(3)
    into = [torch.randn(one.shape, generator=generator).to(one.dtype) for one in found]
    return torch.autograd.grad(found, given, into)


@pytest.mark.parametrize(
    ("dtype", "apart"), [(torch.float32, 2e-6), (torch.bfloat16, 3e-2), (torch.float16, 4e-3)]
)
@pytest.mark.parametrize("size", [0.01, 1.0, 100.0])
def test_a_norm_is_that_of_transformers(dtype: torch.dtype, apart: float, size: float) -> None:
    torch.manual_seed(0)
    theirs = LlamaRMSNorm(24, 1e-5).to(dtype).requires_grad_(False)
    theirs.weight.copy_(torch.rand(24) + 0.5)
    x = (size * torch.randn(2, 5, 24)).to(dtype).requires_grad_()
    own = FrozenNorm(theirs)
    expected, found = theirs(x), own(x)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=apart, atol=apart)
    (want,), (got,) = gradients(expected, x), gradients(found, x)
    torch.testing.assert_close(got, want, rtol=apart, atol=apart * float(want.abs().max()))


@pytest.mark.parametrize(
    ("family", "features"), [*((family, 16) for family in ROTATING), ("gpt_neox", 6)]
)
def test_a_rotation_is_that_of_transformers(
    family: str, features: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Angles are drawn for each feature alone, as no model has them."""
    theirs = untouched(tiny_model(family), monkeypatch).apply_rotary_pos_emb
    generator = torch.Generator().manual_seed(1)
    shapes = ((2, 3, 7, 16), (2, 1, 7, 16), (2, 7, features), (2, 7, features))
    q, k, cos, sin = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes
    )
    q, k = q.requires_grad_(), k.requires_grad_()
    expected, found = theirs(q, k, cos, sin), rotated(q, k, cos, sin)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(found, q, k), gradients(expected, q, k))


def has_norms(base: Base) -> bool:
    return any(isinstance(module, FrozenNorm) for module in base.model.modules())


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_bases_on_a_cpu_have_them_where_transformers_has_their_like(family: str) -> None:
    base = tiny_base(family)
    modelling = sys.modules[type(base.model).__module__]
    assert (getattr(modelling, "apply_rotary_pos_emb", None) is rotated) == (family in ROTATING)
    assert has_norms(base) == (family in NORMED)
    assert not has_norms(tiny_base(family, torch.float64))


def test_a_rotation_of_another_kind_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_neighbours(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """Features 2i and 2i + 1 are a pair, as in GLM."""

        def turned(x: Tensor) -> Tensor:
            crossed = torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
            return x * cos.unsqueeze(1) + crossed * sin.unsqueeze(1)

        return turned(q), turned(k)

    model = tiny_model()
    modelling = sys.modules[type(model).__module__]
    monkeypatch.setattr(modelling, "apply_rotary_pos_emb", of_neighbours)
    take_pointwise(model)
    assert modelling.apply_rotary_pos_emb is of_neighbours


def test_a_backward_keeps_no_copy_of_what_it_can_make_again() -> None:
    """Of a norm its input and a number a token, of a rotation nothing but the angles."""
    kept: list[tuple[int, ...]] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    norm = FrozenNorm(LlamaRMSNorm(16).requires_grad_(False))
    x = torch.randn(1, 3, 16, requires_grad=True)
    heads = torch.randn(1, 2, 3, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        norm(x)
        assert sorted(kept) == [(1, 3, 1), (1, 3, 16), (16,)]
        kept.clear()
        pointwise.rotated(heads, heads, torch.ones(1, 3, 8), torch.ones(1, 3, 8))
        assert set(kept) == {(1, 1, 3, 8)}
