"""Products go where this processor is fast, and come out the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models import products
from models.products import FrozenLinear, freeze_linears, onednn_pays, product

SOME = range(1, 4000)

has_onednn = pytest.mark.skipif(not torch._C._has_mkldnn, reason="torch was built without oneDNN")


@has_onednn
@pytest.mark.parametrize("is_batch", [False, True])
def test_either_way_gives_the_same_product(is_batch: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 17, 40), (3, 24, 40)] if is_batch else [(17, 40), (24, 40)]
    x, weight = (torch.randn(*shape, generator=generator) for shape in shapes)
    found = []
    for pays in (True, False):
        monkeypatch.setattr(products, "onednn_pays", lambda pays=pays: pays)
        assert products.takes(x) is pays
        found.append(product(x, weight))
    expected = x.double() @ weight.double().mT
    for one in found:
        torch.testing.assert_close(one.double(), expected, rtol=1e-5, atol=1e-5)


@has_onednn
@pytest.mark.parametrize("pays", [True, False])
def test_linear_layers_are_exchanged_only_where_it_pays(
    pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "onednn_pays", lambda: pays)
    model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4)).requires_grad_(False)
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    expected = model(x)
    expected.sum().backward()
    gradient, x.grad = x.grad, None
    freeze_linears(model)
    assert all(isinstance(layer, FrozenLinear) is pays for layer in model)
    found = model(x)
    found.sum().backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(x.grad, gradient)


def test_what_is_multiplied_otherwise_than_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    for pays in (True, False):
        monkeypatch.setattr(products, "onednn_pays", lambda pays=pays: pays)
        assert products.takes(torch.ones(1)) is pays
        assert not products.takes(torch.ones(1, dtype=torch.float64))
        assert products.takes(torch.ones(1, dtype=torch.bfloat16)) is torch._C._has_mkldnn


@has_onednn
def test_bfloat16_products_have_few_shapes_and_waste_little() -> None:
    rooms = {n: products.filled(torch.ones(n, 1, dtype=torch.bfloat16)).shape[0] for n in SOME}
    assert all(0 <= room - n <= max(15, n / 4) for n, room in rooms.items())
    assert len({room for n, room in rooms.items() if n > 16}) < 32
    assert products.filled(torch.ones(17, 1)).shape[0] == 17  # float32 is not compiled


@has_onednn
@pytest.mark.parametrize("positions", [1, 16, 17, 100])
def test_what_positions_are_filled_up_with_reaches_nobody(positions: int) -> None:
    generator = torch.Generator().manual_seed(positions)
    model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4)).bfloat16().requires_grad_(False)
    x = torch.randn(2, positions, 8, generator=generator).bfloat16().requires_grad_()
    expected = model(x)
    expected.sum().backward()
    gradient, x.grad = x.grad, None
    freeze_linears(model)
    assert all(isinstance(layer, FrozenLinear) for layer in model)
    found = model(x)
    found.sum().backward()
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.01)
    torch.testing.assert_close(x.grad, gradient, rtol=0.02, atol=0.01)


def test_it_is_measured_once() -> None:
    onednn_pays.cache_clear()
    answers = {onednn_pays() for _ in range(3)}
    assert len(answers) == 1
    assert onednn_pays.cache_info().misses == 1
