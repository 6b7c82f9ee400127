"""Recall by kind: counts are added over users before dividing."""

from __future__ import annotations

import pytest

from cluster.facts import Shares, chance_of_users, pooled, shares
from cluster.results import Measured, Recall


def asked(**counts: Recall) -> Measured:
    return Measured(1.0, 10, recall=counts)


def test_every_question_weighs_the_same() -> None:
    few = (asked(all=Recall(0, 1, 0.1)), asked(all=Recall(1, 1, 0.1)))
    many = (asked(all=Recall(0, 9, 0.9)), asked(all=Recall(0, 9, 0.9)))
    assert shares([few, many]) == {"all": Shares(asked=10, base=0.0, winner=0.1, chance=0.1)}


def test_beside_means_over_users_stands_the_mean_of_their_chances() -> None:
    ann = {"all": Recall(0, 1, 0.5), "asked": Recall(0, 1, 0.5)}
    bob = {"all": Recall(0, 9, 0.9), "asked": Recall(0, 0, 0.0)}
    found = chance_of_users([ann, bob])
    assert found == {"all": pytest.approx((0.5 + 0.1) / 2), "asked": 0.5}


def test_kinds_come_in_reading_order_and_empty_ones_are_left_out() -> None:
    found = pooled(
        [
            {"inferred": Recall(1, 2, 0.1), "odd": Recall(0, 1, 0.1)},
            {"asked": Recall(0, 0, 0.0), "unasked": Recall(1, 1, 0.1), "all": Recall(2, 4, 0.3)},
        ]
    )
    assert list(found) == ["all", "unasked", "inferred", "odd"]


def test_data_without_facts_has_no_shares() -> None:
    assert shares([(asked(), asked())]) == {}
