"""The figures of the packing benchmark: rates, shares of the matrix peak, ratios, bytes."""

from __future__ import annotations

import statistics

from benchmarks.packed_trials import Trials
from benchmarks.packing_setup import Setup
from models.cost import Costs
from models.milp import lora_of

Figures = dict[str, float | None]
LEAN_BYTES = 16  # of a weight of a memory: itself, gradient and two moments, in float32


def rates(setup: Setup, trials: Trials, peak: float) -> Figures:
    """What was done in an hour or second, and the share of the peak that useful products took."""
    count, seconds = len(trials.losses), trials.watch.seconds
    work = setup.work_of(count)
    training = sum(one.training_flops for one in work)
    answering = sum(one.answering_flops for one in work)
    return {
        "memories": trials.slots,
        "trials": count,
        "steps_per_trial": statistics.fmean(trials.steps),
        "mean_loss_nats": statistics.fmean(trials.losses),
        "trials_per_hour": count / trials.seconds * 3600,
        "trainings_per_hour": count / seconds["train"] * 3600,
        "scorings_per_hour": count / seconds["score"] * 3600,
        "trained_tokens_per_second": sum(one.trained_tokens for one in work) / seconds["train"],
        "answer_tokens_per_second": sum(one.answer_tokens for one in work) / seconds["score"],
        "share_of_peak": (training + answering) / trials.seconds / peak,
        "training_share_of_peak": training / seconds["train"] / peak,
        "occupancy": trials.occupancy,
    }


def times(peft: Figures, ours: Figures) -> Figures:
    """How many times PEFT's rate, and how many times the device could do at its matrix peak."""
    found: Figures = {}
    for name, rate, share in (
        ("trials", "trials_per_hour", "share_of_peak"),
        ("trainings", "trainings_per_hour", "training_share_of_peak"),
        ("scorings", "scorings_per_hour", None),
    ):
        found[f"{name}_times_peft"] = _number(ours, rate) / _number(peft, rate)
        if share is not None:
            found[f"{name}_bound"] = 1 / _number(peft, share)
    return found


def gain(default: Figures, turned: Figures) -> float:
    """How many times the trials of a pack with a switch turned the other way."""
    return _number(default, "trials_per_hour") / _number(turned, "trials_per_hour")


def held(setup: Setup, trials: Trials, costs: Costs) -> Figures:
    """Bytes at once: a GPU's count, what the cost model foretells, and what can't be less.

    `lean_bytes` are the base, the memories' weights, gradients and moments, and what the largest
    batch keeps.
    """
    weights = max(
        sum(config.parameter_count(costs.per_rank) for config in together)
        for together in trials.together
    )
    batch = _batch_bytes(setup, trials.padded_tokens, costs)
    lean = costs.base + weights * LEAN_BYTES + batch
    peak = trials.peak_bytes
    return {
        "padded_tokens": trials.padded_tokens,
        "peak_bytes": peak,
        "foretold_bytes": costs.base + weights * costs.weight + batch,
        "lean_bytes": lean,
        "peak_over_lean": None if peak is None else peak / lean,
        "bytes_per_memory": None if peak is None else (peak - costs.base - batch) / trials.slots,
    }


def _batch_bytes(setup: Setup, tokens: int, costs: Costs) -> float:
    """Of the trials' mean configuration, in a pack whose lowest layer is the first."""
    layers = statistics.fmean(costs.token_bytes(lora_of(task), 0) for task in setup.tasks)
    predicted = sum(work.predicted_tokens for work in setup.work)
    share = predicted / sum(work.trained_tokens for work in setup.work)
    return tokens * layers + costs.head_bytes(round(tokens * share))


def _number(figures: Figures, name: str) -> float:
    value = figures[name]
    assert value is not None
    return value
