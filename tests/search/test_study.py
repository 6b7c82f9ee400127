"""Studies: what is asked and told is there, once; front, winner and reference point."""

import logging
import math

import optuna
import pytest
from optuna.storages import RDBStorage

from search.pareto import reference_point
from search.samplers import Known, Observation, Proposal
from search.space import BASE_CONFIG, MemoryConfig
from tests.search.begun import CONFIGS, NAME, ask, ask_one, begun, opened, told
from tests.search.planted import BASE, OBJECTIVES


def test_what_is_asked_and_told_is_there_when_opened_again(storage: RDBStorage) -> None:
    study = begun(storage)
    numbers = [ask(study, config) for config in CONFIGS[:4]]
    study.tell(numbers[2], (3.0, 0.2), {"losses": [3.5, 3.0], "seconds": 2.5})
    study.fail(numbers[0], "loss is nan")
    again = opened(storage)
    assert again.trials == study.trials
    assert [trial.number for trial in again.pending()] == [numbers[1], numbers[3]]
    assert again.completed() == [
        Observation(BASE_CONFIG, BASE),
        Observation(CONFIGS[0], None),
        Observation(CONFIGS[2], (3.0, 0.2)),
    ]
    trial = again.trials[numbers[2]]
    assert trial.measured == {"losses": [3.5, 3.0], "seconds": 2.5}
    assert (trial.seed, trial.source, trial.parameters) == (11, "sobol", 100)
    assert again.trials[numbers[0]].reason == "loss is nan"


def test_what_a_proposal_promised_is_stored_with_it(storage: RDBStorage) -> None:
    study = begun(storage)
    ask_one(study, Proposal(CONFIGS[0], "gp", 0.25), seed=1)
    ask_one(study, Proposal(CONFIGS[1], "sobol"), seed=2)
    assert [trial.gain for trial in opened(storage).trials] == [None, 0.25, None]


def test_an_ask_is_stored_before_it_is_returned(storage: RDBStorage, storage_url: str) -> None:
    study = begun(storage)
    number = ask(study, CONFIGS[0])
    seen = optuna.load_study(study_name=NAME, storage=storage_url).trials[number]
    assert seen.state == optuna.trial.TrialState.WAITING
    assert seen.user_attrs["active_layers"] == "0"


def test_the_anchor_comes_first_and_once(storage: RDBStorage) -> None:
    study = opened(storage)
    with pytest.raises(ValueError, match="the anchor of study 0123456789abcdef to be asked first"):
        ask(study, CONFIGS[0])
    anchor = study.ask_anchor(seed=1)
    assert (anchor.number, anchor.config, anchor.source) == (0, BASE_CONFIG, "anchor")
    assert study.ask_anchor(seed=2) == anchor == opened(storage).anchor
    assert len(study.trials) == 1


def test_a_configuration_is_asked_once_and_only_from_the_space(storage: RDBStorage) -> None:
    study = begun(storage)
    study.fail(ask(study, CONFIGS[0]), "out of luck")
    ask(study, CONFIGS[1])
    for config in CONFIGS[:2]:
        with pytest.raises(ValueError, match="was asked before"):
            ask(study, config)
    for config in (BASE_CONFIG, MemoryConfig((9,), 8, 1e-3)):
        with pytest.raises(ValueError, match="expected a member of the space"):
            ask(study, config)
    assert len(opened(storage).trials) == 3


def test_telling_twice_changes_nothing(
    storage: RDBStorage, caplog: pytest.LogCaptureFixture
) -> None:
    study = begun(storage)
    first, second = ask(study, CONFIGS[0]), ask(study, CONFIGS[1])
    study.tell(first, (3.0, 0.2), {"seconds": 1.0})
    study.fail(second, "not a number")
    before = study.trials
    with caplog.at_level(logging.WARNING):
        study.tell(first, (3.0, 0.2), {"seconds": 1.0})
        study.fail(second, "not a number")
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        study.tell(first, (2.0, 0.9))
        study.fail(first, "too late")
        study.tell(second, (2.0, 0.9))
    assert caplog.text.count("the first stands") == 3
    assert study.trials == before == opened(storage).trials


def test_what_another_process_told_meanwhile_stands(storage: RDBStorage) -> None:
    study = begun(storage)
    number = ask(study, CONFIGS[0])
    opened(storage).tell(number, (3.0, 0.2))
    assert study.tell(number, (9.0, 0.0)).values == (3.0, 0.2)
    assert study.pending() == []


@pytest.mark.parametrize("values", [(math.nan, 0.2), (3.0, math.inf)])
def test_values_that_are_no_numbers_make_a_failure(
    storage: RDBStorage, values: tuple[float, float]
) -> None:
    study = begun(storage)
    trial = study.tell(ask(study, CONFIGS[0]), values)
    assert (trial.state, trial.values) == ("failed", None)
    assert trial.reason in ("loss is nan, rouge_l is 0.2", "loss is 3.0, rouge_l is inf")
    with pytest.raises(ValueError, match="a value for each of loss, rouge_l"):
        study.tell(ask(study, CONFIGS[1]), (1.0,))


def test_a_stopped_trial_is_no_result_and_no_failure(storage: RDBStorage, storage_url: str) -> None:
    """However good what it had reached: it is forbidden, and wins nothing."""
    study = begun(storage)
    told(study, CONFIGS[0], (BASE[0] - 0.5, 0.3))
    number = ask(study, CONFIGS[1])
    reached = {"curve": [["tuning", 1, 8, BASE[0] - 1.0]], "steps": 8}
    study.stop(number, "dominated at tuning 1", reached)
    again = opened(storage)
    trial = again.trials[number]
    assert (trial.state, trial.values) == ("stopped", None)
    assert (trial.reason, trial.measured) == ("dominated at tuning 1", reached)
    assert again.completed()[-1] == Observation(CONFIGS[1], None)
    assert not again.completed()[-1].is_usable
    assert again.pending() == []
    assert [t.config for t in again.front()] == [CONFIGS[0]]
    assert again.winner().config == CONFIGS[0]
    with pytest.raises(ValueError, match="was asked before"):
        ask(again, CONFIGS[1])
    seen = optuna.load_study(study_name=NAME, storage=storage_url).trials[number]
    assert seen.state == optuna.trial.TrialState.PRUNED


def test_what_came_first_of_a_stop_and_an_end_stands(storage: RDBStorage) -> None:
    study = begun(storage)
    stopped, completed = ask(study, CONFIGS[0]), ask(study, CONFIGS[1])
    study.stop(stopped, "dominated")
    study.tell(completed, (3.0, 0.2))
    assert study.tell(stopped, (1.0, 0.9)).values is None
    assert study.stop(completed, "dominated").values == (3.0, 0.2)
    assert [t.state for t in opened(storage).trials] == ["completed", "stopped", "completed"]


def test_the_reference_point_is_set_once_and_never_moves(storage: RDBStorage) -> None:
    study = begun(storage)
    rows = [(3.0, 0.2), (3.5, 0.3)]
    for config, values in zip(CONFIGS, rows, strict=False):
        assert study.settle_reference(initial=2) is None
        told(study, config, values)
    found = study.settle_reference(initial=2)
    assert found == reference_point(OBJECTIVES, rows, BASE)
    told(study, CONFIGS[2], (9.0, 0.0))
    assert study.settle_reference(initial=2) == found == opened(storage).reference


def test_the_reference_point_waits_for_the_anchor_and_two_memories(storage: RDBStorage) -> None:
    study = opened(storage)
    study.ask_anchor(seed=1)
    numbers = [ask(study, config) for config in CONFIGS[:2]]
    study.tell(numbers[0], (3.0, 0.2))
    assert study.settle_reference(initial=2) is None
    study.tell(numbers[1], (3.1, 0.2))
    assert study.settle_reference(initial=2) is None
    study.tell(0, BASE)
    assert study.settle_reference(initial=3) is None
    assert study.settle_reference(initial=2) is not None


def test_a_portfolio_is_kept_once_and_never_after_a_memory_was_asked(storage: RDBStorage) -> None:
    study = opened(storage)
    study.settle_portfolio(())
    assert study.is_new
    study.settle_portfolio(CONFIGS[:3])
    study.settle_portfolio(CONFIGS[4:])
    assert study.portfolio == opened(storage).portfolio == tuple(CONFIGS[:3])
    assert not opened(storage).is_new


def test_a_study_that_has_begun_takes_no_portfolio(storage: RDBStorage) -> None:
    study = begun(storage)
    assert study.is_new
    ask(study, CONFIGS[0])
    study.settle_portfolio(CONFIGS[1:])
    assert not study.is_new
    assert study.portfolio == opened(storage).portfolio == ()


def test_front_and_winner(storage: RDBStorage) -> None:
    study = begun(storage)
    assert study.winner() == study.anchor  # nothing else has come back
    told(study, CONFIGS[0], (5.0, 0.05))  # worse than the base
    assert study.winner() == study.anchor
    big = told(study, CONFIGS[1], (3.0, 0.20), parameters=400)
    small = told(study, CONFIGS[2], (3.05, 0.205), parameters=100)
    assert [trial.number for trial in study.front()] == [big, small]
    assert study.winner().number == small
    sharp = told(study, CONFIGS[3], (3.09, 0.30), parameters=900)
    assert study.winner().number == sharp == opened(storage).winner().number


def test_with_few_items_the_lowest_loss_wins(storage: RDBStorage) -> None:
    study = begun(storage, items=7)
    low = told(study, CONFIGS[0], (3.0, 0.1))
    told(study, CONFIGS[1], (3.01, 0.9))
    assert study.winner().number == low


def test_no_winner_before_the_anchor_is_back(storage: RDBStorage) -> None:
    study = opened(storage)
    study.ask_anchor(seed=1)
    with pytest.raises(ValueError, match="expected the anchor"):
        study.winner()


def test_what_was_known_is_what_was_pending_when_it_was_requested(storage: RDBStorage) -> None:
    study = begun(storage)
    first = ask_one(study, Proposal(CONFIGS[0], "sobol"), seed=1)
    second = ask_one(study, Proposal(CONFIGS[1], "sobol"), seed=1)
    assert (first.known, second.known) == (Known(1, ()), Known(2, (1,)))
    assert study.anchor is not None
    assert study.anchor.known is None
