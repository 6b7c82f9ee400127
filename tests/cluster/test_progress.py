from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from cluster.progress import Progress
from search.census import Stand

USER = "0123456789abcdef"


def progress(terminal: bool) -> tuple[Progress, io.StringIO]:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=120)
    return Progress(console, trials=4), output


def told(loss: float, **others: Any) -> dict[str, Any]:
    return {"digest": USER, "is_anchor": False, "loss_nats": loss, "rouge_l": 0.25, **others}


def test_piped_it_writes_a_line_for_each_end() -> None:
    shown, output = progress(terminal=False)
    shown.know(USER, [], is_published=False)
    with shown.shown():
        shown.told(told(3.5, is_anchor=True))
        shown.told(told(3.25))
        shown.told({"digest": USER, "is_anchor": False, "error": "training diverged"})
        shown.winner(USER, {"stage": "tuning", "epoch": 1, "done": False})
        shown.told({"digest": USER, "is_anchor": False, "stopped": "dominated at tuning 2"})
        shown.repeated(USER, {"loss_nats": 3.3, "rouge_l": 0.5, "done": True})
        shown.repeated(USER, {"error": "out of memory", "done": True})
        end = {"kind": "milp", "loss_nats": 3.125, "counts": {"tokens_cut": 7}, "done": True}
        shown.winner(USER, end)
    shown.say_lost()
    lines = [line.split(" ", 1)[1] for line in output.getvalue().splitlines()]
    assert lines == [
        f"{USER} 0/4 base loss 3.5000 ROUGE-L 25.0",
        f"{USER} 1/4 trial loss 3.2500 ROUGE-L 25.0",
        f"{USER} 2/4 trial failed: training diverged",
        f"{USER} 3/4 trial stopped: dominated at tuning 2",
        f"{USER} 3/4 repeat loss 3.3000 ROUGE-L 50.0",
        f"{USER} 3/4 repeat failed: out of memory",
        f"{USER} 3/4 published: milp, loss 3.1250",
        "7 tokens were cut from texts longer than the base's context",
    ]


@pytest.mark.parametrize("by_digest", [False, True])
def test_where_output_is_logged_nobody_is_named(by_digest: bool) -> None:
    shown = Progress(Console(), 4, by_digest)
    assert shown.name("ann/../etc", USER) == (USER if by_digest else "'ann/../etc'")


def test_on_a_terminal_it_keeps_a_table() -> None:
    shown, output = progress(terminal=True)
    shown.know(USER, [], is_published=False)
    with shown.shown():
        shown.told(told(3.25))
        shown.told(told(3.5, rouge_l=0.5))
    text = output.getvalue()
    assert "3.2500" in text  # the best loss
    assert "50.0" in text  # the best ROUGE-L
    assert "2/4" in text


def test_of_many_users_those_at_work_are_shown_first() -> None:
    shown, _ = progress(terminal=True)
    digests = [f"{i:016x}" for i in range(100)]
    for digest in digests:
        shown.know(digest, [], is_published=digest in digests[:50])

    def rows() -> list[Any]:
        return list(shown._table().columns[0].cells)

    shown.told({**told(3.25), "digest": digests[98]})
    shown.told({**told(3.25), "digest": digests[99]})
    assert rows() == [*digests[98:], *digests[50:78]]
    end = {"kind": "milp", "loss_nats": 3.0, "counts": {}, "done": True}
    shown.winner(digests[98], end)
    assert rows() == [digests[99], *digests[50:79]]
    assert "2 of 400 trials" in str(shown._table().title)


def test_going_on_it_counts_what_is_known() -> None:
    shown, _ = progress(terminal=False)
    trials = [
        Stand(0, "completed", (3.5, 0.1)),
        Stand(1, "completed", (3.25, 0.2)),
        Stand(2, "failed", None),
        Stand(3, "stopped", None),
        Stand(4, "pending", None),
    ]
    shown.know(USER, trials, is_published=False)
    user = shown.users[USER]
    assert (user.told, user.failed, user.stopped) == (3, 1, 1)
    assert (user.base_loss, user.best_loss, user.best_rouge_l) == (3.5, 3.25, 0.2)
