"""What all users share, learned once from users who are not searched and merged into the base.

Nearly all of what a memory gains over a raw base at low learning rates is format and domain, which
a stranger's memory gives as well. So that is learned once, by one LoRA on every feed-forward layer,
and merged; memories then hold what is personal. The merged model is a base of its own, with its own
fingerprint. The LoRA itself is kept too: `milpa export --onto original` needs it.

Nothing is learned from a session that a searched user's validation or test part comes from: users
of real logs share their conversations.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig

from models import peft_format, storage
from models.bank import Memory
from models.base import Base
from models.history import Histories, History, Interaction, Split
from models.loss import row_losses
from models.milp import pair_rows
from models.nothing import Nothing
from models.personalizer import attach
from models.prompt import Row
from models.trainer import Trainer
from models.training import Stage, Training
from search.space import MemoryConfig

AUTO_USERS = 16  # `auto` learns a population from at least so many users


@dataclass(frozen=True)
class PopulationSettings:
    """How the shared adaptation is trained; `interactions` bounds its cost.

    `share` of each user's interactions, the earliest, are what it may be learned from: the base
    knows more of these than it will of a new user's, so others may want some that it was not shown.
    """

    rank: int = 16
    learning_rate: float = 2e-3
    epochs: int = 2
    interactions: int = 1600
    held_out: int = 100
    seed: int = 0
    share: float = 1.0


@dataclass(frozen=True)
class Population:
    """The shared adaptation: its weights, and its gain on held-out words of the same users."""

    memory: Memory
    users: int
    interactions: int
    loss_before_nats: float
    loss_after_nats: float

    def report(self) -> dict[str, object]:
        """Everything but the weights, for the run's results."""
        return {
            "users": self.users,
            "interactions": self.interactions,
            "loss_before_nats": self.loss_before_nats,
            "loss_after_nats": self.loss_after_nats,
        }


def closed_sessions(splits: Iterable[Split]) -> set[str]:
    """Sessions that the searched users' validation and test parts come from."""
    return {
        interaction.session
        for split in splits
        for interaction in (*split.validation, *split.test)
        if interaction.session is not None
    }


def sample(
    histories: Iterable[History], closed: Set[str], settings: PopulationSettings
) -> list[Interaction]:
    """Interactions with a query from open sessions: a uniform sample over all users' (reservoir).

    Memory stays bounded however many users there are.
    """
    draw = random.Random(settings.seed)
    size = settings.interactions + settings.held_out
    kept: list[Interaction] = []
    seen = 0
    for history in histories:
        of_open = [item for item in history.interactions if item.session not in closed]
        for interaction in of_open[: int(len(of_open) * settings.share)]:
            if interaction.query is None:
                continue
            seen += 1
            if len(kept) < size:
                kept.append(interaction)
            elif (place := draw.randrange(seen)) < size:
                kept[place] = interaction
    draw.shuffle(kept)
    return kept


def learn(
    base: Base,
    interactions: Sequence[Interaction],
    settings: PopulationSettings,
    progress: Callable[[int, int], None] = lambda done, steps: None,
) -> Population:
    """Train the shared adaptation on sampled interactions.

    Args:
        base: the original base; it is not changed.
        interactions: as `sample` gives them; the last ones are held out.
        settings: how to train.
        progress: told (steps done, steps in all) after each optimiser step.

    Raises:
        ValueError: too few interactions to learn from, or a base too narrow for the rank.
    """
    if 2 * settings.rank > base.smallest_dimension:
        raise ValueError(
            f"expected a base whose feed-forward matrices are {2 * settings.rank} or more wide, to "
            f"learn a population of rank {settings.rank}, got {base.smallest_dimension}; use "
            "--population off"
        )
    held_out = min(settings.held_out, len(interactions) // 10)
    if held_out < 1:
        raise ValueError(
            f"expected at least 10 interactions of other users in open sessions to learn the "
            f"population from, got {len(interactions)}; use --population off"
        )
    learned, validation = interactions[:-held_out], interactions[-held_out:]
    configuration = MemoryConfig(
        tuple(range(base.layer_count)), settings.rank, settings.learning_rate
    )
    memory = Memory.initialise(base, configuration, settings.seed)
    stage = Stage("population", pair_rows(base, learned), settings.epochs)
    rows = pair_rows(base, validation)
    trainer = Trainer(base)
    trainer.add(
        Training(
            key="population",
            learner=memory,
            stages=(stage,),
            validation=rows,
            learning_rate=settings.learning_rate,
            seed=settings.seed,
            patience_epochs=settings.epochs,
        )
    )
    before = _mean_loss(base, rows)
    outcome = None
    for done in range(stage.steps):
        ended = trainer.step()[1]
        progress(done + 1, stage.steps)
        outcome = ended[0] if ended else outcome
        if outcome is not None and outcome.error:
            break
    if outcome is None or outcome.error:
        raise ValueError(f"expected the population to train, got: {outcome and outcome.error}")
    users = len({interaction.user_id for interaction in learned})
    return Population(memory, users, len(learned), before, outcome.loss_nats)


def _mean_loss(base: Base, rows: Sequence[Row]) -> float:
    losses = row_losses(base, rows, [None] * len(rows), attach(Nothing(), base))
    return sum(nll for nll, _ in losses) / sum(count for _, count in losses)


@torch.no_grad()
def merge(base: Base, memory: Memory) -> None:
    """Add a memory to the base's own weights, in place: W + B A."""
    modules = {name: module for layer in base.feed_forward for name, module in layer.items()}
    for name, (a_RI, b_OR) in memory.pairs.items():
        weight = modules[name].weight
        product_OI = b_OR @ a_RI
        update = product_OI.T if base.fan_in_fan_out else product_OI
        weight += update.to(weight.dtype)  # type: ignore[operator, arg-type]


def prepare(
    source: str,
    histories: Histories,
    searched: Collection[str],
    closed: Set[str],
    folder: Path,
    settings: PopulationSettings,
    progress: Callable[[int, int], None],
    dtype: str = "auto",
) -> Mapping[str, object]:
    """Learn a run's population and write its base; returns the population's report.

    Written are `folder/population` (the adapter in PEFT's format), `folder/base` (the merged base)
    and, when all of it stands, `folder/population/report.json`.

    Args:
        source: path or hub name of the original base.
        histories: the population's; users of `searched` among them are left out.
        searched: ids of the searched users.
        closed: sessions that nothing is learned from, see `closed_sessions`.
        folder: the run's.
        settings: how to train.
        progress: told (steps done, steps in all).
        dtype: of the base while it is trained on, as for `Base.load`.

    Raises:
        ValueError: too few interactions in open sessions.
    """
    others = (histories.load(user) for user in histories.user_ids if user not in searched)
    interactions = sample(others, closed, settings)
    base = Base.load(source, dtype=dtype)
    population = learn(base, interactions, settings, progress)
    kept = folder / "population"
    storage.make_private(kept)
    adapter = peft_format.encode(population.memory.tensors(), source, base.fan_in_fan_out)
    for name, content in adapter.items():
        storage.write_file(kept / name, content)
    _write_merged(source, population.memory, folder / "base")
    report = population.report()
    storage.write_file(kept / "report.json", storage.to_json(report))
    return report


def _write_merged(source: str, memory: Memory, folder: Path) -> None:
    """The original base with the memory merged in, in the precision it is stored in."""
    base = Base.load(source, device="cpu", dtype="float32")
    stored = AutoConfig.from_pretrained(source).dtype or torch.float32
    merge(base, Memory(memory.rank, {n: (a.cpu(), b.cpu()) for n, (a, b) in memory.pairs.items()}))
    aside = folder.with_name(f".{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    storage.make_private(aside)
    base.model.to(stored).save_pretrained(aside)
    base.tokenizer.save_pretrained(aside)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
