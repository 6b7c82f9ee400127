"""What a memory changed: how the likelihood of tokens under it differs from the base's.

Three readings, all over rows that both read:

    rises     at the places where a token truly comes next: by how many nats it became likelier.
              Their sums over all token types are the whole gain, so this says what it is made of.
    gained    tokens by the probability they gained, as a mean over all places: what the memory
              leans to, whether or not it comes next.
    neutral   the same where nothing personal was asked: the rows are the base's own answers to a
              few questions that anybody may ask anybody.

It is arithmetic on two passes over the same rows, deterministic, and knows neither users nor words.
It is for states that put nothing before a query, so that base and memory read the same tokens.

Notation: N predicted tokens, V vocabulary, D width.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.base import Base
from models.batching import batches, default_padded_tokens
from models.decoding import generate
from models.head import CHUNK_BYTES
from models.personalizer import Attach, UserState
from models.prompt import Row

NEUTRAL_QUESTIONS = ("Hello.", "How are you?", "What do you think about it?", "What happened?")
NEUTRAL_TOKENS = 16  # of an answer of the base


@dataclass(frozen=True)
class Rise:
    """A token that truly came next `count` times, and by how many nats it rose there on average."""

    token: int
    count: int
    mean_nats: float


@dataclass(frozen=True)
class Gained:
    """A token, and the probability that it gained as a mean over all places."""

    token: int
    mean_mass: float


@dataclass(frozen=True)
class Change:
    """What a state changed on some rows: `places` predicted tokens.

    `rises` has every token type that came next, the largest sum of nats first; `gained` the tokens
    that gained most probability. Of equals, the token with the smaller number comes first.
    """

    places: int
    rises: tuple[Rise, ...]
    gained: tuple[Gained, ...]


def change(
    base: Base, attach: Attach, state: UserState, rows: Sequence[Row], most_gained: int = 10
) -> Change:
    """What `state` changed against the base on the predicted tokens of `rows`.

    Args:
        base: the one that the state is of.
        attach: runs rows under states.
        state: of a method that adds no words and no soft tokens.
        rows: what both read; at least one.
        most_gained: how many tokens are listed by the probability that they gained.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("expected at least one row to compare base and memory on, got none")
    counts: Counter[int] = Counter()
    sums: defaultdict[int, float] = defaultdict(float)
    mass_V, places = torch.zeros(_vocabulary(base), dtype=torch.float64), 0
    for target_N, base_NV, state_NV in _log_probabilities(base, attach, state, rows):
        rise_N = (state_NV - base_NV).gather(1, target_N[:, None])[:, 0]
        for token, nats in zip(target_N.tolist(), rise_N.tolist(), strict=True):
            counts[token] += 1
            sums[token] += nats
        mass_V += (state_NV.exp() - base_NV.exp()).sum(0, dtype=torch.float64).cpu()
        places += len(target_N)
    rises = [Rise(token, n, sums[token] / n) for token, n in counts.items()]
    rises.sort(key=lambda rise: (-rise.mean_nats * rise.count, rise.token))
    return Change(places, tuple(rises), _most(mass_V / places, most_gained))


@torch.no_grad()
def neutral_rows(base: Base, attach: Attach) -> tuple[Row, ...]:
    """The base's own answers to questions that anybody may ask anybody, their end included."""
    prompts = [base.prompt.prompt(question) for question in NEUTRAL_QUESTIONS]
    limits = [NEUTRAL_TOKENS] * len(prompts)
    said = generate(base, prompts, [None] * len(prompts), attach, limits)
    end = min(base.prompt.stop_ids)
    return tuple(
        Row((*prompt, *answer, end), len(prompt))
        for prompt, answer in zip(prompts, said, strict=True)
    )


def _most(mass_V: Tensor, count: int) -> tuple[Gained, ...]:
    """The tokens that gained most; those that gained nothing are left out."""
    order = torch.argsort(mass_V, descending=True, stable=True)[:count].tolist()
    found = (Gained(token, float(mass_V[token])) for token in order)
    return tuple(each for each in found if each.mean_mass > 0)


@torch.no_grad()
def _log_probabilities(
    base: Base, attach: Attach, state: UserState, rows: Sequence[Row]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """True tokens `[N]`, and log-probabilities `[N, V]` under base and state, a few at a time."""
    size = max(1, CHUNK_BYTES[base.device.type] // (4 * _vocabulary(base)))
    for places in batches(rows, default_padded_tokens(base.device), base.device):
        batch = [rows[i] for i in places]
        targets = [token for row in batch for token in row.tokens[row.predict_from :]]
        target_N = torch.tensor(targets, device=base.device)
        with attach([None] * len(batch)):
            base_ND = _hidden(base, batch)
        with attach([state] * len(batch), [row.tokens[: row.predict_from] for row in batch]):
            state_ND = _hidden(base, batch)
        for start in range(0, len(targets), size):
            part = slice(start, start + size)
            before_NV, after_NV = (_log_softmax(base, h_ND[part]) for h_ND in (base_ND, state_ND))
            yield target_N[part], before_NV, after_NV


def _hidden(base: Base, rows: Sequence[Row]) -> Tensor:
    """Hidden states `[N, D]` from which the predicted tokens of all rows are read."""
    width = max(len(row.tokens) for row in rows)
    tokens_BT = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        tokens_BT[i, : len(row.tokens)] = torch.tensor(row.tokens)
    hidden_BTD = base.hidden(tokens_BT.to(base.device))
    return torch.cat(
        [hidden_BTD[i, row.predict_from - 1 : len(row.tokens) - 1] for i, row in enumerate(rows)]
    )


def _log_softmax(base: Base, hidden_ND: Tensor) -> Tensor:
    logits_NV = base.logits(hidden_ND)
    kind = torch.promote_types(logits_NV.dtype, torch.float32)
    return nn.functional.log_softmax(logits_NV, -1, dtype=kind)


def _vocabulary(base: Base) -> int:
    return int(base.model.config.get_text_config().vocab_size)
