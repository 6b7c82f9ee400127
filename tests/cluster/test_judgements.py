"""What a judge has said is kept: nobody is asked the same again, and no text is kept with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.judge import Duel, Endpoint, Judgement, judge
from cluster.judgements import FOLDER, Judgements
from tests.cluster.judges import Reply, Said, refusal, serving

KEY = bytes(32)
DUELS = [
    Duel(user, f"question {n} of a person", "bread and soup", f"soup {n}", f"carrots {n}")
    for user in ("0123456789abcdef", "fedcba9876543210")
    for n in range(4)
]
REPLIES = 2 * len(DUELS)


def honest(said: Said) -> Reply:
    return "A" if "soup" in said["A"] else "B"


def breaking_after(count: int) -> Callable[[Said], Reply]:
    """Honest so many times, and then out of order."""
    left = [count]

    def rule(said: Said) -> Reply:
        left[0] -= 1
        return honest(said) if left[0] >= 0 else refusal(500, "broken")

    return rule


def asked(
    run: Path, rule: Callable[[Said], Reply], duels: list[Duel] = DUELS, **settings: object
) -> tuple[list[Judgement], int, int]:
    """Judgements of an endpoint, how often it was asked, and how many replies were there."""
    kept = Judgements(run, KEY)
    given = {"model": "rule", "retries": 0, "at_once": 1, **settings}
    with serving(rule) as served:
        found = judge(Endpoint(served.url, **given), duels, kept=kept)  # type: ignore[arg-type]
    return found, len(served.asked), kept.found


def lines_of(run: Path) -> list[str]:
    return [line for f in (run / FOLDER).iterdir() for line in f.read_text().splitlines()]


def test_the_same_again_asks_nobody(tmp_path: Path) -> None:
    first, times, there = asked(tmp_path, honest)
    assert (times, there) == (REPLIES, 0)
    assert asked(tmp_path, lambda said: "tie") == (first, 0, REPLIES)


@pytest.mark.parametrize("after", [1, 5, REPLIES - 1])
def test_one_that_broke_off_asks_for_what_is_missing(tmp_path: Path, after: int) -> None:
    with pytest.raises(ConnectionError, match="still fails"):
        asked(tmp_path, breaking_after(after))
    assert len(lines_of(tmp_path)) == after
    found, times, there = asked(tmp_path, honest)
    assert (times, there) == (REPLIES - after, after)
    (tmp_path / "other").mkdir()
    assert found == asked(tmp_path / "other", honest)[0]


def test_many_at_once_are_kept_too(tmp_path: Path) -> None:
    first, times, _ = asked(tmp_path, honest, at_once=8)
    assert times == REPLIES == len(lines_of(tmp_path))
    assert asked(tmp_path, honest, at_once=8) == (first, 0, REPLIES)


def test_another_question_of_any_kind_is_asked(tmp_path: Path) -> None:
    (one, *_) = DUELS
    asked(tmp_path, honest, [one])
    others = [
        Duel(one.user, "another question", one.truth, one.first, one.second),
        Duel(one.user, one.query, "another truth", one.first, one.second),
        Duel(one.user, one.query, one.truth, "another answer", one.second),
        Duel(one.user, one.query, one.truth, one.first, "another answer"),
        Duel("aaaabbbbccccdddd", one.query, one.truth, one.first, one.second),
    ]
    for other in others:
        assert asked(tmp_path, honest, [other])[1:] == (2, 0)
    assert asked(tmp_path, honest, [one], model="another")[1:] == (2, 0)
    assert asked(tmp_path, honest, [one], temperature=None)[1:] == (2, 0)
    # The same two answers the other way round are the same two requests.
    turned = Duel(one.user, one.query, one.truth, one.second, one.first)
    (found,), *counts = asked(tmp_path, honest, [turned])
    assert found.winner == "second"
    assert counts == [0, 2]


def test_a_reply_that_is_no_verdict_is_asked_for_again(tmp_path: Path) -> None:
    (found,), *_ = asked(
        tmp_path, lambda said: "I think A" if "soup" in said["A"] else "B", DUELS[:1]
    )
    assert found.unreadable == 1
    (found,), *counts = asked(tmp_path, honest, DUELS[:1])
    assert found == Judgement("first", 2, 0, False)
    assert counts == [1, 1]


def test_a_line_that_a_kill_cut_off_is_no_reply_and_harms_none(tmp_path: Path) -> None:
    first, *_ = asked(tmp_path, lambda said: "tie", DUELS[:1])
    (file,) = (tmp_path / FOLDER).iterdir()
    whole = file.read_text()
    file.write_text(whole[:-2])  # "tie" without its end
    assert asked(tmp_path, lambda said: "tie", DUELS[:1]) == (first, 1, 1)
    assert asked(tmp_path, lambda said: "tie", DUELS[:1]) == (first, 0, 2)


def test_digests_and_verdicts_alone_are_kept_for_the_owner_alone(tmp_path: Path) -> None:
    asked(tmp_path, honest)
    folder = tmp_path / FOLDER
    assert {file.name for file in folder.iterdir()} == {duel.user for duel in DUELS}
    for place in (folder, *folder.iterdir()):
        assert place.stat().st_mode & 0o077 == 0
    for line in lines_of(tmp_path):
        digest, verdict = line.split(" ")
        assert len(digest) == 64
        assert not set(digest) - set("0123456789abcdef")
        assert verdict in ("A", "B", "tie")
    other = Judgements(tmp_path / "other", b"1" * 32)
    (tmp_path / "other").mkdir()
    other.keep(DUELS[0].user, {"model": "rule"}, "A")
    mine = Judgements(tmp_path, KEY)
    mine.keep(DUELS[0].user, {"model": "rule"}, "A")
    assert not set(lines_of(tmp_path)) & set(lines_of(tmp_path / "other"))  # keyed by the folder
