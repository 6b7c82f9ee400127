"""The contract that every sampler keeps, and what the sequences are."""

import importlib.util
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from search.design import DEFAULT
from search.pareto import LOSS
from search.samplers import (
    PORTFOLIO,
    SAMPLERS,
    SEQUENCES,
    SURROGATES,
    Observation,
    Proposal,
    Sampler,
    SamplerSettings,
    initial_count,
    make_sampler,
)
from search.space import BASE_CONFIG, MemoryConfig, SearchSpace
from tests.search.planted import BASE, OBJECTIVES, SPACE, observed

INITIAL = 4
SMALL = SearchSpace(3, (8, 16), (1e-3,), search_layers=False)  # six configurations
ONE = SearchSpace(1, (8,), (1e-3,))  # a single one
GENERATOR = np.random.default_rng(0)
CONFIGS = list(dict.fromkeys(SPACE.sample(GENERATOR) for _ in range(12)))
COMPLETED = observed(CONFIGS[:8])
PENDING = CONFIGS[8:11]


@pytest.fixture(params=SAMPLERS)
def sampler(request: pytest.FixtureRequest) -> Sampler:
    return make_sampler(SamplerSettings(request.param, INITIAL))


def suggest(
    sampler: Sampler,
    completed: Sequence[Observation] = COMPLETED,
    pending: Sequence[MemoryConfig] = PENDING,
    count: int = 1,
    space: SearchSpace = SPACE,
    seed: int = 5,
) -> list[MemoryConfig]:
    proposals = sampler.suggest(space, OBJECTIVES, completed, pending, count, seed, BASE)
    assert all(isinstance(proposal, Proposal) for proposal in proposals)
    return [proposal.config for proposal in proposals]


def test_the_same_arguments_give_the_same_answer(sampler: Sampler) -> None:
    first = suggest(sampler)
    suggest(sampler, completed=COMPLETED[:6], seed=9)  # nothing of this call is remembered
    np.random.seed(3)
    assert suggest(sampler) == first
    assert suggest(make_sampler(SamplerSettings(sampler.name, INITIAL))) == first


def test_another_seed_gives_another_design(sampler: Sampler) -> None:
    designs = [suggest(sampler, [], [], count=INITIAL, seed=seed) for seed in range(3)]
    assert len({tuple(design) for design in designs}) == 3


def test_asking_at_once_equals_asking_one_by_one(sampler: Sampler) -> None:
    """Across the end of the initial design too: it lasts for four more configurations."""
    late = make_sampler(SamplerSettings(sampler.name, len(COMPLETED) + 2))
    at_once = suggest(late, pending=[], count=4)
    one_by_one: list[MemoryConfig] = []
    for _ in range(4):
        one_by_one += suggest(late, pending=one_by_one)
    assert at_once == one_by_one


def test_nothing_is_proposed_twice(sampler: Sampler) -> None:
    """Not what came back, failed or is pending, nor two alike in one answer, nor the base."""
    failed = [Observation(config, None) for config in suggest(sampler, count=2)]
    completed = [Observation(BASE_CONFIG, BASE), *COMPLETED, *failed]
    taken = {observation.config for observation in completed} | {*PENDING}
    found = suggest(sampler, completed, count=2)
    assert len({*found}) == 2
    assert not taken & {*found}
    assert all(config in SPACE for config in found)


@pytest.mark.parametrize("values", [(math.nan, 0.1), (3.0, math.inf)])
def test_a_failed_trial_teaches_nothing_but_to_keep_away(
    sampler: Sampler, values: tuple[float, float]
) -> None:
    """Whatever came back with it: the next proposal is the same, and another."""
    failed = suggest(sampler, pending=[])[0]
    plain = suggest(sampler, [*COMPLETED, Observation(failed, None)], [])
    found = suggest(sampler, [*COMPLETED, Observation(failed, values)], [])
    assert found == plain != [failed]


@pytest.mark.parametrize(
    "values",
    [lambda _: (3.0, 0.0), lambda i: (3.0 + i / 10, 0.0), lambda i: (1e6 * (i == 0) + 3, 0.1)],
    ids=["both constant", "one constant", "one diverged"],
)
def test_odd_objectives_are_survived(
    sampler: Sampler, values: Callable[[int], tuple[float, float]]
) -> None:
    completed = [Observation(o.config, values(i)) for i, o in enumerate(COMPLETED)]
    assert len(suggest(sampler, completed)) == 1


def test_every_trial_worse_than_the_base_is_survived(sampler: Sampler) -> None:
    completed = [Observation(o.config, (5.0 + i, 0.01)) for i, o in enumerate(COMPLETED)]
    assert len(suggest(sampler, completed)) == 1


def test_the_answer_is_shorter_when_the_space_runs_out(sampler: Sampler) -> None:
    every = list(SMALL.enumerate())
    found = suggest(sampler, observed(every[:4]), pending=[], count=5, space=SMALL)
    assert {*found} == {*every[4:]}
    assert len(found) == 2
    assert suggest(sampler, observed(every), pending=[], space=SMALL) == []
    assert suggest(sampler, observed(every[:3]), pending=every[3:], space=SMALL) == []
    assert suggest(sampler, count=0) == []


def test_a_whole_small_space_is_walked_once(sampler: Sampler) -> None:
    done: list[Observation] = []
    while found := suggest(sampler, done, [], space=SMALL):
        done += observed(found)
    assert sorted(o.config for o in done) == sorted(SMALL.enumerate())


@pytest.mark.parametrize("layers", [True, False])
@pytest.mark.parametrize("number", [True, False])
def test_ablated_spaces_are_searched(sampler: Sampler, layers: bool, number: bool) -> None:
    space = SearchSpace(8, (8, 16), (1e-4, 1e-3), 4, search_layers=layers, search_number=number)
    every = list(space.enumerate())[:3]
    found = suggest(sampler, observed(every), [], space=space)
    assert found[0] in space
    assert found[0] not in every


def test_the_source_says_who_proposed(sampler: Sampler) -> None:
    early = sampler.suggest(SPACE, OBJECTIVES, [], [], 1, 0)
    later = sampler.suggest(SPACE, OBJECTIVES, COMPLETED, [], 1, 0)
    assert early[0].source == (sampler.name if sampler.name in SEQUENCES else DEFAULT)
    assert later[0].source == sampler.name


def test_a_portfolio_is_tried_first_and_the_design_after_it(sampler: Sampler) -> None:
    portfolio = CONFIGS[:3]
    anchor = [Observation(BASE_CONFIG, BASE)]

    def proposed(
        completed: Sequence[Observation], pending: Sequence[MemoryConfig]
    ) -> list[Proposal]:
        given = (SPACE, OBJECTIVES, completed, pending, INITIAL, 5, BASE, portfolio)
        return sampler.suggest(*given)

    found = proposed(anchor, [])
    assert [p.config for p in found[:3]] == portfolio
    plain = suggest(sampler, anchor, [], count=1)
    assert [(p.config, p.source == PORTFOLIO) for p in found[2:]] == [
        (portfolio[2], True),
        (plain[0], False),
    ]
    failed = [*anchor, Observation(portfolio[0], None)]
    assert [p.config for p in proposed(failed, portfolio[1:2])[:2]] == [portfolio[2], plain[0]]


def test_a_space_of_one_configuration_is_searched_in_one_trial(sampler: Sampler) -> None:
    assert suggest(sampler, [], [], count=3, space=ONE) == list(ONE.enumerate())
    assert suggest(sampler, observed(list(ONE.enumerate())), [], space=ONE) == []


def test_the_initial_points_are_drawn_as_wanted() -> None:
    for name in (*SURROGATES, "tpe"):
        sampler = make_sampler(SamplerSettings(name, INITIAL, design="random"))
        drawn = make_sampler(SamplerSettings("random", 0)).suggest(
            SPACE, OBJECTIVES, [], [], INITIAL, 3
        )
        assert sampler.suggest(SPACE, OBJECTIVES, [], [], INITIAL, 3) == drawn


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"map-saas, gp, saas, tpe.*, random, got 'cmaes'"):
        make_sampler(SamplerSettings("cmaes", 4))


def test_a_missing_package_is_named_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "numpyro" else there(name)
    )
    with pytest.raises(ValueError, match=r"saas needs numpyro.*pip install 'milpa\[nuts\]'"):
        make_sampler(SamplerSettings("saas", 4))
    make_sampler(SamplerSettings("map-saas", 4))


@pytest.mark.parametrize("name", SURROGATES)
def test_one_objective_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match="two objectives or more"):
        make_sampler(SamplerSettings(name, 4)).suggest(SPACE, (LOSS,), [], [], 1, 0)


def test_the_initial_design_is_twelve_or_half() -> None:
    assert [initial_count(trials) for trials in (1, 8, 24, 200)] == [0, 4, 12, 12]
