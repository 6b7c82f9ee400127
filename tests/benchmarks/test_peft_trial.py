"""The baseline is the same training: PEFT's own losses and answers equal ours, trial by trial."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from benchmarks import recorded
from benchmarks.peft_trial import Clock, Loaded, answer_text, padded, rate_factor, run_trial
from benchmarks.workload import PlannedTrial, Workload
from cluster.experiment import Experiment
from cluster.subjects import Subject
from models.base import Base
from models.history import History, split
from models.milp import Milp
from models.personalizer import Budget, Finished, Task, attach, fit
from models.scoring import Scores, answer_limit, evaluation_items, score
from models.training import schedule_factor
from search.space import MemoryConfig
from tests.tiny import tiny_base, tiny_interactions, tiny_model, tiny_tokenizer

EXPERIMENT = Experiment("data", "base", items=4)
CONFIGURATIONS = (
    MemoryConfig((0, 2), 4, 1e-2),
    MemoryConfig((3,), 8, 1e-3),
    MemoryConfig((0, 1, 2, 3), 4, 3e-2),
)
SEED = 11


def subject(base: Base, user_id: str, count: int) -> Subject:
    parts = split(History(user_id, tuple(tiny_interactions(user_id, count))))
    items = evaluation_items(parts.validation, EXPERIMENT.items)
    limit = answer_limit(base, parts.train)
    return Subject(
        user_id, "", parts.train, parts.validation, items, limit, parts.by_session, count, None
    )


def ours(base: Base, users: Sequence[Subject]) -> list[tuple[Finished, Scores]]:
    """Every user's trials in one pack."""
    tasks = [
        Task(
            f"{user.user_id} {config.key}",
            *(user.user_id, user.train, user.validation, config, SEED),
            budget=Budget(EXPERIMENT.injection_epochs, EXPERIMENT.tuning_epochs),
        )
        for user in users
        for config in CONFIGURATIONS
    ]
    method = Milp()
    ends = fit(method, base, tasks)
    owners = [user for user in users for _ in CONFIGURATIONS]
    scores = score(
        base,
        attach(method, base),
        [end.state for end in ends],
        [user.items for user in owners],
        [user.answer_tokens for user in owners],
        loss_items_of=[evaluation_items(user.validation) for user in owners],
    )
    return list(zip(ends, scores, strict=True))


def by_peft(base: Base, users: Sequence[Subject], dtype: torch.dtype) -> list[dict[str, float]]:
    """The same trials, one after another on one base that is given back each time."""
    trials = [
        PlannedTrial(i, config.layers, config.rank, config.learning_rate, SEED)
        for i, _ in enumerate(users)
        for config in CONFIGURATIONS
    ]
    people = [recorded.person(base, user, EXPERIMENT) for user in users]
    workload = recorded.workload(base, "float32", people, trials)
    loaded = Loaded(tiny_model(dtype=dtype), tiny_tokenizer())
    return [run_trial(loaded, workload, trial, Clock()) for trial in workload.trials]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str
)
def test_losses_and_answers_equal_ours(dtype: torch.dtype, tolerance: float) -> None:
    base = tiny_base(dtype=dtype)
    users = [subject(base, "ann", 40), subject(base, "bob", 23)]
    found = by_peft(base, users, dtype)
    for (end, scores), theirs in zip(ours(base, users), found, strict=True):
        assert end.error is None
        assert abs(scores.loss_nats - theirs["loss_nats"]) < tolerance
        if dtype == torch.float32:
            assert end.steps == theirs["steps"]
            assert scores.rouge_l == pytest.approx(theirs["rouge_l"])
    losses = {round(theirs["loss_nats"], 4) for theirs in found}
    assert len(losses) == len(found)  # trials differ, or being equal would say nothing


def test_a_clock_holds_every_phase_of_a_trial() -> None:
    base = tiny_base()
    user = subject(base, "ann", 23)
    trial = PlannedTrial(0, (1,), 4, 1e-3, SEED)
    workload = recorded.workload(base, "float32", [recorded.person(base, user, EXPERIMENT)], [])
    clock = Clock()
    run_trial(Loaded(tiny_model(), tiny_tokenizer()), workload, trial, clock)
    assert set(clock.cpu_seconds) == {"train", "validate", "score"}
    assert clock.cpu_seconds["train"] > clock.cpu_seconds["validate"] > 0


def test_labels_begin_where_the_loss_does() -> None:
    batch = padded([((5, 6, 7), 1), ((8, 9), 0)], side="right")
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[-100, 6, 7], [8, 9, -100]]
    assert padded([((5, 6), 0), ((8,), 0)], side="left")["input_ids"].tolist() == [[5, 6], [0, 8]]


def test_the_schedule_is_ours() -> None:
    for steps in (1, 7, 20, 61):
        assert [rate_factor(i, steps) for i in range(steps + 1)] == [
            schedule_factor(i, steps) for i in range(steps + 1)
        ]


def test_an_answer_ends_before_its_end() -> None:
    tokenizer = tiny_tokenizer()
    said = tokenizer("my dog")["input_ids"]
    assert answer_text(tokenizer, [*said, 0, *said], ends=(0,)) == "my dog"
    assert answer_text(tokenizer, said, ends=(0,)) == "my dog"


def test_a_workload_is_read_as_it_was_written(tmp_path) -> None:
    base = tiny_base()
    people = [recorded.person(base, subject(base, "ann", 40), EXPERIMENT)]
    written = recorded.workload(base, "float32", people, [PlannedTrial(0, [1, 2], 4, 1e-3, 5)])
    written.save(tmp_path / "w.json")
    read = Workload.load(tmp_path / "w.json")
    read.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "w.json").read_bytes()
    assert tuple(read.trials) == tuple(written.trials)
    assert read.people[0].stages[0].epochs == people[0].stages[0].epochs
