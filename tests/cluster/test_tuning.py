"""What is tried and what was best, by hand; and the terms that all have in common."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.apart import common_reason, together_or_apart
from cluster.effort import Effort
from cluster.entrant import (
    CONTROL,
    MAIN,
    Entrant,
    configuration_of,
    entrants,
    is_searched,
    methods_of,
)
from cluster.experiment import Experiment
from cluster.terms import Terms
from cluster.tuning import Best, best_of, chosen, proposed, refusal, trial_count
from cluster.unit import Unit, Units
from cluster.users import Searched
from models.catalog import PERSONALIZERS, personalizer
from search.pareto import LOSS, ROUGE_L, reference_point
from search.samplers import SamplerSettings, initial_count, make_sampler
from search.space import MemoryConfig, SearchSpace

SPACE = SearchSpace(4, (8, 16), (1e-4, 1e-3, 1e-2))
USERS = (Searched("ann", "a", 1, True), Searched("ben", "b", 2, True))
TERMS = Terms("data", "base", (CONTROL, MAIN))


def own(loss: float | None, rouge_l: float | None = 0.1, **configuration: Any) -> dict[str, Any]:
    return {"loss_nats": loss, "rouge_l": rouge_l, "configuration": configuration}


def content(**users: dict[str, Any]) -> dict[str, Any]:
    return {"users": users, "refused": None}


def test_the_best_trial_is_the_one_of_the_lowest_loss_below_the_bases() -> None:
    bare = content(a=own(3.0), b=own(2.0), c=own(2.0))
    trials = [
        content(a=own(2.5, x=1), b=own(2.0, x=1), c=own(None, x=1)),
        content(a=own(2.4, x=2), b=own(2.1, x=2), c=own(1.9, x=2)),
        content(a=own(2.4, x=3), b=own(None, x=3)),
    ]
    assert best_of(bare, trials) == {"a": Best(1, {"x": 2}), "b": None, "c": Best(1, {"x": 2})}


def test_users_who_share_a_part_share_the_trial_that_is_best_on_average(tmp_path: Path) -> None:
    units, pplug = Units(tmp_path), Entrant("pplug", "pplug", 3)
    units.write(Unit("bare"), content(a=own(3.0), b=own(2.0), c=own(2.0)))
    trials = [
        content(a=own(2.0, x=1), b=own(2.5, x=1), c=own(1.9, x=1)),  # mean 1.97: b has the base
        content(a=own(2.9, x=2), b=own(1.0, x=2), c=own(1.8, x=2)),  # mean 1.90
        content(a=own(1.0, x=3), b=own(None, x=3), c=own(2.1, x=3)),  # mean 1.67
    ]
    for number, trial in enumerate(trials):
        units.write(Unit("trial", "pplug", number), trial)
    each = {"a": Best(2, {"x": 3}), "b": Best(1, {"x": 2}), "c": Best(1, {"x": 2})}
    assert chosen(units, pplug) == each
    units.write(Unit("shared", "pplug", 0, "{}"), {})
    assert chosen(units, pplug) == {"a": Best(2, {"x": 3}), "b": None, "c": None}


def test_an_entrant_is_refused_only_where_nothing_of_it_worked() -> None:
    worked = content(a=own(2.0))
    failed = {**content(a=own(None)), "refused": "too small a base"}
    assert refusal([worked, failed]) is None
    assert refusal([failed, failed]) == "too small a base"
    assert refusal([content(a=own(None))]) == "no training of any user ended well"


def test_proposals_go_on_from_what_was_told_and_differ_between_users() -> None:
    milp, method = Entrant(MAIN, MAIN, 4), personalizer(MAIN)
    bare = content(a=own(3.0), b=own(3.0))
    trials: list[dict[str, Any]] = []
    for number in range(4):
        found = proposed(milp, method, number, SPACE, USERS, bare, trials, 0)
        assert found == proposed(milp, method, number, SPACE, USERS, bare, trials, 0)
        trials.append(
            content(
                **{
                    digest: {**own(2.0 + 0.1 * number, 0.1 * number), "configuration": c.to_json()}
                    for digest, c in found.items()
                }
            )
        )
    tried = {
        user: [MemoryConfig.from_json(t["users"][user]["configuration"]) for t in trials]
        for user in ("a", "b")
    }
    assert all(len(set(configs)) == 4 for configs in tried.values())
    assert all(config in SPACE for configs in tried.values() for config in configs)
    assert tried["a"] != tried["b"]


def test_proposals_are_those_of_a_search_with_the_reference_of_its_design() -> None:
    milp, method = Entrant(MAIN, MAIN, 6), personalizer(MAIN)
    initial = initial_count(6)
    configs = [MemoryConfig((n % 4,), (8, 16)[n % 2], 1e-3) for n in range(4)]
    losses = [(2.5, 0.1), (2.2, 0.3), (2.8, 0.2), (1.0, 0.9)]
    trials = [
        content(a={**own(*values), "configuration": config.to_json()})
        for config, values in zip(configs, losses, strict=True)
    ]
    bare = content(a=own(3.0, 0.05))
    found = proposed(milp, method, 4, SPACE, USERS[:1], bare, trials, 0)["a"]
    from cluster.tuning import _observation
    from search.space import BASE_CONFIG

    completed = [
        _observation(BASE_CONFIG, bare["users"]["a"]),
        *(_observation(c, t["users"]["a"]) for c, t in zip(configs, trials, strict=True)),
    ]
    reference = reference_point((LOSS, ROUGE_L), losses[:initial], (3.0, 0.05))
    sampler = make_sampler(SamplerSettings("gp", initial))
    expected = sampler.suggest(SPACE, (LOSS, ROUGE_L), completed, [], 1, 1, reference=reference)
    assert found == expected[0].config


def test_a_failed_trial_is_not_tried_again() -> None:
    milp, method = Entrant(MAIN, MAIN, 4), personalizer(MAIN)
    bare = content(a=own(3.0))
    first = proposed(milp, method, 0, SPACE, USERS[:1], bare, [], 0)["a"]
    failed = [content(a={**own(None, None), "configuration": first.to_json()})]
    assert proposed(milp, method, 1, SPACE, USERS[:1], bare, failed, 0)["a"] != first


def test_only_the_main_method_is_searched_in_layers() -> None:
    assert is_searched(personalizer(MAIN))
    assert not is_searched(personalizer(CONTROL))
    assert trial_count(Entrant(MAIN, MAIN, 8)) == 8
    assert trial_count(Entrant(CONTROL, CONTROL, 8)) == 1
    configuration = MemoryConfig((0, 2), 8, 1e-3)
    assert configuration_of(personalizer(MAIN), configuration.to_json()) == configuration


def test_methods_are_named_or_all_and_the_control_is_always_there() -> None:
    assert methods_of("milp") == (CONTROL, MAIN)
    assert methods_of("milp, none,milp") == (CONTROL, MAIN)
    assert set(methods_of("all")) == set(PERSONALIZERS)
    assert methods_of("all")[0] == CONTROL
    with pytest.raises(ValueError, match=r"--methods: expected one of .*milp.*; got 'magic'"):
        methods_of("milp,magic")
    with pytest.raises(ValueError, match="--methods: expected all, or names"):
        methods_of(" , ")


def test_the_main_method_may_have_a_row_at_a_searchs_budget() -> None:
    rows = entrants(replace(TERMS, default_budget=True))
    usual = Experiment("data", "base").trials
    assert rows[-1] == Entrant(f"{MAIN}, {usual} trials", MAIN, usual)
    assert [row.label for row in entrants(TERMS)] == [CONTROL, MAIN]
    with pytest.raises(ValueError, match="--default-budget: expected milp among --methods"):
        entrants(replace(TERMS, methods=(CONTROL,), default_budget=True))


@pytest.mark.parametrize("name", ["users", "seeds", "trials", "items", "min_items"])
def test_numbers_out_of_range_are_refused_by_their_flag(name: str) -> None:
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')}: expected at least 1, got 0"):
        replace(TERMS, **{name: 0})


def test_terms_name_what_differs() -> None:
    other = replace(TERMS, trials=9)
    assert other.differences(TERMS.to_json()) == ["--trials: the folder has 8, got 9"]
    assert other.differences(Experiment("data", "base").to_json())  # a search's folder


def test_every_trial_is_in_one_line_and_searched_ones_are_in_order() -> None:
    rows = entrants(replace(TERMS, trials=3))
    effort = Effort.of(replace(TERMS, trials=3), rows)
    lines = [*effort.first_trials(), *effort.other_trials()]
    found = [unit for line in lines for unit in line]
    assert len(found) == len(set(found)) == 1 + 3
    assert [Unit("trial", MAIN, 1), Unit("trial", MAIN, 2)] in lines


def test_an_estimate_is_given_once_every_entrant_has_a_trial() -> None:
    rows = entrants(replace(TERMS, trials=3, seeds=2))
    effort = Effort.of(replace(TERMS, trials=3, seeds=2), rows)
    assert effort.told(Unit("bare"), {"cpu_seconds": 9.0}) is None
    assert effort.told(Unit("trial", CONTROL), {"cpu_seconds": 1.0}) is None
    said = effort.told(Unit("trial", MAIN), {"cpu_seconds": 10.0})
    assert said is not None
    assert "53 s" in said  # 1 x (1 + 2) + 10 x (3 + 2)
    assert effort.told(Unit("trial", MAIN), {"cpu_seconds": 10.0}) is None


def test_one_users_error_is_that_users_alone() -> None:
    calls: list[list[int]] = []

    def work(items: Any) -> list[int]:
        calls.append(list(items))
        if 2 in items:
            raise ValueError("two")
        return [10 * item for item in items]

    assert together_or_apart(work, [1, 3]) == [10, 30]
    first, second, third = together_or_apart(work, [1, 2, 3])
    assert (first, third) == (10, 30)
    assert isinstance(second, ValueError)
    assert calls == [[1, 3], [1, 2, 3], [1], [2], [3]]
    assert together_or_apart(work, []) == []


def test_a_reason_is_told_only_where_all_say_the_same() -> None:
    assert common_reason([ValueError("no room"), ValueError("no room")]) == "no room"
    assert common_reason([ValueError("ann's"), ValueError("ben's")]) is None
    assert common_reason([ValueError("ann's")]) is None
