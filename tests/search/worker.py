"""A search of one study, to be killed and started again: `worker.py URL TRIALS SAMPLER`.

It goes on as a run does: first what was asked and not told, in order, then new proposals, two at a
time, the second told before the first. It prints what it does, so that a test can kill it anywhere.
"""

import sys

from search.samplers import make_sampler
from search.storage import Trial, open_storage
from search.study import Study
from tests.search.planted import BASE, OBJECTIVES, SPACE, planted

SEED = 7


def tell(study: Study, trial: Trial) -> None:
    """Evaluates a trial and tells it."""
    anchored = trial.number == 0
    values = BASE if anchored else planted(trial.config)
    study.tell(trial.number, values, {"item_count": 20} if anchored else {"seconds": 1.0})
    print("told", trial.number, trial.config.key, flush=True)


def search(url: str, trials: int, name: str) -> None:
    """Runs the study to its end."""
    study = Study.open(open_storage(url), "digest", SPACE, OBJECTIVES)
    study.ask_anchor(0)
    sampler = make_sampler(name, 4)
    while True:
        for trial in study.pending():
            tell(study, trial)
        missing = trials + 1 - len(study.trials)
        if missing <= 0:
            return
        reference = study.settle_reference(4)
        for proposal in sampler.suggest(
            SPACE, OBJECTIVES, study.completed(), [], min(2, missing), SEED, reference
        ):
            trial = study.ask(proposal, seed=1)
            print("asked", trial.number, trial.config.key, flush=True)
        if len(study.pending()) > 1:
            tell(study, study.pending()[1])


if __name__ == "__main__":
    search(sys.argv[1], int(sys.argv[2]), sys.argv[3])
