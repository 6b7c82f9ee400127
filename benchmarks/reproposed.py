"""Whether each stored proposal is what its sampler makes of what was known at the time.

A sampler is a pure function, and a trial is stored with what its proposal was made from. So a
search that was killed, gone on with or spread over processes can be checked afterwards, trial by
trial, with no record but the study itself.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from search.samplers import Known, Observation, Proposal, Sampler
from search.space import BASE_CONFIG
from search.storage import Trial
from search.study import Study

SAME_GAIN = 1e-6  # relative: another machine, or other threads, may round otherwise


@dataclass(frozen=True)
class Difference:
    """A stored trial, and what the sampler proposes in its place; None where that is nothing."""

    trial: Trial
    proposal: Proposal | None


def differences(study: Study, sampler: Sampler, initial: int, seed: int) -> list[Difference]:
    """Trials whose proposals do not come out the same.

    Args:
        study: a user's.
        sampler: that the proposals were made by.
        initial: configurations of its initial design.
        seed: the user's.

    Raises:
        ValueError: a trial doesn't say what its proposal was made from.
    """
    found = []
    for known, trials in groupby(study.trials[1:], key=_known):
        asked = list(trials)
        proposals = iter(_proposed(study, known, sampler, initial, len(asked), seed))
        for trial in asked:
            proposal = next(proposals, None)
            if proposal is None or not _is_same(trial, proposal):
                found.append(Difference(trial, proposal))
    return found


def _known(trial: Trial) -> Known:
    if trial.known is None:
        raise ValueError(f"expected trial {trial.number} to say what was known when it was asked")
    return trial.known


def _proposed(
    study: Study, known: Known, sampler: Sampler, initial: int, count: int, seed: int
) -> list[Proposal]:
    """What the sampler makes of these grounds."""
    trials = study.trials[: known.asked]
    told = list(_told(trials, known))
    memories = [one for one in told if one.values is not None and one.config != BASE_CONFIG]
    anchor = told[0].values if told and told[0].config == BASE_CONFIG else None
    is_settled = known.asked > initial and len(memories) >= 2 and anchor is not None
    return sampler.suggest(
        study.space,
        study.objectives,
        told,
        [trials[number].config for number in known.pending],
        count,
        seed,
        study.reference if is_settled else None,
        study.portfolio,
    )


def _told(trials: list[Trial], known: Known) -> Iterator[Observation]:
    """What had come back, in the order it was asked."""
    for trial in trials:
        if trial.number not in known.pending:
            yield Observation(trial.config, trial.values)


def _is_same(trial: Trial, proposal: Proposal) -> bool:
    if (trial.config, trial.source) != (proposal.config, proposal.source):
        return False
    if trial.gain is None or proposal.gain is None:
        return trial.gain is proposal.gain
    return math.isclose(trial.gain, proposal.gain, rel_tol=SAME_GAIN, abs_tol=SAME_GAIN)
