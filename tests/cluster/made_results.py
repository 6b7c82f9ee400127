"""A made-up run's results: three users, one whose winner is the base, one with a hostile id."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.inside import Inside, Leaning, Risen
from cluster.results import (
    BaseResult,
    Entries,
    Example,
    Gain,
    LeftOut,
    Measured,
    Recall,
    Results,
    UserResult,
)
from search.space import BASE_CONFIG, MemoryConfig

LAYERS = 6
HOSTILE = "</script><script>alert('id')</script><b>bold</b>"
HOSTILE_TEXT = "</script><img src=x onerror=alert('text')> {{ 7 * 7 }} \ud800"
USERS = ("ann", HOSTILE, "a/../b")
DIGESTS = ("a" * 16, "b" * 16, "c" * 16)
CONFIGURATIONS = (
    MemoryConfig((0, 1, 3), 8, 1e-3),
    MemoryConfig((2,), 32, 5.62e-4),
    BASE_CONFIG,
)


def measured(loss: float, rouge: float, hits: int = 0) -> Measured:
    recall = {"all": Recall(hits, 10, 0.5), "unasked": Recall(hits // 2, 5, 0.25)}
    return Measured(loss, 100, rouge + 0.05, rouge, 0.01, 0.1, 0.7, recall)


def user(place: int) -> UserResult:
    configuration = CONFIGURATIONS[place]
    anchor = measured(3.0 + place, 0.1, hits=1)
    winner = measured(2.5 + place, 0.2, hits=6) if configuration.layers else anchor
    text = HOSTILE_TEXT if place == 1 else f"what {USERS[place]} said"
    return UserResult(
        user_id=USERS[place],
        digest=DIGESTS[place],
        by_session=place != 1,
        pairs=40 + place,
        kind="milp" if configuration.layers else "base",
        reason=None if configuration.layers else "no configuration was better than the base",
        configuration=configuration,
        parameters=1000 * configuration.rank,
        strength=0.75,
        anchor=anchor,
        winner=winner,
        inside=inside(text) if configuration.layers else None,
        examples=(Example(f"query: {text}", f"truth: {text}", "base says", f"winner: {text}"),),
    )


def inside(text: str) -> Inside:
    risen = (Risen(f" token of {text}", 4, 1.5), Risen("\n", 1, 0.5))
    return Inside(10, 0.8, risen, (Leaning(f"leaning of {text}", 0.25),), (Leaning("I", 0.0625),))


def gain_of(
    users: Sequence[str],
    loss: Sequence[Sequence[float | None]],
    recall: Sequence[Sequence[float | None]] | None = None,
) -> Gain:
    """From whole matrices: memory i on the words of user j, None where it was not tried."""
    return Gain(_entries(users, loss), None if recall is None else _entries(users, recall))


def _entries(users: Sequence[str], rows: Sequence[Sequence[float | None]]) -> Entries:
    columns = zip(users, zip(*rows, strict=True), strict=True)
    return {
        user: {owner: v for owner, v in zip(users, column, strict=True) if v is not None}
        for user, column in columns
    }


def results(count: int = 3) -> Results:
    gain = gain_of(
        users=DIGESTS,
        loss=((2.5, 3.9, 5.1), (3.1, 3.5, 4.9), (None, None, 5.0)),
        recall=((0.6, 0.1, 0.1), (0.2, 0.6, 0.0), (None, None, 0.1)),
    )
    return Results(
        experiment={
            "data": "people.jsonl",
            "base": "bases/small",
            "trials": 4,
            "learning_rates": [1e-4, 1e-3],
            "storage": "postgresql://milpa:hunter2@db.example/milpa",
            "versions": {"milpa": "0.1.0", "torch": "2.13.0"},
        },
        base=BaseResult("RUN/base", "f" * 64, LAYERS, "bases/small"),
        population={"users": 20, "interactions": 100, "loss_before_nats": 3.4},
        users=tuple(user(place) for place in range(count)),
        left_out=(LeftOut("<i>quiet</i>", 3, "expected at least 30 pairs, got 3"),),
        gain=gain if count == 3 else None,
        seconds={"population": 100.0, "total": 720.0},
        occupancy=0.85,
    )
