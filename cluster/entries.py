"""Tune's own record of each trial, made for what a search needs of Tune and no more.

Of a trial Tune keeps running statistics of every number in every result, looks its class up in the
cluster, asks its actor for its address, makes a folder, and writes it all into snapshots of the
whole experiment. That is half of what Tune spends on a trial. Here the study is the truth and a
trial's place is in its result, so none of it is needed.

It holds no trial back and knows no study: what comes next is the searcher's to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.search import ConcurrencyLimiter, Searcher, SearchGenerator
from ray.tune.trainable import Trainable

_NO_SNAPSHOT = ("{}", "{}")  # of a trial, and of what is known of its run


class Entry(Trial):  # type: ignore[misc]  # Ray is untyped here
    """One trial as Tune's controller holds it."""

    def __init__(
        self,
        trainable: type[Trainable],
        trial_id: str,
        config: Mapping[str, Any],
        experiment: Mapping[str, Any],
    ) -> None:
        """A trial that waits.

        Args:
            trainable: what runs it.
            trial_id: Tune's.
            config: what the trainable is given.
            experiment: as Tune describes it to a search algorithm.
        """
        self._trainable = trainable
        super().__init__(
            experiment["run"],
            config=dict(config),
            trial_id=trial_id,
            storage=experiment["storage"],
            checkpoint_config=experiment["checkpoint_config"],
            trial_name_creator=_id_of,
            trial_dirname_creator=_id_of,
            stub=True,  # its class is not looked up
        )

    def get_trainable_cls(self) -> type[Trainable]:
        """What runs it."""
        return self._trainable

    def get_json_state(self) -> tuple[str, str]:
        """Nothing: no run is ever gone on with from what Tune keeps."""
        return _NO_SNAPSHOT

    def set_ray_actor(self, ray_actor: Any) -> None:
        """Which actor runs it; where that is, each result says."""
        self.temporary_state.ray_actor = ray_actor

    def update_last_result(self, result: dict[str, Any]) -> None:
        """Keeps the last result alone."""
        self.run_metadata.last_result = result

    def init_local_path(self) -> None:
        """Names a folder, which is made where there is something to be written."""
        self.relative_logdir = self.storage.trial_dir_name = self.trial_id

    def handle_error(self, exc: Any = None) -> None:
        """Counts a failure, and writes it into the trial's folder."""
        Path(str(self.local_path)).mkdir(parents=True, exist_ok=True)
        super().handle_error(exc)


class Entries(SearchGenerator):  # type: ignore[misc]  # Ray is untyped here
    """Makes an entry of whatever a searcher suggests, so many at a time."""

    def __init__(self, searcher: Searcher, trainable: type[Trainable], most: int) -> None:
        """Entries of a searcher's trials.

        Args:
            searcher: says what comes next.
            trainable: what runs it.
            most: trials that run or wait for an actor.
        """
        super().__init__(ConcurrencyLimiter(searcher, max_concurrent=most))
        self._trainable = trainable

    def create_trial_if_possible(self, experiment_spec: Mapping[str, Any]) -> Entry | None:
        """The next trial, if there is one."""
        trial_id = Trial.generate_id()
        config = self.searcher.suggest(trial_id)
        if config is None:
            return None
        if config == Searcher.FINISHED:
            self._finished = True
            return None
        self._counter += 1
        return Entry(self._trainable, trial_id, config, experiment_spec)

    def save_to_dir(self, dirpath: str, session_str: str) -> None:
        """Keeps nothing: the studies are the truth."""


def _id_of(trial: Trial) -> str:
    return str(trial.trial_id)
