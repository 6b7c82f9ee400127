"""A memory against the length of the history that it is trained on (MiLP, Figure 3).

    python -m benchmarks.history_length --data DATA --base BASE --out FOLDER [--users 8] [--seed 0]
        [--methods milp rag ...] [--rank 16] [--learning-rate 1e-3] [--epochs 10]
        [--user-said response]

The same users with the newest 25, 50, 75 and 100 % of their training part, everything else alike:
the same configuration (for `milp` every layer at one rank and rate, nothing searched), validation
part, answer limits and seed. Measured on test words against the base: loss, ROUGE-L and, where the
data has facts, recall. Methods are those of `models/catalog.py` that share nothing between users:
where they do, a shorter history is one thing and what was learned from others another.

A base that hasn't learned what users share gives most of the gain to format and domain: to leave
that out, give the base of a search that learned a population (RUN/base).

Written to the folder: history_length.json (one line of numbers a user, nobody named), .md and .svg.
"""

from __future__ import annotations

import argparse
import json
import math
import secrets
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.history_figures import SHARES, Measurement, figures, table
from cluster.experiment import Experiment, seed_of
from cluster.private import write_private
from cluster.users import choose
from models.base import Base
from models.catalog import PERSONALIZERS, attach_all, frame_all, personalizer
from models.history import Histories, History, Interaction, split, user_texts
from models.options import default
from models.persona import Persona
from models.personalizer import Budget, Configuration, Personalizer, Task, UserState, fit
from models.scoring import Scores, answer_limit, evaluation_items, score
from models.strength import moderated
from search.space import MemoryConfig

EPOCHS = 10  # of each stage at most, as for a winner


@dataclass(frozen=True)
class Method:
    """A method with its one configuration."""

    name: str
    personalizer: Personalizer
    configuration: Configuration


def main(arguments: Sequence[str] | None = None) -> None:
    given = _given(arguments)
    base = Base.load(given.base)
    try:
        methods = [method(base, name, given.rank, given.learning_rate) for name in given.methods]
    except ValueError as error:
        sys.exit(f"--methods: {error}")
    given.out.mkdir(mode=0o700, parents=True, exist_ok=True)
    histories = Histories.read(given.data, given.out / "data")
    experiment = Experiment(given.data, given.base, users=given.users, seed=given.seed)
    chosen = choose(histories, experiment, secrets.token_bytes(32)).searched
    found: list[Measurement] = []
    for place, user in enumerate(chosen):
        history = histories.load(user.user_id)
        found += measured(base, methods, history, place, user.seed, given)
        print(f"{place + 1} of {len(chosen)} users", flush=True)
    content = json.dumps([asdict(each) for each in found], indent=1)
    write_private(given.out / "history_length.json", content)
    text = table(found, given.seed)
    (given.out / "history_length.md").write_text(text, encoding="utf-8")
    for name, image in figures(found, given.seed).items():
        (given.out / f"history_length_{name}.svg").write_text(image, encoding="utf-8")
    print(text)


def method(base: Base, name: str, rank: int, learning_rate: float) -> Method:
    """A method at its fixed configuration: every layer for `milp`, the defaults of others.

    Raises:
        ValueError: there is no such method, or its users share something.
    """
    made = personalizer(name)
    if _shares(base, made):
        able = [each for each in PERSONALIZERS if not _shares(base, personalizer(each))]
        raise ValueError(
            f"expected methods that share nothing between users, got {name!r}, which learns from "
            f"other users first; give some of {', '.join(able)}"
        )
    everywhere = MemoryConfig(tuple(range(base.layer_count)), rank, learning_rate)
    return Method(name, made, everywhere if name == "milp" else default(made.space))


def _shares(base: Base, made: Personalizer) -> bool:
    """Whether a method learns something of others first: then it refuses to of nobody."""
    try:
        return made.learn(base, [], default(made.space), 0) is not None
    except ValueError:
        return True


def newest(train: Sequence[Interaction], share: float) -> tuple[Interaction, ...]:
    """The newest interactions, so large a share of all, rounded up."""
    return tuple(train[len(train) - math.ceil(share * len(train)) :])


def measured(
    base: Base,
    methods: Sequence[Method],
    history: History,
    place: int,
    seed: int,
    given: argparse.Namespace,
) -> list[Measurement]:
    """One user's memories of every method and share, and the base, on the user's test words."""
    parts = split(history)
    states: list[tuple[str, float, int, UserState | None]] = [("base", 0.0, 0, None)]
    for each in methods:
        tasks = [
            _task(each, history, newest(parts.train, share), parts.validation, share, seed, given)
            for share in SHARES
        ]
        for task, share, end in zip(
            tasks, SHARES, fit(each.personalizer, base, tasks), strict=True
        ):
            if end.error is not None:
                raise RuntimeError(f"user {place}, {each.name} on {share:.0%}: {end.error}")
            state = _moderated(base, each, end.state, parts.validation)
            states.append((each.name, share, len(task.train), state))
    items = evaluation_items(parts.test)
    persona = Persona.of(user_texts(parts.train, given.user_said), history.profile)
    scores = score(
        base,
        attach_all(base),
        [state for *_, state in states],
        [evaluation_items(items, given.items)] * len(states),
        [answer_limit(base, parts.train)] * len(states),
        [persona] * len(states),
        frame_all(base),
        [items] * len(states),
    )
    return [
        _measurement(place, name, share, read, found)
        for (name, share, read, _), found in zip(states, scores, strict=True)
    ]


def _task(
    each: Method,
    history: History,
    train: tuple[Interaction, ...],
    validation: tuple[Interaction, ...],
    share: float,
    seed: int,
    given: argparse.Namespace,
) -> Task:
    return Task(
        key=f"{each.name} {share}",
        user_id=history.user_id,
        train=train,
        validation=validation,
        configuration=each.configuration,
        seed=seed_of(seed, "history length"),
        user_said=given.user_said,
        budget=Budget(given.epochs, given.epochs, epoch_tokens=None),
        profile=history.profile,
    )


def _moderated(
    base: Base, each: Method, state: UserState | None, validation: Sequence[Interaction]
) -> UserState | None:
    """A LoRA at the strength that a winner would have; other states as they are."""
    if state is None or not isinstance(each.configuration, MemoryConfig):
        return state
    items = evaluation_items(validation)
    return moderated(base, attach_all(base), state, items, frame_all(base))[0]


def _measurement(place: int, name: str, share: float, read: int, found: Scores) -> Measurement:
    counts = found.recall.get("all")
    recall = None if counts is None else counts.hits / counts.asked
    return Measurement(place, name, share, read, found.loss_nats, found.rouge_l, recall)


def _given(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", default=["milp", "rag"])
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of each stage, at most")
    parser.add_argument("--user-said", choices=("response", "query", "both"), default="response")
    parser.add_argument("--items", type=int, default=32, help="most test items answered")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
