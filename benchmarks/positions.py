"""How well a base predicts at each position: beyond the windows it was trained on, badly.

    python -m benchmarks.positions --data DATA --base BASE [--users 12] [--tokens 768] [--edge 256]
        [--seed 0]

A base's config says how many positions it has, not on how many it was trained. Here the training
parts of some users, those long enough, are read as running text from position 0 on; printed is the
mean loss between positions, then how many of the answers' tokens in all training parts stand beyond
`--edge`, query and answer counted. Where loss rises there, give a copy of the base whose
config.json says `"max_position_embeddings": EDGE`.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from models.base import Base
from models.history import Histories, Interaction, split

EDGES = (0, 64, 128, 192, 256, 320, 384, 512, 768, 1024)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--users", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=768)
    parser.add_argument("--edge", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    base = Base.load(given.base, "cpu", "float32")
    with tempfile.TemporaryDirectory() as folder:
        parts = list(training_parts(Histories.read(given.data, Path(folder)), given.seed))
    texts_UT = running_text(base, parts, given.users, min(given.tokens, base.context))
    losses_T = losses_by_position(base, texts_UT)
    print(f"{len(texts_UT)} users\n\n| positions | loss |\n| ---: | ---: |")
    for first, end in pairwise(EDGES):
        if len(losses_T[first:end]):
            print(f"| {first} to {end - 1} | {losses_T[first:end].mean():.2f} |")
    print(f"\nanswers' tokens beyond {given.edge}: {share_beyond(base, parts, given.edge):.1%}")


def training_parts(histories: Histories, seed: int) -> Iterator[Sequence[Interaction]]:
    """Of users whose history can be split, in an order that the seed decides."""
    users = list(histories.user_ids)
    random.Random(seed).shuffle(users)
    for user in users:
        try:
            yield split(histories.load(user)).train
        except ValueError:  # too short to be split
            continue


def running_text(
    base: Base, parts: Sequence[Sequence[Interaction]], users: int, tokens: int
) -> Tensor:
    """`[U, T]`: the first users' texts that are long enough, each from its beginning on.

    Raises:
        ValueError: nobody's is.
    """
    rows = (
        [*base.prompt.begin, *(t for item in part for t in _tokens(base, item))] for part in parts
    )
    found = [row[:tokens] for row in rows if len(row) >= tokens][:users]
    if not found:
        raise ValueError(f"expected a user with {tokens} tokens, got none: give fewer --tokens")
    return torch.tensor(found)


@torch.no_grad()
def losses_by_position(base: Base, texts_UT: Tensor) -> Tensor:
    """`[T - 1]`: the mean loss over users of the token after each position, in nats."""
    logits_UTV = base.model(input_ids=texts_UT).logits[:, :-1].float()
    losses_N = nn.functional.cross_entropy(
        logits_UTV.flatten(0, 1), texts_UT[:, 1:].flatten(), reduction="none"
    )
    return losses_N.view(len(texts_UT), -1).mean(0)


def share_beyond(base: Base, parts: Sequence[Sequence[Interaction]], edge: int) -> float:
    """The share of all answers' tokens that stand at position `edge` or later."""
    every = (item for part in parts for item in part)
    rows = [base.prompt.pair(i.query, i.response) for i in every if i.query is not None]
    beyond = sum(max(0, len(row.tokens) - max(edge, row.predict_from)) for row in rows)
    return beyond / sum(row.predicted for row in rows)


def _tokens(base: Base, item: Interaction) -> Sequence[int]:
    return base.prompt.text(f"{item.query or ''}\n{item.response}\n")


if __name__ == "__main__":
    main()
