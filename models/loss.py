"""The loss of rows of tokens under the base and whatever memories are attached to it.

Rows are padded on the right and carry no attention mask: under causal attention a padded position
is never seen by a real one, and its loss is not read. Or they lie behind one another, unpadded.

Notation: B rows, T tokens, D width, P positions, N predicted tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from models.base import Base
from models.batching import batches, default_padded_tokens
from models.head import token_nll
from models.layout import Layout
from models.personalizer import Attach, UserState
from models.prompt import Row


def row_nll(base: Base, rows: Sequence[Row]) -> Tensor:
    """Summed negative log-likelihood `[B]` (nats) of each row's predicted tokens, differentiable.

    Only predicted positions reach the vocabulary.
    """
    width = max(len(row.tokens) for row in rows)
    tokens_BT = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        tokens_BT[i, : len(row.tokens)] = torch.tensor(row.tokens)
    hidden_BTD = base.hidden(tokens_BT.to(base.device))
    begins = range(0, len(rows) * width, width)
    return _nll(base, rows, hidden_BTD.flatten(0, 1), begins)


def row_nll_behind(base: Base, rows: Sequence[Row]) -> Tensor:
    """The same `[B]` of rows that lie behind one another, not padded (`models/layout.py`).

    What is attached to the base is attached to single tokens. No row may be longer than
    `base.longest_behind`.
    """
    lengths = [len(row.tokens) for row in rows]
    tokens_N = _long([token for row in rows for token in row.tokens], base)
    hidden_ND = base.hidden_behind(tokens_N, Layout.of(lengths, base.device))
    return _nll(base, rows, hidden_ND, accumulate([0, *lengths[:-1]]))


def _nll(base: Base, rows: Sequence[Row], hidden_PD: Tensor, begins: Iterable[int]) -> Tensor:
    """Summed loss `[B]` of rows whose first hidden states stand at `begins` among all P."""
    source: list[int] = []
    target: list[int] = []
    owner: list[int] = []
    for i, (row, begin) in enumerate(zip(rows, begins, strict=True)):
        source += range(begin + row.predict_from - 1, begin + len(row.tokens) - 1)
        target += row.tokens[row.predict_from :]
        owner += [i] * row.predicted
    hidden_ND = hidden_PD.index_select(0, _long(source, base))
    nll_N = token_nll(base, hidden_ND, _long(target, base))
    return nll_N.new_zeros(len(rows)).index_add(0, _long(owner, base), nll_N)


@torch.no_grad()
def row_losses(
    base: Base, rows: Sequence[Row], states: Sequence[UserState | None], attach: Attach
) -> list[tuple[float, int]]:
    """(summed nats, predicted tokens) of each row, row i under `states[i]`."""
    sums = [0.0] * len(rows)
    for batch in batches(rows, default_padded_tokens(base.device), base.device):
        prompts = [rows[i].tokens[: rows[i].predict_from] for i in batch]
        with attach([states[i] for i in batch], prompts):
            nll_B = row_nll(base, [rows[i] for i in batch])
        for i, nll in zip(batch, nll_B.tolist(), strict=True):
            sums[i] = nll
    return [(nll, row.predicted) for nll, row in zip(sums, rows, strict=True)]


def _long(values: Sequence[int], base: Base) -> Tensor:
    return torch.tensor(values, dtype=torch.long, device=base.device)
