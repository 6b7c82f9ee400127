"""What is done once every winner is published: those left out, and personal gain.

Both are work for as many users as there are, so both go through packers a few users at a time, to
whichever packer has time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from ray.exceptions import RayTaskError
from ray.util import ActorPool

from cluster.results import Entries, Gain, UserResult
from models.gain import STRANGERS, joined, strangers_of

MEASURED_USERS = 16  # at once: their memories and their strangers' are in memory together
PUBLISHED_USERS = 256  # in one call


def publish_left_out(packers: Sequence[Any], reasons: Mapping[str, str]) -> None:
    """Publishes users who were not searched as answered by the base, each with its reason."""
    for _ in _spread(packers, "publish_left_out", _pieces(reasons, PUBLISHED_USERS)):
        pass


def personal_gain(packers: Sequence[Any], users: Sequence[UserResult], seed: int) -> Gain:
    """Users' own memories against strangers', each on a few strangers' alone.

    Args:
        packers: measure.
        users: all of a run whose winner is published.
        seed: draws the strangers.
    """
    owners = [user.digest for user in users if user.kind != "base"]
    drawn = strangers_of([user.digest for user in users], owners, STRANGERS, seed)
    found = joined(_spread(packers, "gain", _pieces(drawn, MEASURED_USERS)))
    return Gain(_in_order(found.loss, drawn), found.recall and _in_order(found.recall, drawn))


def _in_order(found: Entries, users: Iterable[str]) -> Entries:
    return {user: found[user] for user in users if user in found}


def _pieces(of: Mapping[str, Any], size: int) -> Iterator[dict[str, Any]]:
    left = iter(of.items())
    while piece := dict(islice(left, size)):
        yield piece


def _spread(packers: Sequence[Any], method: str, pieces: Iterable[object]) -> Iterator[Any]:
    """What a workbench's method gives for each piece, as it comes; raises what it raised."""
    pool = ActorPool(list(packers))
    try:
        yield from pool.map_unordered(
            lambda packer, piece: packer.call.remote(method, piece), pieces
        )
    except RayTaskError as error:
        raise error.cause from error
