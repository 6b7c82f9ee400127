"""The kernel of sets of layers: alike at first, unlike where the data say so."""

import pytest
import torch

from search import surrogate
from search.kernels import layered, one_scale
from search.space import SearchSpace

SPACE = SearchSpace(8)
COLUMNS = SPACE.features([], derived=True).shape[1]


def likeness(kernel: torch.nn.Module, changed: int) -> float:
    """The covariance of two inputs that differ in one column."""
    rows = torch.full((2, COLUMNS), 0.5, dtype=torch.float64)
    rows[:, :8] = torch.tensor([1.0, 0.0] * 4)
    rows[1, changed] = 1 - rows[1, changed] if changed < 8 else 0.9
    with torch.no_grad():
        return float(kernel(rows).to_dense()[0, 1])


@pytest.mark.parametrize("make", [layered, one_scale])
def test_before_anything_is_learned_every_layer_matters_the_same(make) -> None:  # type: ignore[no-untyped-def]
    kernel = make(COLUMNS, 8)
    found = [likeness(kernel, layer) for layer in range(8)]
    assert found == pytest.approx([found[0]] * 8)
    assert 0 < found[0] < 1
    assert all(0 < likeness(kernel, column) < 1 for column in range(8, COLUMNS))


def test_a_layer_that_matters_alone_is_found_out_and_the_others_stay_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(40, COLUMNS, generator=generator, dtype=torch.float64)
    X[:, :8] = (X[:, :8] > 0.5).double()
    Y = torch.stack([X[:, 3], X[:, :8].sum(1)], dim=1)
    alone, together = surrogate.fit("gp", X.numpy(), Y.numpy(), 0, layers=8).model.models
    found = [likeness(alone.covar_module, layer) for layer in range(8)]
    assert found[3] == min(found)
    assert found[3] < sorted(found)[1] - 0.05
    counted = [likeness(together.covar_module, layer) for layer in range(8)]
    assert max(counted) - min(counted) < 0.05


def test_a_space_of_layers_alone_has_no_other_columns() -> None:
    kernel = layered(8, 8)
    rows = torch.eye(8, dtype=torch.float64)
    with torch.no_grad():
        assert kernel(rows).to_dense().diagonal() == pytest.approx(torch.ones(8))
