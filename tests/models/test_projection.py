"""The network behind soft tokens: by hand, its scale, its names, its gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from models.projection import Projection, checked, embedding_norm
from models.soft import embedded
from tests.tiny import ALL_FAMILIES, tiny_base


def a_projection(features_in: int = 5, seed: int = 1, dtype: torch.dtype = torch.float32):  # type: ignore[no-untyped-def]
    base = tiny_base(dtype=dtype)
    return base, Projection.initialise(base, features_in, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_what_comes_out_is_as_long_as_the_bases_own_embeddings(family: str) -> None:
    base = tiny_base(family)
    table = base.model.get_input_embeddings()(torch.arange(384))
    assert_close(embedding_norm(base), float(table.norm(dim=1).mean()), rtol=1e-6, atol=0)
    projection = Projection.initialise(base, 5, torch.Generator().manual_seed(1))
    soft = projection(torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(2)) * 9)
    assert soft.shape == (3, 2, base.width)
    assert_close(soft.norm(dim=2), torch.full((3, 2), embedding_norm(base)), rtol=1e-4, atol=0)


def test_it_is_two_layers_a_norm_and_a_gain() -> None:
    _, projection = a_projection(2, dtype=torch.float64)
    weights = {name: tensor.detach() for name, tensor in projection.weights.items()}
    x = torch.tensor([0.7, -1.3], dtype=torch.float64)
    weights["gain"].fill_(1.5)
    weights["input.bias"].fill_(0.1)
    weights["output.bias"].fill_(-0.2)
    before = [float(w[0]) * 0.7 - float(w[1]) * 1.3 + 0.1 for w in weights["input.weight"].unbind()]
    gelu = torch.tensor(
        [a * 0.5 * (1 + math.erf(a / math.sqrt(2))) for a in before], dtype=torch.float64
    )
    made = weights["output.weight"] @ gelu - 0.2
    expected = made / made.norm() * projection.norm * 1.5
    assert_close(projection(x), expected, rtol=0, atol=1e-12)


def test_a_mean_may_be_taken_before_the_second_layer() -> None:
    _, projection = a_projection(dtype=torch.float64)
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    share = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    weights = projection.weights
    each = projection.inner(x) @ weights["output.weight"].T + weights["output.bias"]
    mean = share @ each
    expected = mean / mean.norm() * projection.norm
    assert_close(projection.read_out(share @ projection.inner(x)), expected, rtol=0, atol=1e-12)


def test_the_seed_says_how_it_begins_and_every_weight_takes_a_gradient() -> None:
    _, one = a_projection(seed=1)
    _, same = a_projection(seed=1)
    _, other = a_projection(seed=2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.weights["input.weight"], other.weights["input.weight"])
    assert {tensor.dtype for tensor in one.parameters()} == {torch.float32}
    soft = one(torch.randn(3, 5, generator=torch.Generator().manual_seed(2)))
    soft.pow(3).sum().backward()
    for tensor in one.parameters():
        assert tensor.grad is not None
        assert (tensor.grad != 0).any()


def test_it_comes_back_from_named_tensors_and_nothing_else_does() -> None:
    base, one = a_projection()
    tensors = one.tensors("persona")
    back = Projection.from_tensors(base, {**tensors, "x": torch.ones(1)}, "persona", 5)
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(2))
    assert torch.equal(back(x), one(x))
    assert not any(tensor.requires_grad for tensor in back.parameters())
    expected = r"persona\.input\.weight of shape \(32, 6\), got \(32, 5\)"
    with pytest.raises(ValueError, match=expected):
        Projection.from_tensors(base, tensors, "persona", 6)
    with pytest.raises(ValueError, match=r"other\.input\.weight of shape .* got none"):
        Projection.from_tensors(base, tensors, "other", 5)
    with pytest.raises(ValueError, match=r"expected a tensor a of shape \(2,\), got \(1, 2\)"):
        checked({"a": torch.ones(1, 2)}, {"a": (2,)})


def test_a_bases_embeddings_are_read_without_its_hooks() -> None:
    base = tiny_base()
    base.model.get_input_embeddings().register_forward_hook(lambda *_: 1 / 0)
    assert embedded(base, [3, 4]).shape == (2, base.width)
