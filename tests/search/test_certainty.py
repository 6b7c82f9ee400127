"""How sure a winner is, by hand: the trainings of two memories, and who is chosen of each pair."""

from __future__ import annotations

import pytest
from optuna.storages import RDBStorage

from search.certainty import certainty, contenders, note_of, wanted
from search.study import Study
from tests.search.begun import CONFIGS, begun, opened, told
from tests.search.planted import BASE

LOSS, ROUGE_L = BASE


@pytest.fixture
def study(storage: RDBStorage) -> Study:
    """Three memories: the first wins, the second is next to it, the third has hardly learned."""
    study = begun(storage)
    told(study, CONFIGS[0], (LOSS - 1.0, ROUGE_L + 0.20))
    told(study, CONFIGS[1], (LOSS - 0.9, ROUGE_L + 0.10))
    told(study, CONFIGS[2], (LOSS - 0.2, ROUGE_L + 0.05))
    return study


def test_the_runner_up_is_who_would_win_without_the_winner(study: Study) -> None:
    found = contenders(study)
    assert found is not None
    assert [trial.config for trial in found] == CONFIGS[:2]
    assert study.winner(without=(1, 2)).config == CONFIGS[2]


def test_each_repeat_is_wanted_until_it_is_noted(study: Study, storage: RDBStorage) -> None:
    every = wanted(study, 2)
    assert [(t.config, repeat) for t, repeat in every] == [
        (config, repeat) for config in CONFIGS[:2] for repeat in (1, 2)
    ]
    study.note(note_of(*every[0]), [LOSS - 0.8, ROUGE_L])
    study.note(note_of(*every[3]), [])  # it failed, and would fail again
    assert wanted(opened(storage), 2) == every[1:3]
    assert wanted(study, 0) == []


def test_without_repeats_nothing_is_said(study: Study) -> None:
    assert certainty(study) is None


def test_how_sure_is_the_share_of_pairs_of_repeats_in_which_the_winner_is_chosen_again(
    study: Study,
) -> None:
    """The winner's second repeat is worse than either of the runner-up's: two pairs of four."""
    best, second = (
        [note_of(trial, repeat) for trial, repeat in wanted(study, 2) if trial.config == config]
        for config in CONFIGS[:2]
    )
    study.note(best[0], [LOSS - 0.9, ROUGE_L + 0.20])
    study.note(best[1], [LOSS - 0.4, ROUGE_L + 0.10])
    study.note(second[0], [LOSS - 0.7, ROUGE_L + 0.16])
    found = certainty(study)
    assert found is not None
    assert found.again == 0.5
    assert found.runner_up.spread is None
    study.note(second[1], [LOSS - 0.8, ROUGE_L + 0.12])
    found = certainty(study)
    assert found is not None
    assert found.again == 0.5
    assert found.winner.mean == pytest.approx((LOSS - 0.65, ROUGE_L + 0.15))
    assert found.winner.spread == pytest.approx((0.5 / 2**0.5, 0.10 / 2**0.5))
    assert found.runner_up.mean == pytest.approx((LOSS - 0.75, ROUGE_L + 0.14))


def test_the_trials_luck_does_not_count(study: Study) -> None:
    (first, _), (second, _) = wanted(study, 1)
    study.note(note_of(first, 1), [LOSS - 0.8, ROUGE_L + 0.10])
    study.note(note_of(second, 1), [LOSS - 0.9, ROUGE_L + 0.20])
    found = certainty(study)
    assert found is not None
    assert found.again == 0


def test_a_pair_that_the_base_beats_is_not_won(study: Study) -> None:
    for repeat, trained in ((1, (LOSS + 0.5, 0.0)), (2, (LOSS - 1.0, ROUGE_L + 0.20))):
        study.note(note_of(wanted(study, repeat)[0][0], repeat), trained)
    second = wanted(study, 1)[0][0]
    study.note(note_of(second, 1), [LOSS + 0.1, 0.0])
    found = certainty(study)
    assert found is not None
    assert found.again == 0.5  # its second repeat against the runner-up's


def test_a_failed_repeat_is_no_training(study: Study) -> None:
    (first, _), (second, _) = wanted(study, 1)
    study.note(note_of(first, 1), [])
    study.note(note_of(second, 1), [LOSS - 0.8, ROUGE_L + 0.10])
    assert certainty(study) is None
    (again, _), *_ = wanted(study, 2)
    study.note(note_of(again, 2), [LOSS - 0.9, ROUGE_L + 0.20])
    found = certainty(study)
    assert found is not None
    assert (len(found.winner.rows), len(found.runner_up.rows)) == (1, 1)


def test_where_the_base_wins_the_best_memory_is_repeated_alone(storage: RDBStorage) -> None:
    study = begun(storage)
    told(study, CONFIGS[0], (LOSS + 0.2, ROUGE_L))
    told(study, CONFIGS[1], (LOSS + 0.1, ROUGE_L))
    assert [(t.config, repeat) for t, repeat in wanted(study, 1)] == [(CONFIGS[1], 1)]
    study.note(note_of(wanted(study, 1)[0][0], 1), [LOSS - 0.1, ROUGE_L])
    found = certainty(study)
    assert found is not None
    assert found.winner.trial == study.anchor
    assert found.winner.rows == (study.anchor.values,)
    assert found.again == 0


def test_with_no_memory_there_is_nobody_to_repeat(storage: RDBStorage) -> None:
    study = begun(storage)
    assert contenders(study) is None
    assert wanted(study, 3) == []
    assert certainty(study) is None


def test_repeats_are_no_trials(study: Study, storage: RDBStorage) -> None:
    before = study.trials
    trial, repeat = wanted(study, 1)[0]
    study.note(note_of(trial, repeat), [LOSS - 3.0, 1.0])
    again = opened(storage)
    assert again.trials == before
    assert again.winner() == trial
    assert len(again.completed()) == len(before)
