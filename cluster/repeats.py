"""Winners and runners-up trained again with other seeds: what is to be done, and where it is kept.

They train on packers as trials do, but no sampler hears of them. It starts nothing itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.experiment import seed_of
from cluster.trial import task_name
from search.certainty import note_of, wanted
from search.space import MemoryConfig
from search.storage import Trial
from search.study import Study


@dataclass(frozen=True)
class Repeat:
    """One more training of a user's trial."""

    digest: str
    trial: Trial
    repeat: int  # from 1
    seed: int

    @property
    def configuration(self) -> MemoryConfig:
        """What is trained."""
        return self.trial.config

    @property
    def name(self) -> str:
        """Its task's."""
        return task_name(self.digest, repeat_key(self.configuration, self.repeat))


def repeats_of(study: Study, count: int, seed: int) -> list[Repeat]:
    """What is still to be trained of a user whose trials have all ended.

    Args:
        study: the user's.
        count: how often winner and runner-up are trained again.
        seed: the user's; a repeat's is of it, the configuration and the repeat's number.
    """
    if not count or study.anchor is None or study.anchor.values is None:
        return []
    return [
        Repeat(study.name, trial, repeat, seed_of(seed, trial.config.key, repeat))
        for trial, repeat in wanted(study, count)
    ]


def keep(study: Study, repeat: Repeat, event: Mapping[str, Any]) -> None:
    """Notes how a repeat ended: its values, or none where it failed."""
    values = [event.get("loss_nats"), event.get("rouge_l")]
    is_whole = "error" not in event and all(v is not None and math.isfinite(v) for v in values)
    study.note(note_of(repeat.trial, repeat.repeat), values if is_whole else [])


def repeat_key(configuration: MemoryConfig, repeat: int) -> str:
    """What a task is called by: a trial by its configuration, a repeat by its number too."""
    return f"repeat-{repeat}-{configuration.key}" if repeat else configuration.key
