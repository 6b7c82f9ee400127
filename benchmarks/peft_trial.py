"""One trial as a user of PEFT writes it: a LoRA trained and scored by itself, nothing of Milpa.

The same course as Milpa's, so that losses must come out equal: A drawn in the same order and B
zero, the same batches, AdamW with warm-up and linear decay, validation after every epoch, a stage
ends after an epoch that is no better, the best weights are kept. All else is the libraries' own:
PEFT's layers, the model's own loss from `labels`, `generate`.

What a careful engineer does is done here too: batches padded to their longest row, evaluation
sorted by length, the fused optimiser, no gradient below the lowest LoRA (the base is frozen),
answers of all items in one batch with a key-value cache, autocast where the base is in bfloat16.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from rouge_score.rouge_scorer import RougeScorer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.workload import Person, PlannedTrial, Row, Stage, Workload
from models.words import words

BATCH_ROWS = 8
EVALUATION_ROWS = 16
ANSWER_ROWS = 32
IGNORED = -100  # a label that the model's loss leaves out


@dataclass
class Clock:
    """CPU-seconds of this process by what they went into."""

    cpu_seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What runs inside counts as this phase."""
        began = time.process_time()
        yield
        spent = time.process_time() - began
        self.cpu_seconds[name] = self.cpu_seconds.get(name, 0.0) + spent


@dataclass(frozen=True)
class Loaded:
    """A base and its tokenizer in memory."""

    model: Any
    tokenizer: Any

    @classmethod
    def of(cls, workload: Workload) -> Loaded:
        """The workload's base, on the CPU."""
        dtype = getattr(torch, workload.dtype)
        model = AutoModelForCausalLM.from_pretrained(workload.base, dtype=dtype)
        return cls(model, AutoTokenizer.from_pretrained(workload.base))


def run_trial(
    loaded: Loaded, workload: Workload, trial: PlannedTrial, clock: Clock
) -> dict[str, float]:
    """Trains one LoRA, scores it, and gives the base back as it was: loss, ROUGE-L, steps."""
    person = workload.people[trial.person]
    with clock.phase("train"):
        model = with_lora(loaded.model, trial, workload.matrices)
        loss, steps = train(model, person, trial, clock)
    with clock.phase("score"):
        texts = answers(model, loaded.tokenizer, person, workload.ends)
        rouge_l = mean_rouge_l(person.references, texts)
    model.unload()
    return {"loss_nats": loss, "rouge_l": rouge_l, "steps": steps}


def with_lora(base: Any, trial: PlannedTrial, matrices: Sequence[str]) -> Any:
    """PEFT's model around the base, its first weights drawn as Milpa draws them."""
    targets = [matrix.format(layer) for layer in trial.layers for matrix in matrices]
    config = LoraConfig(
        r=trial.rank, lora_alpha=trial.rank, target_modules=targets, task_type="CAUSAL_LM"
    )
    model = get_peft_model(base, config)
    generator = torch.Generator().manual_seed(trial.seed)
    for target in targets:
        a_RI = model.get_submodule(f"base_model.model.{target}").lora_A["default"].weight
        drawn = torch.empty(a_RI.shape, dtype=a_RI.dtype)  # on the CPU: the same on every device
        torch.nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
        restore([a_RI], [drawn])
    return model


def train(
    model: Any, person: Person, trial: PlannedTrial, clock: Clock, patience_epochs: int = 1
) -> tuple[float, int]:
    """Trains all stages and leaves the best weights in the model: their loss, and the steps."""
    weights = [p for p in model.parameters() if p.requires_grad]
    best, best_weights, steps = math.inf, copied(weights), 0
    for number, stage in enumerate(person.stages):
        stage_best, stage_weights, stale_epochs = math.inf, copied(weights), 0
        for stage_steps in epochs(model, weights, stage, number, trial):
            steps += stage_steps
            with clock.phase("validate"):
                loss = validation_loss(model, person.validation)
            improved = loss < stage_best
            if improved:
                stage_best, stage_weights = loss, copied(weights)
            if loss < best:
                best, best_weights = loss, copied(weights)
            stale_epochs = 0 if improved else stale_epochs + 1
            if stale_epochs >= patience_epochs:
                break
        restore(weights, stage_weights)
    restore(weights, best_weights)
    return best, steps


def epochs(
    model: Any, weights: Sequence[Tensor], stage: Stage, number: int, trial: PlannedTrial
) -> Iterator[int]:
    """Trains a stage, one epoch each time it is asked; gives the steps of the epoch."""
    epoch_steps = math.ceil(len(stage.rows) / BATCH_ROWS)
    optimizer = torch.optim.AdamW(weights, lr=trial.learning_rate, weight_decay=1e-4, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_factor(step, stage.epochs * epoch_steps)
    )
    for epoch in range(stage.epochs):
        model.train()
        for rows in shuffled(stage.rows, trial.seed * 1_000_003 + number * 1009 + epoch):
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss_of(model, padded(rows, "right", model.device)))
            optimizer.step()
            scheduler.step()
        yield epoch_steps


def loss_of(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean loss per token; on a base in bfloat16 LoRAs, kept in float32, are multiplied in it too.

    NOTE: autocast keeps its copies of weights until it ends: it must not last longer than a step.
    """
    low = model.get_input_embeddings().weight.dtype == torch.bfloat16
    with torch.autocast(model.device.type, torch.bfloat16, enabled=low):
        loss: Tensor = model(**batch).loss
    return loss


def rate_factor(step: int, steps: int) -> float:
    """Linear warm-up over a tenth of the steps, then linear decay to zero."""
    warm_up = math.ceil(steps * 0.1)
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    return max(0.0, (steps - step) / max(1, steps - warm_up))


def shuffled(rows: Sequence[Row], seed: int) -> Iterator[list[Row]]:
    """Batches of an epoch."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    for start in range(0, len(rows), BATCH_ROWS):
        yield [rows[i] for i in order[start : start + BATCH_ROWS]]


def padded(rows: Sequence[Row], side: str, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """A batch as the model takes it, as wide as its longest row."""
    tokens = [torch.tensor(row) for row, _ in rows]
    labels = [torch.tensor([IGNORED] * start + list(row[start:])) for row, start in rows]
    ones = [torch.ones_like(row) for row in tokens]
    batch = {
        "input_ids": pad_sequence(tokens, batch_first=True, padding_side=side),
        "attention_mask": pad_sequence(ones, batch_first=True, padding_side=side),
        "labels": pad_sequence(labels, True, IGNORED, padding_side=side),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


@torch.inference_mode()
def validation_loss(model: Any, rows: Sequence[Row]) -> float:
    """Nats per token over all rows."""
    model.eval()
    by_length = sorted(rows, key=lambda row: len(row[0]))
    nats = tokens = 0.0
    for start in range(0, len(by_length), EVALUATION_ROWS):
        batch = padded(by_length[start : start + EVALUATION_ROWS], "right", model.device)
        count = int((batch["labels"] != IGNORED).sum())
        nats += float(loss_of(model, batch)) * count
        tokens += count
    return nats / tokens


@torch.inference_mode()
def answers(model: Any, tokenizer: Any, person: Person, ends: Sequence[int]) -> list[str]:
    """Greedy answers to all prompts, in their order."""
    model.eval()
    by_length = sorted(range(len(person.prompts)), key=lambda i: len(person.prompts[i]))
    texts = [""] * len(by_length)
    for start in range(0, len(by_length), ANSWER_ROWS):
        some = by_length[start : start + ANSWER_ROWS]
        batch = padded([(person.prompts[i], 0) for i in some], "left", model.device)
        del batch["labels"]
        written = model.generate(
            **batch,
            max_new_tokens=person.answer_tokens,
            do_sample=False,
            eos_token_id=list(ends),
            pad_token_id=tokenizer.pad_token_id,
        )
        for i, tokens in zip(some, written[:, batch["input_ids"].shape[1] :], strict=True):
            texts[i] = answer_text(tokenizer, tokens.tolist(), ends)
    return texts


def answer_text(tokenizer: Any, tokens: Sequence[int], ends: Sequence[int]) -> str:
    """The words of an answer, up to the token that ended it."""
    length = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
    return str(tokenizer.decode(tokens[:length], skip_special_tokens=True)).strip()


class _Words:
    """Milpa's words for the ROUGE package: the same metric on both sides."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def mean_rouge_l(references: Sequence[str], texts: Sequence[str]) -> float:
    """Mean F-measure of ROUGE-L."""
    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    found: list[Mapping[str, Any]] = [
        scorer.score(reference, text) for reference, text in zip(references, texts, strict=True)
    ]
    return statistics.fmean(scores["rougeL"].fmeasure for scores in found)


def copied(weights: Sequence[Tensor]) -> list[Tensor]:
    """A copy of the weights as they are."""
    return [weight.detach().clone() for weight in weights]


@torch.no_grad()
def restore(weights: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Puts copied weights back."""
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)
