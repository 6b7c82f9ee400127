"""What Tune keeps of a trial: enough to run it, to hear its result and to see why it failed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from cluster.connection import SLOT, connected
from cluster.entries import Entries
from cluster.reserved import ShardGroups

SECRET = "the-configuration"
TRIALS = 5
FAILING = 3  # by the order in which they are suggested


class Listed(Searcher):
    """Suggests so many trials, then no more; knows how many ran at once and what came of them."""

    def __init__(self) -> None:
        super().__init__()
        self.suggested: list[str] = []
        self.most = 0
        self.ends: dict[int, Mapping[str, Any] | None] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The next one."""
        if len(self.suggested) == TRIALS:
            return str(Searcher.FINISHED)
        self.suggested.append(trial_id)
        self.most = max(self.most, len(self.suggested) - len(self.ends))
        return {"number": len(self.suggested), SECRET: "x"}

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """One has ended."""
        self.ends[1 + self.suggested.index(trial_id)] = None if error else result

    def save(self, checkpoint_path: str) -> None:
        """Nothing."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class Doubles(tune.Trainable):  # type: ignore[misc]
    """Two steps; the second one gives the end, or fails."""

    def setup(self, config: Mapping[str, Any]) -> None:
        """Begins."""
        self._steps = 0

    def reset_config(self, new_config: Mapping[str, Any]) -> bool:
        """Begins anew."""
        self._steps = 0
        return True

    def step(self) -> dict[str, Any]:
        """The next one."""
        self._steps += 1
        if self._steps == 2 and self.config["number"] == FAILING:
            raise ValueError("number three")
        return {"doubled": 2 * self.config["number"], "done": self._steps == 2}


def test_trials_run_to_their_ends_and_only_a_failure_is_written_down(tmp_path: Path) -> None:
    searcher = Listed()
    with connected(None, 2, "entries", lambda _: None, float("inf")):
        trainable = tune.with_resources(Doubles, ShardGroups("one", [{"CPU": 0, SLOT: 1}]))
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=Entries(searcher, trainable, 2), num_samples=-1, reuse_actors=True
            ),
            run_config=tune.RunConfig(
                storage_path=str(tmp_path),
                name="run",
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()
    assert searcher.most == 2
    doubled = {number: end and end["doubled"] for number, end in searcher.ends.items()}
    assert doubled == {1: 2, 2: 4, FAILING: None, 4: 8, 5: 10}
    assert "number three" in next(tmp_path.rglob("error.txt")).read_text()
    (snapshot,) = tmp_path.rglob("experiment_state-*.json")
    assert json.loads(snapshot.read_text())["trial_data"] == [["{}", "{}"]] * TRIALS
    assert SECRET not in snapshot.read_text()
