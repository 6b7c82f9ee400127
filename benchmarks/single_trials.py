"""The same trials by PEFT and transformers, one after another on a base that stays loaded.

What each one does is `peft_trial.py`'s: a baseline that loads its base once and starts no process,
so all it lacks is company.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.device import Stopwatch
from benchmarks.packed_trials import Trials, peak_of
from benchmarks.peft_trial import Clock, answers, mean_rouge_l, train, with_lora
from benchmarks.workload import PlannedTrial, Workload
from models.base import Base
from search.space import MemoryConfig


def single(base: Base, workload: Workload, trials: Sequence[PlannedTrial], patience: int) -> Trials:
    """Runs the trials; `patience` is in epochs."""
    found = Trials(1, Stopwatch(base.device))
    with peak_of(base, found):
        for trial in trials:
            _run(base, workload, trial, patience, found)
    return found


def _run(base: Base, workload: Workload, trial: PlannedTrial, patience: int, found: Trials) -> None:
    person = workload.people[trial.person]
    with found.watch.phase("train"):
        model = with_lora(base.model, trial, workload.matrices)
        loss, steps = train(model, person, trial, Clock(), patience)
    with found.watch.phase("score"):
        texts = answers(model, base.tokenizer, person, workload.ends)
        mean_rouge_l(person.references, texts)
        model.unload()
    found.losses.append(loss)
    found.steps.append(steps)
    config = MemoryConfig(tuple(trial.layers), trial.rank, trial.learning_rate)
    found.together += [(config,)] * steps
