"""What follows the last winner goes through all packers, a few users at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster import afterwards
from cluster.afterwards import MEASURED_USERS, PUBLISHED_USERS, personal_gain, publish_left_out
from cluster.connection import connected
from cluster.packer import start_packer
from cluster.results import UserResult
from models.gain import STRANGERS, GainMatrix
from tests.cluster.made_results import user


class Measures:
    """A bench that says which process measured whom, and publishes into a folder."""

    folder: Path

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def gain(self, drawn: Mapping[str, Sequence[str]]) -> GainMatrix:
        """A loss that names the process."""
        if len(drawn) > MEASURED_USERS:
            raise ValueError(f"{len(drawn)} users at once")
        at = float(os.getpid())
        return GainMatrix({user: dict.fromkeys((user, *of), at) for user, of in drawn.items()})

    def publish_left_out(self, reasons: Mapping[str, str]) -> None:
        """A file for each call; refuses who is called so."""
        if "nobody" in reasons:
            raise ValueError("the disk is full")
        (self.folder / next(iter(reasons))).write_text(f"{os.getpid()} {len(reasons)}")


@pytest.fixture(scope="module")
def packers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Any], Path]]:
    """Two, with the folder that they publish into."""
    folder = tmp_path_factory.mktemp("published")
    with connected(None, 2, "afterwards", lambda _: None, 1e6):
        made = [start_packer(i, lambda: Measures(folder), folder.parent, {}) for i in range(2)]
        yield made, folder


def users(count: int) -> list[UserResult]:
    """Every third one's winner is the base."""
    return [
        replace(user(0), digest=f"{i:016x}", kind="base" if i % 3 == 0 else "milp")
        for i in range(count)
    ]


def test_every_user_is_held_against_strangers_with_a_memory(
    packers: tuple[list[Any], Path],
) -> None:
    several = users(5 * MEASURED_USERS + 1)
    found = personal_gain(packers[0], several, seed=1)
    assert list(found.loss) == [one.digest for one in several]
    owners = {one.digest for one in several if one.kind == "milp"}
    for digest, tried in found.loss.items():
        assert digest in tried
        assert len(tried) == 1 + STRANGERS
        assert set(tried) - {digest} <= owners
    assert len({value for tried in found.loss.values() for value in tried.values()}) == 2


def test_those_left_out_are_published_in_pieces_by_all_packers(
    packers: tuple[list[Any], Path],
) -> None:
    made, folder = packers
    publish_left_out(made, {f"user{i}": "too few" for i in range(3 * PUBLISHED_USERS + 7)})
    said = [file.read_text().split() for file in folder.iterdir()]
    assert sorted(int(count) for _, count in said) == [7, *[PUBLISHED_USERS] * 3]
    assert len({process for process, _ in said}) == 2
    publish_left_out(made, {})


def test_what_a_packer_raises_is_raised(packers: tuple[list[Any], Path]) -> None:
    with pytest.raises(ValueError, match="the disk is full"):
        publish_left_out(packers[0], {"nobody": "gone"})
    assert ray.is_initialized()
    assert afterwards.personal_gain(packers[0], users(2), 0).loss
