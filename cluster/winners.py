"""A winner as it is published: into the registry, and as its user's result beside it.

It trains and scores nothing. The base is published where a memory, trained at full budget, is not
better after all. The result's file is written last: a user who has one is done.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from cluster.folder import RunFolder
from cluster.inside import Inside
from cluster.private import write_private
from cluster.results import Example, Measured, UserResult
from cluster.subjects import Subject
from models.history import Interaction
from models.personalizer import UserState
from models.published import WINNER_IS_BASE, BaseIdentity
from models.registry import Registry
from models.scoring import Scores
from search.space import BASE_CONFIG, MemoryConfig

EXAMPLES = 5


def publish(
    folder: RunFolder,
    identity: BaseIdentity,
    subject: Subject,
    state: UserState | None,
    strength: float,
    base: Scores,
    won: Scores,
    reason: str | None,
    inside: Inside | None = None,
) -> UserResult:
    """Publishes a user's winner and returns what the report says of the user.

    Args:
        folder: the run's.
        identity: the base that the memory belongs to.
        subject: the user.
        state: the memory; None is the base.
        strength: how much of what was trained it keeps (see `models/strength.py`).
        base: the base's scores on the user's validation items.
        won: the memory's on the same items.
        reason: why there is no memory, if not because nothing beat the base.
        inside: what the memory changed.
    """
    if state is None or won.loss_nats >= base.loss_nats:
        state, won, strength, inside = None, base, 0.0, None
    found = _result(subject, state, strength, base, won, reason or WINNER_IS_BASE)
    result = replace(found, inside=inside)
    objectives = {
        "loss_nats": won.loss_nats,
        "rouge_l": won.rouge_l,
        "base_loss_nats": base.loss_nats,
        "base_rouge_l": base.rouge_l,
        "strength": strength,
    }
    Registry(folder.registry).publish(
        state or without_memory(subject.user_id), identity, objectives, result.reason
    )
    folder.winners.mkdir(mode=0o700, exist_ok=True)
    content = json.dumps(result.to_json(), allow_nan=False)
    write_private(folder.winners / f"{subject.digest}.json", content)
    return result


def without_memory(user_id: str) -> UserState:
    """The state of a user who is answered by the base."""
    return UserState("milp", user_id, {}, {})


def _result(
    subject: Subject,
    state: UserState | None,
    strength: float,
    base: Scores,
    won: Scores,
    reason: str,
) -> UserResult:
    found = BASE_CONFIG if state is None else MemoryConfig.from_json(state.configuration)
    return UserResult(
        user_id=subject.user_id,
        digest=subject.digest,
        by_session=subject.by_session,
        pairs=subject.pairs,
        kind="base" if state is None else "milp",
        reason=reason if state is None else None,
        configuration=found,
        parameters=0 if state is None else sum(t.numel() for t in state.tensors.values()),
        strength=strength,
        anchor=Measured.of(base),
        winner=Measured.of(won),
        examples=_examples(subject.items, base.answers, won.answers),
    )


def _examples(
    items: Sequence[Interaction], base: Sequence[str], won: Sequence[str]
) -> tuple[Example, ...]:
    """Evenly spaced items with their true answer and both models'."""
    rows = [
        Example(item.query or "", item.response, of_base, of_winner)
        for item, of_base, of_winner in zip(items, base, won, strict=True)
    ]
    return tuple(rows[:: max(1, len(rows) // EXAMPLES)][:EXAMPLES])
