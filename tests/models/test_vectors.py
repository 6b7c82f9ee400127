"""Histories are read once by an encoder, and are what they were read as."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from models import vectors
from models.encoder import BaseEncoder
from models.history import Interaction
from models.vectors import Reader
from tests.tiny import tiny_base, tiny_interactions


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each call of the base's encoder has read."""
    found: list[int] = []
    encode = BaseEncoder.encode

    def counted(self: BaseEncoder, texts: Sequence[str]) -> Tensor:
        found.append(len(texts))
        return encode(self, texts)

    monkeypatch.setattr(BaseEncoder, "encode", counted)
    return found


def test_a_history_is_read_once_by_all_methods_of_a_base(read: list[int]) -> None:
    base, ann = tiny_base(), tiny_interactions("ann", 12)
    first = Reader().items(base, ann)
    assert torch.equal(Reader().items(base, ann), first)
    assert read == [12]
    fresh = tiny_base()
    torch.testing.assert_close(Reader().items(fresh, ann), first, atol=0, rtol=0)
    assert read == [12, 12]


def test_another_user_or_another_past_is_read_for_itself(read: list[int]) -> None:
    base, ann = tiny_base(), tiny_interactions("ann", 12)
    first = Reader().items(base, ann)
    twin = [Interaction("ben", i.time, i.query, i.response) for i in ann]
    assert torch.equal(Reader().items(base, twin), first)
    assert Reader().items(base, ann[:5]).shape[0] == 5
    assert read == [12, 12, 5]


def test_what_was_asked_for_last_is_kept_within_a_bound(
    read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, people = tiny_base(), [tiny_interactions(name, 10) for name in ("ann", "ben", "cleo")]
    monkeypatch.setattr(vectors, "KEPT_BYTES", 2 * 10 * base.width * 4)
    for person in people:
        Reader().items(base, person)
    Reader().items(base, people[2])
    Reader().items(base, people[1])
    assert read == [10, 10, 10]
    Reader().items(base, people[0])  # the one that had to go
    assert read == [10, 10, 10, 10]
