"""A word that stands in users' test answers alone reaches nothing before the test part is read.

Whatever the base reads passes its embeddings, be it in training, in scoring, as a prompt or to make
vectors of a history. So every token is caught there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from cluster.arena import Arena
from cluster.station import done
from cluster.unit import BASE, Unit, told
from models.catalog import PERSONALIZERS
from models.history import Histories, split
from tests.cluster import tiny_contest
from tests.cluster.tiny_contest import CODE, USERS

OTHERS = tuple(f"other {n}" for n in range(8))
ONE_OF_EACH_KIND = ("none", "milp+rag", "malp", "e2p")


class Seen:
    """The texts of all rows that a base has read."""

    def __init__(self, arena: Arena) -> None:
        self._base, self.texts = arena.base, set[str]()
        arena.base.model.get_input_embeddings().register_forward_pre_hook(self._hear)

    def _hear(self, _module: Any, inputs: tuple[Tensor]) -> None:
        for row in inputs[0].reshape(-1, inputs[0].shape[-1]).tolist():
            self.texts.add(self._base.prompt.decode([token for token in row if token >= 0]))

    def holds(self, word: str) -> bool:
        """Whether the base has read a word."""
        return any(word in text for text in self.texts)


@pytest.mark.parametrize(
    "methods",
    [
        pytest.param(ONE_OF_EACH_KIND, id="one of each kind"),
        pytest.param(tuple(sorted(PERSONALIZERS)), id="all", marks=pytest.mark.long),
    ],
)
def test_it_stands_in_no_state_cache_prompt_or_file_before(
    tmp_path: Path, methods: tuple[str, ...]
) -> None:
    tiny_contest.write_data(tmp_path, others=OTHERS)
    tiny_contest.write_base(tmp_path)
    terms = tiny_contest.terms(tmp_path, methods, trials=1, seeds=1, items=1)
    arena = tiny_contest.begun(tmp_path, terms)
    seen = Seen(arena)
    histories = Histories.open(arena.folder.data)
    tests = [split(histories.load(user)).test for user in USERS]
    assert all(CODE in items[-1].response for items in tests)
    tiny_contest.tried(arena)
    assert all(told(arena.units, method) for method in methods)
    assert seen.holds("I like a bread much")  # it was listened to
    assert not seen.holds(CODE)
    files = tiny_contest.texts_of(arena.folder.path)
    assert any(CODE in text for name, text in files.items() if name.startswith("data/"))
    for name, text in files.items():
        assert CODE not in text or name.startswith("data/"), name
    done(arena, Unit("untrained", BASE))  # this reads the test part
    assert seen.holds(CODE)
