"""Squeezed outcomes: the front as it was, the order kept, the reference point along with them."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.cohorts import Extent
from benchmarks.searches import searched
from benchmarks.squeezing import Squeeze, Squeezed, Squeezing, cohort, fit

COHORT = cohort(8, Extent(1, 1, 16))
(PROBLEM,) = COHORT.problems
SPACE = PROBLEM.space
GENERATOR = np.random.default_rng(0)
SEEN = list(dict.fromkeys(SPACE.sample(GENERATOR) for _ in range(40)))
X = SPACE.features(SEEN, derived=True)
Y = PROBLEM.true(SEEN) * (-1, 1)


def test_by_hand() -> None:
    """Quartiles 2 and 6, so a width of 1.2; the front is the first row, so the level is 2."""
    column = np.array([8.0, 6.0, 4.0, 2.0, -8.0])
    squeezed = Squeeze.of(np.column_stack([column, column]))(np.array([[4.0, 0.8], [2.0, -8.0]]))
    assert squeezed[0].tolist() == pytest.approx([4.0, 2 - 1.2 * np.log(2)])
    assert squeezed[1].tolist() == pytest.approx([2.0, 2 - 1.2 * np.log(1 + 10 / 1.2)])


def test_the_front_stays_and_the_order_too() -> None:
    squeezed = Squeeze.of(Y)(Y)
    front = [i for i, y in enumerate(Y) if not ((y <= Y).all(1) & (y < Y).any(1)).any()]
    assert squeezed[front].tolist() == Y[front].tolist()
    assert (squeezed >= Y).all()
    assert (squeezed > Y).any(0).all()
    for j in range(2):
        assert (np.diff(squeezed[np.argsort(Y[:, j]), j]) >= 0).all()


def test_an_objective_without_spread_stays() -> None:
    flat = np.column_stack([np.ones(8), np.arange(8.0)])
    flat[0, 0] = 0.0
    assert Squeeze.of(flat)(flat)[:, 0].tolist() == flat[:, 0].tolist()


def test_the_reference_point_is_squeezed_too() -> None:
    found = fit(0, "gp", X, Y, 0, layers=8)
    assert isinstance(found, Squeezed)
    corner = Y.min(0) - 1.0
    expected = (Squeeze.of(Y)(corner) - found.mean) / found.scale
    assert found.standardised(corner).tolist() == pytest.approx(expected.tolist())


def test_with_too_few_trials_it_is_the_default() -> None:
    assert not isinstance(fit(len(X) + 1, "gp", X, Y, 0, layers=8), Squeezed)


@pytest.mark.parametrize(("first", "alike"), [(0, 8), (12, 12), (17, 16)])
def test_until_it_squeezes_it_searches_as_the_default_does(
    tmp_path: Path, first: int, alike: int
) -> None:
    """Eight trials of the design, then rounds of four, each with what was told before it."""
    default = COHORT.contenders[0]
    usual = searched(PROBLEM, default, 0, tmp_path).configs
    squeezing = Squeezing(f"from-{first}", default.settings, 16, first=first)
    found = searched(PROBLEM, squeezing, 0, tmp_path).configs
    assert found[:alike] == usual[:alike]
    assert (found == usual) == (alike == 16)
