"""Tune's scheduler that stops trials early: the shell of `search/stopping.py`.

Ray's own schedulers take one metric; a front has two. This one decides on the validation loss that
a trial reports at its checkpoints, against the completed trials of the same user as their study
holds them: so a search that was gone on with decides as if it had not been interrupted. A trial
that is stopped leaves its pack at once, and no answers are generated for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from cluster.trial import drop, task_name
from search.stopping import Checkpoint, Ended, StoppingRule, curve_of
from search.storage import Trial


class EarlyStopping(FIFOScheduler):  # type: ignore[misc]  # Ray is untyped here
    """First come, first served; what has diverged or promises too little is stopped."""

    def __init__(
        self,
        trials_of: Callable[[str], Sequence[Trial]],
        stop: Callable[[str, str, Mapping[str, Any]], None],
        rule: StoppingRule | None = None,
    ) -> None:
        """A scheduler over the studies of many users.

        Args:
            trials_of: a user's stored trials, by digest; values are loss, then ROUGE-L.
            stop: told the id, the reason and the last result of a trial that is stopped.
            rule: when to stop.
        """
        super().__init__()
        self._trials_of, self._stop, self._rule = trials_of, stop, rule or StoppingRule()
        self._ended: dict[int, Ended] = {}  # by the trial's id in the storage

    def __getstate__(self) -> dict[str, object]:
        """Nothing: Tune pickles its scheduler, and the studies are the truth."""
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> Any:
        """Whether the trial goes on from this checkpoint."""
        if result["done"]:
            return TrialScheduler.CONTINUE
        digest, curve = trial.config["user"], [Checkpoint(*point) for point in result["curve"]]
        reason = self.why(self._trials_of(digest), curve)
        if reason is None:
            return TrialScheduler.CONTINUE
        self._stop(trial.trial_id, reason, result)
        drop(task_name(digest, trial.config["key"]), result["packer"])
        return TrialScheduler.STOP

    def why(self, trials: Sequence[Trial], curve: Sequence[Checkpoint]) -> str | None:
        """Why to stop a memory, from its user's stored trials; None until the base is scored."""
        anchor = next((trial for trial in trials if not trial.config.layers), None)
        if anchor is None or anchor.values is None:
            return None
        ended = [self._once(t, t.values) for t in trials if t.values and t.config.layers]
        return self._rule.reason(anchor.values[0], ended, curve)

    def _once(self, trial: Trial, values: Sequence[float]) -> Ended:
        """What a completed trial teaches, read once."""
        if trial.id not in self._ended:
            self._ended[trial.id] = Ended(values[0], values[1], curve_of(trial.measured))
        return self._ended[trial.id]
