"""One running batch of answers: rows of different users join and leave between tokens.

Each row has its own key-value cache length. Prompts are prefilled together (padded on the right,
which causal attention never sees), then their keys and values join those that run
(`models/cache.py`): every row's newest position stands last, and one masked step serves all.

This file knows no user's rights and no HTTP; `serve/engine.py` does.

Notation: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import DynamicCache

from models.base import Base
from models.batching import batches, default_padded_tokens
from models.cache import Layers, RunningCache, layers_of, moved
from models.personalizer import Attach, UserState
from models.prompt import Row


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: the likeliest at temperature 0, else drawn from the top p."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass
class _Row:
    """One running answer."""

    number: int
    state: UserState | None
    sampling: Sampling
    length: int  # tokens in the cache
    token: int  # chosen, not in the cache yet
    reported: bool = False
    generator: torch.Generator = field(default_factory=torch.Generator)


class Decoder:
    """The running batch of one base. Not thread-safe: one thread drives it."""

    def __init__(self, base: Base, attach: Attach) -> None:
        self._base = base
        self._attach = attach
        self._rows: list[_Row] = []
        self._cache = RunningCache()
        self._paused: dict[int, tuple[_Row, Layers]] = {}
        self._next_number = 0

    def __len__(self) -> int:
        return len(self._rows)

    @torch.inference_mode()
    def join(
        self,
        prompts: Sequence[Sequence[int]],
        states: Sequence[UserState | None],
        samplings: Sequence[Sampling],
    ) -> list[int]:
        """Take prompts into the batch; returns their row numbers.

        Raises:
            ValueError: an empty prompt, or one that leaves no room in the context.
        """
        for prompt in prompts:
            if not 0 < len(prompt) < self._base.context:
                limit = self._base.context - 1
                raise ValueError(f"expected a prompt of 1 to {limit} tokens, got {len(prompt)}")
        arrived: dict[int, _Row] = {}
        arriving: list[tuple[Layers, list[int]]] = []
        for batch in _of_like_length(prompts, self._base.device):
            lengths = [len(prompts[i]) for i in batch]
            logits_BV, layers = self._prefill(
                [prompts[i] for i in batch], [states[i] for i in batch]
            )
            arriving.append((layers, lengths))
            for i, length, logits_V in zip(batch, lengths, logits_BV, strict=True):
                arrived[i] = self._row(states[i], samplings[i], length, logits_V)
        self._take_in(arriving, list(arrived.values()))
        return [arrived[i].number for i in range(len(prompts))]

    @torch.inference_mode()
    def step(self) -> list[tuple[int, int]]:
        """(row number, next token): of the rows that just joined, or else of every row.

        A row that has used up the context must leave before the next step.
        """
        fresh = [row for row in self._rows if not row.reported]
        if not fresh and self._rows:
            self._advance()
            fresh = self._rows
        for row in fresh:
            row.reported = True
        return [(row.number, row.token) for row in fresh]

    @torch.inference_mode()
    def leave(self, numbers: Sequence[int]) -> None:
        """Take rows out, paused ones too; the others' results do not change."""
        for number in numbers:
            self._paused.pop(number, None)
        leaving = set(numbers)
        gone = {i for i, row in enumerate(self._rows) if row.number in leaving}
        if not gone:
            return
        width = max((r.length for i, r in enumerate(self._rows) if i not in gone), default=0)
        self._rows = [self._rows[i] for i in self._cache.leave(gone, width)]

    @torch.inference_mode()
    def pause(self, numbers: Sequence[int]) -> None:
        """Set rows aside until they go on; what they hold waits in the processor's memory."""
        aside = {
            row.number: (row, self._cache.aside(i, row.length))
            for i, row in enumerate(self._rows)
            if row.number in numbers
        }
        self.leave(numbers)
        self._paused.update(aside)

    @torch.inference_mode()
    def resume(self, numbers: Sequence[int]) -> None:
        """Let paused rows go on where they were."""
        paused = [self._paused[number] for number in numbers]
        if not paused:
            return
        arriving = [(moved(layers, self._base.device), [row.length]) for row, layers in paused]
        self._take_in(arriving, [row for row, _ in paused])
        for number in numbers:
            del self._paused[number]

    def _take_in(
        self, arriving: Sequence[tuple[Layers, Sequence[int]]], rows: Sequence[_Row]
    ) -> None:
        """Let rows run whose keys and values arrive in this order."""
        self._cache.join(max(row.length for row in (*self._rows, *rows)), arriving)
        self._rows += rows

    def _advance(self) -> None:
        """Choose the token after the one last reported, for every row."""
        for row, logits_V in zip(self._rows, self._decode(), strict=True):
            row.length += 1
            row.token = _choose(logits_V, row)

    def _row(
        self, state: UserState | None, sampling: Sampling, length: int, logits_V: Tensor
    ) -> _Row:
        row = _Row(self._next_number, state, sampling, length, 0)
        self._next_number += 1
        if sampling.seed is None:
            row.generator.seed()
        else:
            row.generator.manual_seed(sampling.seed)
        row.token = _choose(logits_V, row)
        return row

    def _prefill(
        self, prompts: Sequence[Sequence[int]], states: Sequence[UserState | None]
    ) -> tuple[Tensor, Layers]:
        """Logits after each prompt `[B, V]`, and their keys and values, padded on the right."""
        base, width = self._base, max(len(prompt) for prompt in prompts)
        tokens_BT = torch.zeros(len(prompts), width, dtype=torch.long)
        for i, prompt in enumerate(prompts):
            tokens_BT[i, : len(prompt)] = torch.tensor(prompt)
        positions = torch.arange(width, device=base.device) + base.position_offset
        cache = DynamicCache()
        with self._attach(list(states), prompts):
            hidden_BTD = base.model.base_model(
                input_ids=tokens_BT.to(base.device),
                position_ids=positions.expand(len(prompts), -1),
                past_key_values=cache,
                use_cache=True,
            )[0]
        last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=base.device)
        row = torch.arange(len(prompts), device=base.device)
        return base.logits(hidden_BTD[row, last]), layers_of(cache)

    def _decode(self) -> Tensor:
        """Logits `[B, V]` after each row's pending token, which enters the cache."""
        base = self._base
        lengths_B = torch.tensor([row.length for row in self._rows], device=base.device)
        width = self._cache.width
        tokens_B1 = torch.tensor([[row.token] for row in self._rows], device=base.device)
        places = torch.arange(width + 1, device=base.device)
        mask_BT = (places[None, :] >= width - lengths_B[:, None]).long()
        with self._attach([row.state for row in self._rows]):
            hidden_B1D = base.model.base_model(
                input_ids=tokens_B1,
                attention_mask=mask_BT,
                position_ids=lengths_B[:, None] + base.position_offset,
                past_key_values=self._cache.opened(),
                use_cache=True,
            )[0]
        self._cache.grown()
        return base.logits(hidden_B1D[:, 0])


def _of_like_length(prompts: Sequence[Sequence[int]], device: torch.device) -> list[list[int]]:
    """Positions of prompts that are read together: a long one costs the short ones nothing."""
    rows = [Row(tuple(prompt), len(prompt)) for prompt in prompts]
    return batches(rows, default_padded_tokens(device), device)


def _choose(logits_V: Tensor, row: _Row) -> int:
    """The row's next token under its own sampling; its randomness is its own."""
    if row.sampling.temperature == 0:
        return int(logits_V.argmax())
    scaled = logits_V.float().cpu() / row.sampling.temperature
    probabilities, order = scaled.softmax(-1).sort(descending=True, stable=True)
    # The smallest set whose mass reaches top_p: what stands before a token decides on it.
    before = probabilities.cumsum(-1) - probabilities
    # The first stays however small top_p is: as a float32 it may be 0.
    probabilities[1:][before[1:] >= row.sampling.top_p] = 0
    return int(order[torch.multinomial(probabilities, 1, generator=row.generator)])


def generate(
    base: Base,
    prompts: Sequence[Sequence[int]],
    states: Sequence[UserState | None],
    attach: Attach,
    max_new_tokens: int | Sequence[int],
    sampling: Sampling | None = None,
    rows: int = 64,
) -> list[list[int]]:
    """Answers to prompts, without the token that ended them; `rows` of them run at a time.

    An answer ends at the prompt format's end, at its token limit, or where the context is full.
    Waiting prompts (longest first) take the places of ended ones.
    """
    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
    answers: list[list[int]] = [[] for _ in prompts]
    waiting = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    owner: dict[int, int] = {}
    decoder = Decoder(base, attach)
    while waiting or owner:
        if waiting and len(decoder) <= rows // 2:
            batch = [waiting.pop() for _ in range(min(rows - len(decoder), len(waiting)))]
            numbers = decoder.join(
                [prompts[i] for i in batch],
                [states[i] for i in batch],
                [sampling or Sampling()] * len(batch),
            )
            owner.update(zip(numbers, batch, strict=True))
        ended = []
        for number, token in decoder.step():
            answer, i = answers[owner[number]], owner[number]
            over = base.prompt.ends_answer(token)
            if not over:
                answer.append(token)
            room = base.context - len(prompts[i]) - len(answer)
            if over or len(answer) >= limits[i] or room <= 0:
                ended.append(number)
        decoder.leave(ended)
        for number in ended:
            del owner[number]
    return answers
