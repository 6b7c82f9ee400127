"""Users' own memories against strangers', as the registry of a run has them.

Whose memory was taken back meanwhile (`milpa withdraw`) is left out, as user and as stranger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from cluster.subjects import Subjects
from models.base import Base
from models.gain import GainMatrix, gain_matrix
from models.personalizer import Attach, Frame, UserState
from models.registry import Registry, UnknownUser
from models.scoring import evaluation_items


def against_strangers(
    base: Base,
    attach: Attach,
    frame: Frame,
    registry: Registry,
    subjects: Subjects,
    drawn: Mapping[str, Sequence[str]],
) -> GainMatrix:
    """Users' own memories and those drawn for them, on validation items; all are digests.

    Raises:
        DamagedState, WrongBase: of a published state.
    """
    wanted = {one for user, of in drawn.items() for one in (user, *of)}
    states = _published(registry, subjects, wanted, base)
    users = {digest: subjects.of(digest) for digest in drawn if digest in states}
    return gain_matrix(
        base,
        attach,
        states,
        {digest: evaluation_items(user.validation) for digest, user in users.items()},
        {digest: [one for one in drawn[digest] if one in states] for digest in users},
        answer_limits={digest: user.answer_tokens for digest, user in users.items()},
        frame=frame,
    )


def _published(
    registry: Registry, subjects: Subjects, digests: Iterable[str], base: Base
) -> dict[str, UserState | None]:
    found: dict[str, UserState | None] = {}
    for digest in digests:
        with suppress(UnknownUser):
            found[digest] = registry.load(subjects.user_id(digest), base)
    return found
