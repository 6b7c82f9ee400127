"""Optuna's samplers: what they are told, and what is done where they repeat themselves."""

from collections.abc import Sequence

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from search import optuna_samplers
from search.optuna_samplers import OptunaSampler, _Coding, _told
from search.samplers import OPTUNAS, Observation, SamplerSettings, make_sampler
from search.space import BASE_CONFIG, MemoryConfig, SearchSpace
from tests.search.planted import BASE, OBJECTIVES, SPACE, observed

GENERATOR = np.random.default_rng(1)
CONFIGS = list(dict.fromkeys(SPACE.sample(GENERATOR) for _ in range(60)))


@pytest.mark.parametrize("layers", [True, False])
@pytest.mark.parametrize("number", [True, False])
def test_a_configuration_survives_being_told(layers: bool, number: bool) -> None:
    space = SearchSpace(5, (8, 16), (1e-3, 1e-2), 3, search_layers=layers, search_number=number)
    coding = _Coding(space)
    for config in space.enumerate():
        assert coding.config(coding.parameters(config)) == config


def test_it_is_told_what_came_back_what_failed_and_what_is_pending() -> None:
    completed = [
        Observation(BASE_CONFIG, BASE),
        *observed(CONFIGS[:2]),
        Observation(CONFIGS[2], None),
        Observation(CONFIGS[3], (float("nan"), 0.1)),
    ]
    told = _told(_Coding(SPACE), completed, [BASE_CONFIG, CONFIGS[4]])
    assert [trial.state for trial in told] == [
        *[TrialState.COMPLETE] * 2,
        *[TrialState.PRUNED] * 2,
        TrialState.RUNNING,
    ]
    assert [tuple(trial.values) for trial in told[:2]] == [o.values for o in completed[1:3]]
    assert [any(v > 0 for v in trial.constraints.values()) for trial in told] == [
        *[False] * 2,
        *[True] * 2,
        False,
    ]


def test_generations_are_counted_over_what_came_back() -> None:
    """As Optuna would have numbered them: NSGA-II breeds from the last whole generation."""
    size = optuna_samplers.POPULATION
    completed = observed(CONFIGS[: 2 * size + 1])
    completed.insert(3, Observation(CONFIGS[-1], None))
    finished = [t for t in _told(_Coding(SPACE), completed, []) if t.state == TrialState.COMPLETE]
    sampler = optuna.samplers.NSGAIISampler(seed=0, population_size=size)
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler)
    study.add_trials(finished)
    assert [len(sampler.get_population(study, g)) for g in range(4)] == [size, size, 1, 0]


@pytest.mark.parametrize("name", OPTUNAS)
def test_after_the_design_it_is_optuna_that_proposes(name: str) -> None:
    sampler = make_sampler(SamplerSettings(name, 4))
    found = sampler.suggest(SPACE, OBJECTIVES, observed(CONFIGS[:24]), [], 3, 0)
    assert [proposal.source for proposal in found] == [name] * 3
    drawn = make_sampler(SamplerSettings("sobol", 0)).suggest(SPACE, OBJECTIVES, [], [], 27, 0)
    assert not {p.config for p in found} & {p.config for p in drawn}


@pytest.mark.parametrize("name", ["tpe", "optuna-gp"])
def test_it_learns(name: str) -> None:
    """The learning rate that trains, and the layers that carry, are proposed most often."""
    sampler = make_sampler(SamplerSettings(name, 4))
    found = sampler.suggest(SPACE, OBJECTIVES, observed(CONFIGS), [], 6, 0)
    rates = [proposal.config.learning_rate for proposal in found]
    assert sum(rate in (1e-3, 3.16e-3) for rate in rates) >= 4


def test_tpe_learns_from_what_failed() -> None:
    """Half of the rates break every training; it avoids them more than one that wasn't told."""
    broken = [c for c in CONFIGS if c.learning_rate >= 3e-3]
    fine = observed([c for c in CONFIGS if c.learning_rate < 3e-3])

    def tries(completed: Sequence[Observation]) -> int:
        found = make_sampler(SamplerSettings("tpe", 4)).suggest(
            SPACE, OBJECTIVES, completed, [], 12, 0
        )
        return sum(proposal.config.learning_rate >= 3e-3 for proposal in found)

    assert tries([*fine, *(Observation(c, None) for c in broken)]) < tries(fine)


class _Stubborn(optuna.samplers.RandomSampler):
    """Proposes the same configuration every time."""

    asked: list[list[FrozenTrial]]

    def __init__(self) -> None:
        super().__init__(seed=0)
        self.asked = []

    def infer_relative_search_space(self, study, trial):  # type: ignore[no-untyped-def]
        self.asked.append(study.get_trials(deepcopy=False, states=[TrialState.RUNNING]))
        return _Coding(SPACE).distributions

    def sample_relative(self, study, trial, search_space):  # type: ignore[no-untyped-def]
        return _Coding(SPACE).parameters(CONFIGS[0])


def test_a_repeat_is_told_as_running_and_in_the_end_gives_way_to_a_sobol_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stubborn = _Stubborn()
    monkeypatch.setitem(optuna_samplers._MAKERS, "tpe", lambda seed: stubborn)
    found = make_sampler(SamplerSettings("tpe", 2)).suggest(
        SPACE, OBJECTIVES, observed(CONFIGS[:8]), [], 1, 0
    )
    assert [proposal.source for proposal in found] == ["sobol"]
    assert found[0].config not in CONFIGS[:8]
    # Each time one more of its own answers runs; the newest is the one being asked.
    assert [len(running) for running in stubborn.asked] == [*range(1, 9)]
    assert isinstance(make_sampler(SamplerSettings("tpe", 2)), OptunaSampler)
    unseen: list[MemoryConfig] = CONFIGS[1:8]
    again = make_sampler(SamplerSettings("tpe", 2)).suggest(
        SPACE, OBJECTIVES, observed(unseen), [], 1, 0
    )
    assert [(p.config, p.source) for p in again] == [(CONFIGS[0], "tpe")]
