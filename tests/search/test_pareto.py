"""Fronts, hypervolumes, reference points and winners, by hand."""

import numpy as np
import pytest
import torch
from botorch.utils.multi_objective.hypervolume import Hypervolume

from search.pareto import (
    LOSS,
    PARAMETERS,
    ROUGE_L,
    Candidate,
    Objective,
    front,
    hypervolume,
    hypervolume_trace,
    oriented,
    reference_point,
    winner,
)

BOTH = (LOSS, ROUGE_L)
UP = (Objective("a", True, ""), Objective("b", True, ""))


def test_bigger_is_better_after_orientation() -> None:
    assert oriented(BOTH, [(3.0, 0.2)]).tolist() == [[-3.0, 0.2]]
    with pytest.raises(ValueError, match="a value for each of loss, rouge_l"):
        oriented(BOTH, [(3.0,)])


def test_the_front_keeps_what_nothing_dominates() -> None:
    rows = [(3.0, 0.2), (2.0, 0.1), (3.0, 0.1), (2.5, 0.2), (2.5, 0.2)]
    assert front(BOTH, rows) == [1, 3, 4]
    assert front(BOTH, []) == []


def test_the_hypervolume_of_three_points() -> None:
    # Steps of a stair over the corner (0, 0): 1 x 3, then 1 x 2, then 1 x 1.
    assert hypervolume(UP, [(1, 3), (2, 2), (3, 1)], (0, 0)) == 6
    # The same stair with the first objective to be made small, from the corner (4, 0).
    assert hypervolume(BOTH, [(3, 3), (2, 2), (1, 1)], (4, 0)) == 6
    # What is dominated, or no better than the corner, adds nothing.
    assert hypervolume(UP, [(1, 3), (2, 2), (3, 1), (1, 1), (9, 0), (-1, 9)], (0, 0)) == 6
    assert hypervolume(UP, [], (0, 0)) == 0


def test_the_hypervolume_of_three_objectives_by_hand() -> None:
    three = (*UP, Objective("c", True, ""))
    # Two boxes of 2 x 1 x 1 and 1 x 2 x 1 on a common 1 x 1 x 1.
    assert hypervolume(three, [(2, 1, 1), (1, 2, 1)], (0, 0, 0)) == 3


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_hypervolume_equals_botorchs(count: int) -> None:
    objectives = [Objective(str(j), True, "") for j in range(count)]
    rows = np.random.default_rng(count).normal(size=(40, count))
    corner = np.full(count, -0.5)
    reference = Hypervolume(torch.as_tensor(corner)).compute(
        torch.as_tensor(rows[front(objectives, rows.tolist())])
    )
    found = hypervolume(objectives, rows.tolist(), corner.tolist())
    assert found == pytest.approx(reference, rel=1e-9)
    assert hypervolume_trace(objectives, rows.tolist(), corner.tolist())[-1] == found


def test_the_trace_never_falls() -> None:
    assert hypervolume_trace(UP, [(1, 1), (1, 1), (0.5, 2), (3, 3)], (0, 0)) == [1, 1, 1.5, 9]


def test_the_reference_point_lies_a_tenth_beyond_the_worst() -> None:
    rows = [(3.0, 0.20), (2.0, 0.10)]
    assert reference_point(BOTH, rows) == pytest.approx((3.1, 0.09))
    # Never worse than the base: here in loss; its ROUGE-L of 0.05 is worse than the corner's.
    assert reference_point(BOTH, rows, base=(3.05, 0.05)) == pytest.approx((3.05, 0.09))
    assert reference_point(BOTH, rows, base=(1.0, 0.5)) == (1.0, 0.5)
    with pytest.raises(ValueError, match="at least one completed trial"):
        reference_point(BOTH, [])


# The base's loss is 4 and the best 3, so a winner's is at most 3.1.
BEST = Candidate(3.0, 0.20, rouge_l_error=0.01, parameters=100)


@pytest.mark.parametrize(
    ("others", "items", "place"),
    [
        ([], 20, 0),
        ([Candidate(3.1, 0.30)], 20, 1),  # within a tenth of the gain, higher ROUGE-L
        ([Candidate(3.11, 0.30)], 20, 0),  # beyond it
        ([Candidate(3.1, 0.30)], 7, 0),  # too few items to trust ROUGE-L
        ([Candidate(3.1, 0.30)], 8, 1),
        ([Candidate(3.05, 0.195, 0, 50)], 20, 1),  # within the error: fewer parameters
        ([Candidate(3.05, 0.195, 0, 200)], 20, 0),  # within it: more parameters
        ([Candidate(3.05, 0.185, 0, 50)], 20, 0),  # beyond the error
        # The error is that of the highest: 0.23 - 0.04 reaches the best, which is the smallest.
        ([Candidate(3.05, 0.23, 0.04, 200), Candidate(3.09, 0.21, 0.0, 150)], 20, 0),
        ([Candidate(3.0, 0.20, 0.01, 50)], 7, 1),  # equal loss: fewer parameters
    ],
)
def test_the_winner(others: list[Candidate], items: int, place: int) -> None:
    assert winner([BEST, *others], base_loss=4.0, item_count=items) == place


def test_the_base_wins_where_nothing_beats_it() -> None:
    assert winner([BEST], base_loss=3.0, item_count=20) is None
    assert winner([BEST], base_loss=2.9, item_count=3) is None
    assert winner([], base_loss=2.9, item_count=20) is None


def test_parameters_may_be_an_objective() -> None:
    three = (LOSS, ROUGE_L, PARAMETERS)
    assert front(three, [(3.0, 0.2, 100), (3.0, 0.2, 50), (2.9, 0.2, 200)]) == [1, 2]
