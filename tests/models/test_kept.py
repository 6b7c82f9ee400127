"""What is made of a state is made once, whoever asks, and goes with the state."""

from __future__ import annotations

import gc
import threading
import weakref

from models.base import Base
from models.kept import Kept
from models.personalizer import UserState
from tests.states import a_state
from tests.tiny import tiny_base


class _Index:
    def __init__(self, base: Base, state: UserState) -> None:
        self.of = (base.model, state.user_id)


def test_each_state_is_made_once_however_many_ask() -> None:
    base, states, made = tiny_base(), [a_state("ann"), a_state("bob")], []
    together = threading.Barrier(8)

    def make(base: Base, state: UserState) -> _Index:
        made.append(state.user_id)
        return _Index(base, state)

    kept, found = Kept(make), list[_Index]()

    def ask(state: UserState) -> None:
        together.wait()
        found.append(kept.of(base, state))

    threads = [threading.Thread(target=ask, args=(states[i % 2],)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == ["ann", "bob"]
    assert len(set(map(id, found))) == 2
    assert len(found) == 8


def test_another_base_gets_its_own() -> None:
    kept, state = Kept(_Index), a_state()
    first, second = tiny_base(), tiny_base()
    assert kept.of(first, state).of == (first.model, "ann")
    assert kept.of(second, state).of == (second.model, "ann")


def test_it_goes_with_the_state() -> None:
    kept, state, base = Kept(lambda _base, state: list(state.text)), a_state(), tiny_base()
    assert kept.of(base, state) == []
    gone = weakref.ref(state)
    del state
    gc.collect()
    assert gone() is None
