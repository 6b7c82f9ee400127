"""Everybody's answer in the running batch is the one they would get alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import islice
from queue import SimpleQueue

import pytest
import torch

from models.base import Base
from models.catalog import attach_all
from models.decoding import Sampling, generate
from models.personalizer import UserState
from serve.ask import Ask, BusyError, EngineError, LostError, Piece, StoppedError
from serve.engine import Engine
from tests.devices import Failing
from tests.serve.people import PLACES, state_of, states

WAIT_SECONDS = 60
QUESTIONS = [
    "Where is my dog?",
    "I am a baker",
    "What should I cook tonight with carrots and bread, please?",
    "x",
    "Answer politely: am I allergic?",
]


class Asker:
    """Receives pieces; may hold the engine's thread at one, to have the time to act."""

    def __init__(self, hold_at: int | None = None) -> None:
        self.pieces: list[Piece] = []
        self.error: EngineError | None = None
        self.held, self.go, self.done = threading.Event(), threading.Event(), threading.Event()
        self._hold_at = hold_at

    def __call__(self, piece: Piece | EngineError) -> None:
        if isinstance(piece, EngineError):
            self.error = piece
            self.done.set()
            return
        self.pieces.append(piece)
        if len(self.pieces) == self._hold_at:
            self.held.set()
            assert self.go.wait(WAIT_SECONDS)
        if piece.finish:
            self.done.set()

    @property
    def text(self) -> str:
        assert self.done.wait(WAIT_SECONDS)
        return "".join(piece.text for piece in self.pieces)


def asks(base: Base, **settings: object) -> list[Ask]:
    """Questions of several users, two of one user, one of the base."""
    people = [*states(base).values(), None]
    owners = [people[0], people[1], people[2], people[3], people[0]]
    return [
        Ask(tuple(base.prompt.prompt(question)), owner, 24, **settings)  # type: ignore[arg-type]
        for question, owner in zip(QUESTIONS, owners, strict=True)
    ]


def alone(base: Base, ask: Ask) -> str:
    """The reference: the plain loop of `models/decoding.py`, one row, nobody else."""
    tokens = generate(
        base, [ask.prompt], [ask.state], attach_all(base), ask.max_tokens, ask.sampling
    )
    return base.prompt.decode(tokens[0])


@pytest.fixture(scope="module")
def expected(base: Base) -> list[str]:
    return [alone(base, ask) for ask in asks(base)]


def test_memories_change_the_answers_of_this_base(base: Base) -> None:
    prompt = tuple(base.prompt.prompt("Where is my dog?"))
    answers = [alone(base, Ask(prompt, state, 24)) for state in [*states(base).values(), None]]
    assert len(set(answers)) == len(answers)


def test_a_mixed_batch_answers_as_each_alone_would(
    base: Base, engine: Engine, expected: list[str]
) -> None:
    assert [piece.text for piece in engine.answer(asks(base))] == expected


def test_pieces_join_to_the_whole_answer(base: Base, engine: Engine, expected: list[str]) -> None:
    whole = engine.answer(asks(base, piecewise=False))
    assert [piece.text for piece in whole] == expected
    askers = [Asker() for _ in expected]
    for ask, asker in zip(asks(base), askers, strict=True):
        engine.submit(ask, asker)
    assert [asker.text for asker in askers] == expected
    assert max(len(asker.pieces) for asker in askers) > 5
    assert [asker.pieces[-1].tokens for asker in askers] == [piece.tokens for piece in whole]


def test_who_joins_and_leaves_in_the_middle_changes_nobody(
    base: Base, engine: Engine, expected: list[str]
) -> None:
    first, second, third, fourth, fifth = asks(base)
    one, two, three = Asker(hold_at=5), Asker(hold_at=3), Asker()
    engine.submit(first, one)
    assert one.held.wait(WAIT_SECONDS)
    ticket = engine.submit(second, two)
    one.go.set()
    assert two.held.wait(WAIT_SECONDS)
    ticket.cancel()
    engine.submit(third, three)
    two.go.set()
    assert [one.text, three.text] == [expected[0], expected[2]]
    assert [piece.text for piece in engine.answer([fourth, fifth])] == expected[3:]
    assert len(two.pieces) == 3


@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_seeded_sampling_is_the_same_in_any_company(
    base: Base, engine: Engine, temperature: float
) -> None:
    seeded = [
        Ask(ask.prompt, ask.state, 24, Sampling(temperature, 0.9, seed))
        for seed, ask in enumerate(asks(base))
    ]
    together = [piece.text for piece in engine.answer(seeded)]
    assert together == [alone(base, ask) for ask in seeded]
    assert together != [piece.text for piece in engine.answer(asks(base))]


def test_an_answer_ends_at_its_limit_or_its_stop_text(
    base: Base, engine: Engine, expected: list[str]
) -> None:
    ask = max(zip(expected, asks(base), strict=True), key=lambda pair: len(pair[0]))[1]
    text = alone(base, ask)
    (cut,) = engine.answer([Ask(ask.prompt, ask.state, 3)])
    assert (cut.tokens, cut.finish) == (3, "length")
    assert text.startswith(cut.text.rstrip("\N{REPLACEMENT CHARACTER}"))
    stop = text[len(text) // 2 : len(text) // 2 + 3]
    for piecewise in (True, False):
        stopped = Ask(ask.prompt, ask.state, 24, stops=(stop,), piecewise=piecewise)
        (piece,) = engine.answer([stopped])
        assert (piece.text, piece.finish) == (text[: text.index(stop)], "stop")


def test_bare_words_go_on_over_line_breaks_and_keep_their_spaces(
    base: Base, engine: Engine
) -> None:
    prompt = tuple(base.prompt.text("Where is my"))
    breaks = [token for token in range(2, 380) if base.prompt.ends_answer(token)]
    texts = set()
    for seed in range(40):
        ask = Ask(prompt, None, 40, Sampling(2.0, 1.0, seed), bare=True)
        texts.add(engine.answer([ask])[0].text)
    assert breaks
    assert any("\n" in text for text in texts)
    assert any(text.startswith(" ") for text in texts)


def test_a_cancelled_row_is_free_for_the_next(base: Base, expected: list[str]) -> None:
    engine = Engine(base, attach_all(base), rows=1, waiting=4)
    first, second, *_ = asks(base)
    one, two = Asker(hold_at=2), Asker()
    ticket = engine.submit(first, one)
    assert one.held.wait(WAIT_SECONDS)
    engine.submit(second, two)
    assert engine.load == {"running": 1, "waiting": 1, "cancelled": 0}
    ticket.cancel()
    one.go.set()
    assert two.text == expected[1]
    engine.close()
    assert len(one.pieces) == 2
    assert engine.load == {"running": 0, "waiting": 0, "cancelled": 1}


def test_a_full_line_refuses_until_somebody_leaves_it(base: Base) -> None:
    engine = Engine(base, attach_all(base), rows=1, waiting=2)
    ask = asks(base)[0]
    running = Asker(hold_at=1)
    engine.submit(ask, running)
    assert running.held.wait(WAIT_SECONDS)
    waiting = [engine.submit(ask, Asker()) for _ in range(2)]
    with pytest.raises(BusyError, match="2 asks"):
        engine.submit(ask, Asker())
    waiting[0].cancel()
    last = Asker()
    engine.submit(ask, last)
    running.go.set()
    assert last.text == running.text
    engine.close()


def test_who_takes_every_row_gives_some_to_who_comes_later(base: Base) -> None:
    engine = Engine(base, attach_all(base), rows=4, waiting=8)
    prompt = tuple(base.prompt.text("Where is my"))
    people = [*states(base).values(), None]
    tried = [
        Ask(prompt, people[seed % 4], 60, Sampling(1.0, 1.0, seed), bare=True, asker="many")
        for seed in range(20)
    ]
    answers = ((ask, engine.answer([ask])[0]) for ask in tried)
    long = islice((pair for pair in answers if pair[1].tokens > 20), 6)
    many, expected = zip(*long, strict=True)
    assert len(many) == 6
    few = [replace(ask, max_tokens=2, asker="few") for ask in asks(base)[:3]]
    ended: list[str] = []
    askers = [Asker(hold_at=3), Asker(hold_at=3), *(Asker() for _ in range(7))]

    def submit(ask: Ask, asker: Asker) -> None:
        def hear(piece: Piece | EngineError) -> None:
            asker(piece)
            if asker.done.is_set():
                ended.append(ask.asker)

        engine.submit(ask, hear)

    submit(many[0], askers[0])
    assert askers[0].held.wait(WAIT_SECONDS)
    for ask, asker in zip(many[1:], askers[1:6], strict=True):
        submit(ask, asker)
    askers[0].go.set()
    assert askers[1].held.wait(WAIT_SECONDS)
    assert engine.load == {"running": 4, "waiting": 2, "cancelled": 0}
    for ask, asker in zip(few, askers[6:], strict=True):
        submit(ask, asker)
    askers[1].go.set()
    assert [asker.text for asker in askers[:6]] == [piece.text for piece in expected]
    assert ended[:3] == ["few"] * 3
    engine.close()


def test_who_fills_the_line_gives_places_to_who_comes_later(base: Base) -> None:
    engine = Engine(base, attach_all(base), rows=1, waiting=2)
    ask, asker = asks(base)[0], Asker(hold_at=1)
    engine.submit(ask, asker)
    assert asker.held.wait(WAIT_SECONDS)
    waiting = [Asker(), Asker()]
    for one in waiting:
        engine.submit(ask, one)
    other = Asker()
    engine.submit(replace(ask, asker="other"), other)
    assert isinstance(waiting[1].error, BusyError)
    asker.go.set()
    assert asker.text == waiting[0].text == other.text
    engine.close()


def test_an_ask_that_cannot_join_fails_alone(
    base: Base, engine: Engine, expected: list[str]
) -> None:
    good = state_of(base, "eve", PLACES["ada"], 9)
    bad = UserState("milp", "eve", {}, {n: t[..., :1] for n, t in good.tensors.items()})
    blocker = Asker(hold_at=1)
    engine.submit(asks(base)[0], blocker)
    assert blocker.held.wait(WAIT_SECONDS)
    askers = [Asker() for _ in range(3)]
    for ask, asker in zip(
        [asks(base)[1], Ask(asks(base)[1].prompt, bad, 8), asks(base)[2]], askers, strict=True
    ):
        engine.submit(ask, asker)
    blocker.go.set()
    assert [blocker.text, askers[0].text, askers[2].text] == expected[:3]
    assert askers[1].done.wait(WAIT_SECONDS)
    assert isinstance(askers[1].error, LostError)


def test_a_token_that_the_base_does_not_know_fails_alone(
    base: Base, engine: Engine, expected: list[str]
) -> None:
    asker = Asker()
    engine.submit(Ask((5, 10**6), None, 8), asker)
    assert [piece.text for piece in engine.answer(asks(base))] == expected
    assert isinstance(asker.error, LostError)
    assert engine.alive


class Narrow:
    """The real attachment on a device whose memory is enough for so many rows."""

    def __init__(self, base: Base, rows: int) -> None:
        self._attach, self._rows = attach_all(base), rows

    def __call__(
        self, states: Sequence[UserState | None], prompts: Sequence[Sequence[int]] | None = None
    ) -> AbstractContextManager[None]:
        if len(states) > self._rows:
            raise torch.OutOfMemoryError("out of memory")
        return self._attach(states, prompts)


def test_where_memory_runs_out_the_batch_gets_smaller(base: Base, expected: list[str]) -> None:
    engine = Engine(base, Narrow(base, 2), rows=4, waiting=8)
    lost, answered = 0, 0
    for _ in range(4):
        try:
            assert [piece.text for piece in engine.answer(asks(base))] == expected
            answered += 1
        except LostError:
            lost += 1
    engine.close()
    assert answered >= 2
    assert lost <= 2


@pytest.mark.parametrize("error", [RuntimeError("a device error"), IndexError("out of range")])
def test_a_broken_step_loses_its_own_batch_only(
    base: Base, expected: list[str], error: Exception
) -> None:
    broken = SimpleQueue[Exception]()
    attach = attach_all(base)

    def fragile(
        states: Sequence[UserState | None], prompts: Sequence[Sequence[int]] | None = None
    ) -> AbstractContextManager[None]:
        if not broken.empty():
            raise broken.get()
        return attach(states, prompts)

    engine = Engine(base, fragile, rows=4, waiting=8)
    one = Asker(hold_at=2)
    engine.submit(asks(base)[0], one)
    assert one.held.wait(WAIT_SECONDS)
    broken.put(error)
    one.go.set()
    assert one.done.wait(WAIT_SECONDS)
    assert isinstance(one.error, LostError)
    assert [piece.text for piece in engine.answer(asks(base))] == expected
    engine.close()


@pytest.mark.parametrize("joining", [False, True])
def test_where_the_device_is_lost_the_engine_ends(base: Base, joining: bool) -> None:
    engine = Engine(base, attach_all(base), rows=4, waiting=4)
    running, waiting = Asker(hold_at=2), Asker()

    def losing_the_device(piece: Piece | EngineError) -> None:
        running(piece)
        if len(running.pieces) == 2:
            Failing().__enter__()  # for as long as the engine's thread lives

    engine.submit(asks(base)[0], losing_the_device)
    assert running.held.wait(WAIT_SECONDS)
    if joining:
        engine.submit(asks(base)[1], waiting)
    running.go.set()
    assert running.done.wait(WAIT_SECONDS)
    assert isinstance(running.error, LostError)
    if joining:
        assert waiting.done.wait(WAIT_SECONDS)
        assert isinstance(waiting.error, LostError)
    while engine.alive:
        time.sleep(0.01)
    with pytest.raises(StoppedError):
        engine.submit(asks(base)[0], Asker())


def test_a_closed_engine_fails_what_is_left_and_takes_no_more(base: Base) -> None:
    engine = Engine(base, attach_all(base), rows=1, waiting=4)
    running, waiting = Asker(hold_at=1), Asker()
    engine.submit(asks(base)[0], running)
    assert running.held.wait(WAIT_SECONDS)
    engine.submit(asks(base)[1], waiting)
    closing = threading.Thread(target=engine.close)
    closing.start()
    while engine.alive:
        pass
    running.go.set()
    closing.join()
    assert isinstance(running.error, StoppedError)
    assert isinstance(waiting.error, StoppedError)
    with pytest.raises(StoppedError):
        engine.submit(asks(base)[0], Asker())


def test_a_receiver_that_is_gone_stops_nobody(
    base: Base, engine: Engine, expected: list[str]
) -> None:
    def gone(piece: Piece | EngineError) -> None:
        raise RuntimeError("Event loop is closed")

    engine.submit(asks(base)[0], gone)
    assert [piece.text for piece in engine.answer(asks(base)[1:])] == expected[1:]
