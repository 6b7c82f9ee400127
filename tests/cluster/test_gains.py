"""Personal gain by hand: own memory, strangers' memories, and the base."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from cluster.gains import (
    MOST_ROWS,
    PersonalGain,
    mean_gain,
    own_and_others,
    personal_gains,
    table,
)
from cluster.results import Gain
from tests.cluster.made_results import gain_of, results

LOSS = ((2.0, 3.0, 3.5), (2.5, 2.5, None), (2.7, 3.2, 3.0))
BASE = {"a": 2.4, "b": 3.0, "c": 3.1}


def test_each_users_gain_by_hand() -> None:
    first, second, third = personal_gains(gain_of("abc", LOSS), BASE)
    assert (first.own, first.strangers) == pytest.approx((-0.4, 0.2))
    assert (second.own, second.strangers) == pytest.approx((-0.5, 0.1))
    assert (third.own, third.strangers) == pytest.approx((-0.1, 0.4))  # one stranger was tried
    assert [row.personal for row in (first, second, third)] == pytest.approx([-0.6, -0.6, -0.5])


def test_means_leave_out_whom_no_stranger_was_tried_on() -> None:
    mean = mean_gain([PersonalGain("a", -0.4, None), PersonalGain("b", -0.2, -0.3)])
    assert mean is not None
    assert (mean.own, mean.strangers, mean.personal) == pytest.approx((-0.3, -0.3, 0.1))
    assert (mean.better, mean.compared) == (0, 1)
    assert mean_gain([]) is None


def test_own_and_others_are_means_over_the_same_users() -> None:
    assert own_and_others(gain_of("abc", LOSS).loss) == pytest.approx((2.5, (2.6 + 3.1 + 3.5) / 3))
    assert own_and_others({"a": {"a": 1.0}}) == (None, None)


@pytest.mark.parametrize("by_digest", [False, True])
def test_the_table_names_users_and_shows_the_mean(by_digest: bool) -> None:
    console = Console(file=io.StringIO(), width=120)
    shown = table(results(), by_digest)
    assert shown is not None
    console.print(shown)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert ("ann" in printed) is not by_digest
    assert (results().users[0].digest in printed) is by_digest
    assert "-0.500" in printed
    assert "better than strangers' for" in printed


def test_of_many_users_the_table_shows_some_and_the_mean_of_all() -> None:
    made = results()
    digests = [f"{i:016x}" for i in range(MOST_ROWS + 5)]
    users = tuple(replace(made.users[0], user_id=f"user {d}", digest=d) for d in digests)
    loss = {d: {d: 2.0, other: 2.5} for d, other in zip(digests, reversed(digests), strict=True)}
    shown = table(replace(made, users=users, gain=Gain(loss)))
    assert shown is not None
    assert shown.row_count == MOST_ROWS + 2
    console = Console(file=io.StringIO(), width=120)
    console.print(shown)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "... and 5 more" in printed
    assert f"of {len(digests) - 1}" in printed  # one is drawn with itself alone


def test_no_table_without_strangers() -> None:
    made = results()
    alone = gain_of([made.users[0].digest], ((2.5,),))
    assert table(replace(made, gain=None)) is None
    assert table(replace(made, users=made.users[:1], gain=alone)) is None
