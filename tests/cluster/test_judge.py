"""The judge against a real endpoint that decides by a rule."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading

import pytest

from cluster.judge import KEY_VARIABLE, Duel, Endpoint, Judgement, judge, read
from cluster.win_rate import WinRate, counted, duels_of, win_rate
from tests.cluster.judges import Reply, Said, refusal, serving
from tests.cluster.tiny_run import ROOT
from tests.tiny import tiny_interactions

KEY = "sk-this-is-a-secret"
GOOD, BAD, WORSE = "yes, bread", "no", "nothing"


def duel(user: str, first: str, second: str) -> Duel:
    return Duel(user, f"what do you like, {user}?", "I like bread", first, second)


def honest(said: Said) -> Reply:
    """Prefers the answer with the true word in it."""
    truth = said["true answer"].split()[-1]
    right = [truth in said["A"], truth in said["B"]]
    return "tie" if right[0] == right[1] else "A" if right[0] else "B"


def endpoint(url: str, **settings: object) -> Endpoint:
    return Endpoint(url, "rule", **{"retries": 3, **settings})  # type: ignore[arg-type]


DUELS = [
    duel("ann", GOOD, BAD),
    duel("ann", BAD, GOOD),
    duel("ben", GOOD, BAD),
    duel("ben", BAD, WORSE),
    duel("cleo", GOOD, WORSE),
]


@pytest.mark.parametrize("always", ["A", "B"])
def test_a_judge_that_always_prefers_one_place_gives_ties_everywhere(always: str) -> None:
    with serving(lambda said: always) as served:
        found = win_rate(endpoint(served.url), DUELS, seed=0)
    assert (found.wins, found.ties, found.losses) == (0, len(DUELS), 0)
    assert found.contradictions == len(DUELS)
    assert (found.rate, found.low, found.high) == (0.5, 0.5, 0.5)


def test_an_honest_judge_finds_the_better_answer_in_either_place() -> None:
    with serving(honest) as served:
        found = judge(endpoint(served.url), DUELS)
        assert [each.winner for each in found] == ["first", "second", "first", "tie", "first"]
        assert all(each == Judgement(each.winner, 2, 0, False) for each in found)
        counts = counted(DUELS, found, seed=0)
    # ann 1/2, ben 3/4, cleo 1.
    assert (counts.wins, counts.ties, counts.losses, counts.users) == (3, 1, 1, 3)
    assert counts.rate == pytest.approx(0.75)
    assert counts.low is not None
    assert counts.high is not None
    assert 0.5 <= counts.low < 0.75 < counts.high <= 1
    each_way = [(said["A"], said["B"]) for said in served.asked if "cleo" in said["question"]]
    assert sorted(each_way) == sorted([(GOOD, WORSE), (WORSE, GOOD)])
    assert {request["path"] for request in served.requests} == {"/v1/chat/completions"}
    assert all(request["temperature"] == 0 for request in served.requests)


def test_swapping_the_methods_swaps_wins_and_losses() -> None:
    turned = [Duel(d.user, d.query, d.truth, d.second, d.first) for d in DUELS]
    with serving(honest) as served:
        one, other = (win_rate(endpoint(served.url), duels, 0) for duels in (DUELS, turned))
    assert (one.wins, one.ties, one.losses) == (other.losses, other.ties, other.wins)
    assert one.rate == pytest.approx(1 - other.rate)


def test_broken_replies_are_ties_and_counted() -> None:
    def rule(said: Said) -> Reply:
        broken: dict[str, Reply] = {
            "ann": "I think that A is better",
            "ben": (200, {"choices": []}),
            "cleo": (200, b"no json"),
            "dan": refusal(400, "content_filter", "said too much"),
            "eve": "" if said["A"] == GOOD else "B",  # one of the two is readable
        }
        return broken[said["question"].split()[-1].rstrip("?")]

    duels = [duel(user, GOOD, BAD) for user in ("ann", "ben", "cleo", "dan", "eve")]
    with serving(rule) as served:
        found = judge(endpoint(served.url, retries=0), duels)
    assert [each.winner for each in found] == ["tie"] * 5
    assert [each.unreadable for each in found] == [2, 2, 2, 2, 1]
    assert not any(each.contradicts for each in found)
    counts = counted(duels, found, 0)
    assert (counts.replies, counts.unreadable, counts.ties) == (10, 9, 5)


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [("A", "A"), (" b\n", "B"), ("Tie", "tie"), ("A.", None), ("A or B", None), ("", None)],
)
def test_a_verdict_is_one_word(reply: str, verdict: str | None) -> None:
    assert read(reply) == verdict
    assert read(None) is None


def test_a_server_that_fails_twice_is_asked_again() -> None:
    failures = [refusal(429, "rate_limit_exceeded"), refusal(503, "overloaded")]
    with serving(lambda said: failures.pop() if failures else honest(said)) as served:
        (found,) = judge(endpoint(served.url, at_once=1), DUELS[:1])
    assert found == Judgement("first", 2, 0, False)
    assert len(served.asked) == 4


def test_a_server_that_goes_on_failing_ends_it_with_the_number_of_tries() -> None:
    fails = pytest.raises(ConnectionError, match=r"still fails after 2 tries \(500\)")
    with serving(lambda said: refusal(500, "broken", KEY)) as served, fails as caught:
        judge(endpoint(served.url, retries=1), DUELS)
    assert KEY not in str(caught.value)


def test_no_server_and_a_slow_one_are_told_apart_from_a_verdict() -> None:
    with serving(honest) as served:
        pass
    with pytest.raises(ConnectionError, match="does not answer"):
        judge(endpoint(served.url, retries=0), DUELS)
    late = threading.Event()
    times_out = pytest.raises(ConnectionError, match="APITimeoutError")
    with serving(honest, lambda: late.wait(30)) as served, times_out:
        judge(endpoint(served.url, retries=0, timeout_seconds=0.2), DUELS[:1])
    late.set()


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (401, "invalid_api_key", KEY_VARIABLE),
        (404, "model_not_found", "knows no model 'rule'"),
        (400, "unsupported_value", r"refused the request \(400: unsupported_value\)"),
        (400, f"what? {KEY}", r"refused the request \(400\)"),
    ],
)
def test_refusals_say_what_to_do_and_quote_neither_key_nor_text(
    status: int, code: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    quoting = f"{KEY} may not ask: what do you like, ann?"
    refused = pytest.raises(ValueError, match=says)
    with serving(lambda said: refusal(status, code, quoting)) as served, refused as caught:
        judge(endpoint(served.url), DUELS)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert KEY not in str(caught.value)
    assert "ann" not in str(caught.value)


def test_the_key_comes_from_the_environment_and_goes_to_the_judge_alone(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-somebody-else")
    logging.getLogger("openai").setLevel(logging.DEBUG)
    caplog.set_level(logging.DEBUG)
    with serving(honest) as served:
        where = endpoint(served.url)
        found = win_rate(where, DUELS, 0)
    assert set(served.keys) == {f"Bearer {KEY}"}
    printed = capsys.readouterr()
    shown = [caplog.text, printed.out, printed.err, repr(found), repr(where)]
    for text in shown:
        assert KEY not in text
        assert "what do you like" not in text


def test_no_key_is_needed_where_none_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-somebody-else")
    with serving(honest) as served:
        judge(endpoint(served.url), DUELS[:1])
    assert set(served.keys) == {"Bearer none"}


def test_as_many_are_asked_at_once_as_allowed_and_no_more() -> None:
    told: list[int] = []
    duels = [duel(f"user {i}", GOOD, BAD) for i in range(12)]
    with serving(honest) as served:
        judge(endpoint(served.url, at_once=3), duels, told.append)
    assert served.most_at_once <= 3
    assert told == list(range(1, 13))
    assert len(served.asked) == 24
    both = threading.Barrier(2, timeout=60)  # neither is answered before the other has asked
    with serving(honest, both.wait) as served:
        judge(endpoint(served.url, at_once=2), duels[:2])
    assert served.most_at_once == 2


def test_equal_answers_are_a_tie_that_nobody_is_asked_about() -> None:
    with serving(honest) as served:
        found = judge(endpoint(served.url), [duel("ann", GOOD, f" {GOOD}\n")])
    assert found == [Judgement("tie", 0, 0, False)]
    assert served.asked == []


def test_a_single_user_has_a_rate_without_an_interval() -> None:
    found = counted(DUELS[2:4], [Judgement("first", 2, 0, False), Judgement("tie", 2, 0, True)], 0)
    assert found == WinRate(1, 1, 0, 1, 4, 0, 1, 0.75, None, None)


@pytest.mark.parametrize("url", ["localhost:8000", "file:///etc/passwd", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="--judge: expected http://HOST/v1"):
        Endpoint(url, "rule")


@pytest.mark.parametrize("url", [f"http://me:{KEY}@host/v1", f"https://host/v1?key={KEY}"])
def test_an_address_with_a_key_in_it_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match=KEY_VARIABLE) as caught:
        Endpoint(url, "rule")
    assert KEY not in str(caught.value)


def test_duels_are_of_the_same_items() -> None:
    items = tiny_interactions("ann", 2)
    first, second = duels_of("a digest", items, ["one", "two"], ["three", "four"])
    assert second == Duel("a digest", str(items[1].query), items[1].response, "two", "four")
    assert (first.first, first.second) == ("one", "three")
    with pytest.raises(ValueError, match="shorter"):
        duels_of("a digest", items, ["one", "two"], ["three"])


def test_nothing_to_judge_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one answered item"):
        win_rate(Endpoint("http://localhost/v1", "rule"), [], 0)


def test_without_the_client_it_is_said_how_to_get_it() -> None:
    words = """
import sys
sys.modules["openai"] = None
from cluster.judge import Duel, Endpoint, judge
try:
    judge(Endpoint("http://127.0.0.1:9/v1", "m"), [Duel("u", "q", "t", "a", "b")])
except ValueError as error:
    print(error)
assert "torch" not in sys.modules
"""
    found = subprocess.run(
        [sys.executable, "-c", words], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert "pip install 'milpa[judge]'" in found.stdout
