"""Packed training equals training alone equals PEFT's own layers on the same rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import peft
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from models.bank import Memory
from models.base import Base
from models.cost import Costs
from models.prompt import Row
from models.trainer import Trainer
from models.training import (
    BATCH_ROWS,
    WEIGHT_DECAY,
    Checkpoint,
    Outcome,
    Run,
    Stage,
    Training,
    schedule_factor,
)
from search.space import MemoryConfig
from tests.tiny import ALL_FAMILIES, tiny_base, tiny_model


@pytest.fixture(autouse=True, params=["behind one another", "padded"])
def how_rows_lie(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything holds of rows as they lie on a CPU, and as they lie elsewhere."""
    if request.param == "padded":
        monkeypatch.setattr(Base, "longest_behind", 0)


def rows_of(seed: int, count: int) -> tuple[Row, ...]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, 40, (count,), generator=generator).tolist()
    return tuple(
        Row(tuple(torch.randint(3, 380, (n,), generator=generator).tolist()), 1 + n // 3)
        for n in lengths
    )


def training(base: Base, key: str, layers: tuple[int, ...], rank: int, rows: int) -> Training:
    seed = sum(map(ord, key))
    memory = Memory.initialise(base, MemoryConfig(layers, rank, 5e-3), seed)
    stages = (
        Stage("injection", rows_of(seed, rows), 2),
        Stage("tuning", rows_of(seed + 1, rows // 2), 3),
    )
    return Training(key, memory, stages, rows_of(seed + 2, 5), 5e-3, seed, patience_epochs=9)


def courses(base: Base) -> list[Training]:
    """Gaps between layers, unequal ranks, unequal numbers of rows and steps."""
    return [
        training(base, "a", (0, 3), 4, 20),
        training(base, "b", (1,), 6, 9),
        training(base, "c", (0, 2, 3), 4, 33),
    ]


LAYER_NORM_FAMILIES = ("gpt2", "opt", "gpt_neox", "roberta")


def run(trainer: Trainer) -> tuple[list[Checkpoint], dict[str, Outcome]]:
    checkpoints: list[Checkpoint] = []
    outcomes: dict[str, Outcome] = {}
    while trainer.running:
        reported, ended = trainer.step()
        checkpoints += reported
        outcomes.update({outcome.key: outcome for outcome in ended})
    return checkpoints, outcomes


def alone(family: str, dtype: torch.dtype) -> dict[str, Outcome]:
    outcomes = {}
    for i in range(3):
        base = tiny_base(family, dtype)
        trainer = Trainer(base, padded_tokens=10_000)
        trainer.add(courses(base)[i])
        outcomes.update(run(trainer)[1])
    return outcomes


def assert_same(first: Outcome, second: Outcome, tolerance: float) -> None:
    assert first.error is None
    assert first.steps == second.steps
    assert abs(first.loss_nats - second.loss_nats) < tolerance
    pairs = zip(first.learner.parameters(), second.learner.parameters(), strict=True)
    for a, b in pairs:
        assert_close(a, b, rtol=0, atol=tolerance)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_packed_equals_alone(family: str, dtype: torch.dtype, tolerance: float) -> None:
    base = tiny_base(family, dtype)
    trainer = Trainer(base, padded_tokens=300)
    for course in courses(base):
        trainer.add(course)
    _, packed = run(trainer)
    for key, outcome in alone(family, dtype).items():
        assert_same(packed[key], outcome, tolerance)


def peft_training(family: str, course: Training, dtype: torch.dtype) -> list[Tensor]:
    """The same course by PEFT's layers, one batch at a time, without our bank, loss or trainer."""
    model = tiny_model(family, dtype)
    config = peft.LoraConfig(
        r=course.learner.rank,
        lora_alpha=course.learner.rank,
        target_modules=list(course.learner.pairs),
        fan_in_fan_out=family == "gpt2",
    )
    wrapped = peft.get_peft_model(model, config, autocast_adapter_dtype=False).to(dtype)
    start = {f"base_model.model.{n}": t for n, t in course.learner.tensors().items()}
    peft.set_peft_model_state_dict(wrapped, start)
    wrapped.eval()
    lora = {n: p for n, p in wrapped.named_parameters() if "lora_" in n}
    order = Run(course)
    for _ in course.stages:
        assert order.begin_stage()
        stage = order.current
        optimizer = torch.optim.AdamW(
            lora.values(), lr=course.learning_rate, weight_decay=WEIGHT_DECAY
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step, steps=stage.steps: schedule_factor(step, steps)
        )
        for order.epoch in range(stage.epochs):
            order.shuffle()
            for start_row in range(0, len(stage.rows), BATCH_ROWS):
                batch = [stage.rows[i] for i in order.order[start_row : start_row + BATCH_ROWS]]
                width = max(len(row.tokens) for row in batch)
                tokens = torch.tensor([[*r.tokens, *[2] * (width - len(r.tokens))] for r in batch])
                labels = torch.tensor(
                    [
                        [-100] * r.predict_from
                        + list(r.tokens[r.predict_from :])
                        + [-100] * (width - len(r.tokens))
                        for r in batch
                    ]
                )
                logits = wrapped(input_ids=tokens).logits[:, :-1].flatten(0, 1)
                loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
    by_name = {
        n.removeprefix("base_model.model.").replace(".default", ""): p for n, p in lora.items()
    }
    return [by_name[name] for name in course.learner.tensors()]


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_equals_peft(family: str) -> None:
    """One stage whose validation never ends it early: the last weights are PEFT's last weights.

    A root-mean-square norm is computed in float32 whatever the model's precision, so a difference
    of one float64 rounding may there become one of float32.
    """
    tolerance = 1e-9 if family in LAYER_NORM_FAMILIES else 1e-6
    base = tiny_base(family, torch.float64)
    full = training(base, "a", (0, 3), 4, 20)
    stage = Stage("tuning", full.stages[0].rows, 1)
    course = Training("a", full.learner, (stage, stage), stage.rows, 5e-3, 7, patience_epochs=9)
    expected = peft_training(family, course, torch.float64)
    trainer = Trainer(base, padded_tokens=300)
    trainer.add(course)
    checkpoints, outcomes = run(trainer)
    losses = [checkpoint.loss_nats for checkpoint in checkpoints]
    assert losses == sorted(losses, reverse=True)  # so the best weights are the last
    for got, want in zip(outcomes["a"].learner.parameters(), expected, strict=True):
        assert_close(got, want, rtol=0, atol=tolerance, check_dtype=False)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_equals_peft_in_float32(family: str) -> None:
    base = tiny_base(family)
    stage = Stage("tuning", rows_of(3, 30), 1)
    memory = Memory.initialise(base, MemoryConfig((1, 2), 8, 2e-3), 3)
    course = Training("a", memory, (stage,), stage.rows, 2e-3, 7)
    expected = peft_training(family, course, torch.float32)
    trainer = Trainer(base, padded_tokens=300)
    trainer.add(course)
    run(trainer)
    for got, want in zip(memory.parameters(), expected, strict=True):
        assert_close(got, want, rtol=0, atol=1e-4)


def test_joining_and_leaving_change_no_neighbour() -> None:
    base = tiny_base(dtype=torch.float64)
    trainer = Trainer(base)
    first, second, third = courses(base)
    trainer.add(first)
    outcomes: dict[str, Outcome] = {}
    for moment in range(60):
        if moment == 3:
            trainer.add(third)
        if moment == 5:
            trainer.add(second)
        if moment == 7:
            trainer.stop("b")
        outcomes.update({outcome.key: outcome for outcome in trainer.step()[1]})
    assert trainer.running == 0
    assert set(outcomes) == {"a", "c"}
    expected = alone("llama", torch.float64)
    for key in ("a", "c"):
        assert_same(outcomes[key], expected[key], 1e-9)


@contextmanager
def memory_limit(base: Base, tokens: int) -> Iterator[list[int]]:
    """A device on which more than so many padded tokens at once run out of memory."""
    sizes: list[int] = []

    def check(_module: object, inputs: tuple[Tensor, ...]) -> None:
        sizes.append(inputs[0].shape[0] * inputs[0].shape[1])
        if sizes[-1] > tokens:
            raise torch.OutOfMemoryError(f"no room for {sizes[-1]} tokens")

    handle = base.model.model.layers[2].register_forward_pre_hook(check)
    yield sizes
    handle.remove()


def test_out_of_memory_halves_the_pack_and_changes_no_result() -> None:
    base = tiny_base(dtype=torch.float64)
    trainer = Trainer(base, padded_tokens=2000)
    for course in courses(base):
        trainer.add(course)
    with memory_limit(base, 100) as sizes:
        _, outcomes = run(trainer)
    assert max(sizes) > 100
    assert 50 <= trainer.padded_tokens <= 100
    for key, outcome in alone("llama", torch.float64).items():
        assert_same(outcomes[key], outcome, 1e-9)


def test_no_more_runs_at_once_than_the_room_holds() -> None:
    """A little room changes how a step is cut, not what it comes to."""
    base = tiny_base(dtype=torch.float64)
    costs = Costs.measure(base)
    dearest = costs.token_bytes(MemoryConfig((0, 2, 3), 4, 5e-3), lowest=0) + costs.logits
    every = courses(base)
    coming = sum(state_bytes(course) for course in every)
    trainer = Trainer(base, padded_tokens=2000, room=lambda: coming + 100.5 * dearest)
    for course in every:
        trainer.add(course)
    assert trainer.padded_tokens == 100
    _, outcomes = run(trainer)
    for key, outcome in alone("llama", torch.float64).items():
        assert_same(outcomes[key], outcome, 1e-9)


def state_bytes(course: Training) -> int:
    """Of a memory's gradient and two moments."""
    return 3 * sum(parameter.nbytes for parameter in course.learner.parameters())


def test_a_memory_waits_until_there_is_room_for_its_state() -> None:
    base = tiny_base(dtype=torch.float64)
    costs = Costs.measure(base)
    token = costs.token_bytes(MemoryConfig((0, 2, 3), 4, 5e-3), lowest=0) + costs.logits
    first, second, third = courses(base)
    longest = max(
        len(row.tokens) for c in (first, second, third) for s in c.stages for row in s.rows
    )
    states = state_bytes(first) + state_bytes(second) + state_bytes(third) / 2
    beside = states + longest * token
    trainer = Trainer(base, room=lambda: beside)
    for course in (first, second, third):
        trainer.add(course)
    assert trainer.running == 3
    with pytest.raises(ValueError, match="expected a new key, got 'c'"):
        trainer.add(third)
    assert list(trainer._runs) == ["a", "b"]
    _, outcomes = run(trainer)
    for key, outcome in alone("llama", torch.float64).items():
        assert_same(outcomes[key], outcome, 1e-9)


def test_who_finds_no_room_for_its_optimiser_begins_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a device that holds the moments of two memories alone."""
    base = tiny_base(dtype=torch.float64)
    trainer, step = Trainer(base), torch.optim.AdamW.step
    refused: list[int] = []

    def limited(self: torch.optim.AdamW) -> None:
        optimizers = [run.optimizer for run in trainer._runs.values()]
        if not self.state and sum(bool(other.state) for other in optimizers) == 2:
            refused.append(len(optimizers))
            raise torch.OutOfMemoryError("no room for moments")
        step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", limited)
    for course in courses(base):
        trainer.add(course)
    _, outcomes = run(trainer)
    assert refused[0] == 3
    monkeypatch.undo()
    for key, outcome in alone("llama", torch.float64).items():
        assert_same(outcomes[key], outcome, 1e-9)


def test_a_row_that_never_fits_fails_its_own_training_only() -> None:
    base = tiny_base(dtype=torch.float64)
    trainer = Trainer(base)
    wide = Stage("tuning", (Row(tuple(range(3, 123)), 1),), 2)
    memory = Memory.initialise(base, MemoryConfig((0,), 4, 1e-3), 0)
    for course in courses(base):
        trainer.add(course)
    trainer.add(Training("wide", memory, (wide,), wide.rows, 1e-3, 0))
    with memory_limit(base, 60):
        _, outcomes = run(trainer)
    assert outcomes["wide"].error == "out of memory with a single row of 120 tokens"
    for key, outcome in alone("llama", torch.float64).items():
        assert_same(outcomes[key], outcome, 1e-9)


def test_a_diverged_training_fails_alone() -> None:
    base = tiny_base(dtype=torch.float64)
    trainer = Trainer(base)
    broken = training(base, "broken", (0, 1), 4, 20)
    with torch.no_grad():
        broken.learner.parameters()[1].fill_(math.nan)
    trainer.add(broken)
    for course in courses(base):
        trainer.add(course)
    _, outcomes = run(trainer)
    assert "diverged" in (outcomes["broken"].error or "")
    for key, outcome in alone("llama", torch.float64).items():
        assert_same(outcomes[key], outcome, 1e-9)


def test_a_stage_stops_when_validation_worsens_and_the_best_weights_stay() -> None:
    base = tiny_base(dtype=torch.float64)
    memory = Memory.initialise(base, MemoryConfig((0, 1, 2, 3), 8, 0.05), 0)
    stage = Stage("tuning", rows_of(1, 8), 50)
    validation = rows_of(99, 6)
    trainer = Trainer(base)
    trainer.add(Training("a", memory, (stage,), validation, 0.05, 0, patience_epochs=2))
    checkpoints, outcomes = run(trainer)
    losses = [checkpoint.loss_nats for checkpoint in checkpoints]
    assert len(losses) < 50
    assert min(losses[-2:]) >= min(losses)
    assert outcomes["a"].loss_nats == min(losses)
    trainer.add(Training("b", memory, (Stage("again", stage.rows, 1),), validation, 0.0, 0))
    assert_close(run(trainer)[0][0].loss_nats, min(losses), rtol=0, atol=1e-9)


def test_refuses_a_key_twice_and_an_empty_training() -> None:
    base = tiny_base()
    trainer = Trainer(base)
    course = training(base, "a", (0,), 4, 9)
    trainer.add(course)
    with pytest.raises(ValueError, match="new key"):
        trainer.add(course)
    with pytest.raises(ValueError, match="at least one stage"):
        trainer.add(Training("b", course.learner, (), course.validation, 1e-3, 0))


def test_schedule_warms_up_and_decays_to_nothing() -> None:
    factors = [schedule_factor(step, 20) for step in range(21)]
    assert factors[:2] == [1 / 3, 2 / 3]
    assert factors[2] == 1.0
    assert factors[11] == 0.5
    assert factors[20] == 0.0
