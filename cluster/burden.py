"""What a user's state costs whoever keeps and serves it: parameters, bytes, tokens and time.

Bytes are those of the files that a registry keeps of the state, its description included, counted
on disk; what several users share is counted apart. Tokens are those that are run before an answer,
beyond the query's own. Times are ratios to the base alone, asked in turn in the same process, since
a processor's own times say nothing elsewhere.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from models.base import Base
from models.decoding import Decoder, Sampling
from models.history import Interaction
from models.personalizer import Attach, Frame, Framed, UserState
from models.published import BaseIdentity
from models.registry import Registry
from models.scoring import prompt_tokens

ANSWER_TOKENS = 16
TIMES = 3


@dataclass(frozen=True)
class Pace:
    """How fast one answer comes: seconds to its first token, then tokens a second."""

    first_token_seconds: float
    tokens_per_second: float


def stored_bytes(
    registry: Registry, state: UserState, identity: BaseIdentity, reason: str | None = None
) -> int:
    """Publishes a state and returns the bytes of its files."""
    registry.publish(state, identity, {}, reason)
    folder = registry.current(state.user_id).folder
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def parameters(state: UserState | None) -> int:
    """How many numbers a state keeps."""
    return 0 if state is None else sum(tensor.numel() for tensor in state.tensors.values())


def extra_tokens(
    base: Base, frame: Frame, state: UserState | None, items: Sequence[Interaction], limit: int
) -> float:
    """Mean over items: tokens run before an answer under a state, less those of the query alone.

    Args:
        base: whose tokens they are.
        frame: puts before a query what the state's method adds to it.
        state: a user's; None is the base.
        items: with a query each.
        limit: the most tokens of an answer, which a prompt leaves room for.
    """
    queries = [item.query or "" for item in items]
    return statistics.fmean(
        len(prompt_tokens(base, frame(state, query), limit))
        - len(prompt_tokens(base, Framed(query), limit))
        for query in queries
    )


def pace_ratios(
    base: Base, attach: Attach, frame: Frame, asked: Sequence[tuple[UserState, str]]
) -> tuple[float, float]:
    """Median over (state, query): time to the first token, and tokens a second, to the base's."""
    first, after = [], []
    for state, query in asked:
        pace(base, attach, frame, state, query)  # a state's first use brings it to the device
        for _ in range(TIMES):
            own = pace(base, attach, frame, state, query)
            plain = pace(base, attach, frame, None, query)
            first.append(own.first_token_seconds / plain.first_token_seconds)
            after.append(own.tokens_per_second / plain.tokens_per_second)
    return statistics.median(first), statistics.median(after)


def pace(base: Base, attach: Attach, frame: Frame, state: UserState | None, query: str) -> Pace:
    """One answer of a few tokens, alone in its batch; framing the query is part of it."""
    began = time.perf_counter()
    prompt = prompt_tokens(base, frame(state, query), ANSWER_TOKENS)
    decoder = Decoder(base, attach)
    decoder.join([prompt], [state], [Sampling()])
    decoder.step()
    first = time.perf_counter()
    for _ in range(ANSWER_TOKENS - 1):
        decoder.step()
    after = time.perf_counter() - first
    return Pace(first - began, (ANSWER_TOKENS - 1) / after)
