"""The floating-point operations that a trial cannot do without, whoever does them.

Of every matrix product: two operations a weight and token. Forward through all layers, backward
(for activations alone: the base is frozen) through those above the memory's lowest and through that
one's last matrix, the memory's own products once forward and twice backward (the input of its
lowest layer has no gradient), the head for predicted tokens only. Padding, layers computed twice,
gradients nobody asks for and attention's own products (rows are short) are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from benchmarks.workload import Person, PlannedTrial, Row
from models.base import Base


@dataclass(frozen=True)
class Work:
    """Of one trial; an answer counts as many tokens as it may have."""

    training_flops: float
    answering_flops: float
    trained_tokens: int
    predicted_tokens: int
    answer_tokens: int

    @classmethod
    def of(cls, base: Base, person: Person, trial: PlannedTrial) -> Work:
        """What a trial of a person takes on a base when no stage ends early."""
        sizes = _Sizes.of(base, trial)
        learned = [row for stage in person.stages for row in [*stage.rows] * stage.epochs]
        epochs = sum(stage.epochs for stage in person.stages)
        read = [*person.validation] * epochs
        answers = len(person.prompts) * person.answer_tokens
        prompts = sum(map(len, person.prompts))
        return cls(
            sizes.training(learned) + sizes.reading(read),
            sizes.forward * (prompts + answers) + sizes.head * answers,
            *_counts(learned),
            answers,
        )


@dataclass(frozen=True)
class _Sizes:
    """Operations a token: forward, backward, the head's forward."""

    forward: float
    backward: float
    head: float

    @classmethod
    def of(cls, base: Base, trial: PlannedTrial) -> _Sizes:
        layers, lowest = [_weights(layer) for layer in base.layers], min(trial.layers)
        shapes = [shape for i in trial.layers for shape in base.matrix_shapes(i).values()]
        memory = 2.0 * trial.rank * sum(a + b for a, b in shapes)
        *first, (last_in, last_out) = base.matrix_shapes(lowest).values()
        above = sum(layers[lowest + 1 :]) + last_in * last_out
        unasked = 2.0 * trial.rank * sum(features_in for features_in, _ in first)
        head = base.model.get_output_embeddings().weight.numel()
        backward = 2.0 * above + 2 * memory - unasked
        return cls(2.0 * sum(layers) + memory, backward, 2.0 * head)

    def training(self, rows: Sequence[Row]) -> float:
        tokens, predicted = _counts(rows)
        return tokens * (self.forward + self.backward) + predicted * 2 * self.head

    def reading(self, rows: Sequence[Row]) -> float:
        tokens, predicted = _counts(rows)
        return tokens * self.forward + predicted * self.head


def _counts(rows: Sequence[Row]) -> tuple[int, int]:
    tokens = sum(len(row) for row, _ in rows)
    return tokens, tokens - sum(start for _, start in rows)


def _weights(layer: nn.Module) -> int:
    linear = [module for module in layer.modules() if isinstance(module, nn.Linear)]
    return sum(module.in_features * module.out_features for module in linear)
