"""A search of one study, to be killed and started again: `worker.py URL TRIALS SAMPLER`.

Two trials are pending at a time and the later one comes back first, so that the first is slow to
the end. What it does next depends on the stored trials alone. It prints what it has done, so that a
test can kill it anywhere.
"""

import sys

from search.samplers import Sampler, SamplerSettings, make_sampler
from search.storage import Trial, open_storage
from search.study import Study
from tests.search.begun import ask_one
from tests.search.planted import BASE, OBJECTIVES, SPACE, planted

SEED = 7


def tell(study: Study, trial: Trial) -> None:
    """Evaluates a trial and tells it."""
    if trial.number:
        study.tell(trial.number, planted(trial.config), {"seconds": 1.0})
    else:
        study.tell(trial.number, BASE, {"item_count": 20})
    print("told", trial.number, trial.config.key, flush=True)


def ask(study: Study, sampler: Sampler) -> None:
    """Asks for one more trial."""
    pending = [trial.config for trial in study.pending()]
    reference = study.settle_reference(4)
    (proposal,) = sampler.suggest(SPACE, OBJECTIVES, study.completed(), pending, 1, SEED, reference)
    trial = ask_one(study, proposal, seed=1)
    print("asked", trial.number, trial.config.key, flush=True)


def search(url: str, trials: int, name: str) -> None:
    """Runs the study to its end."""
    study = Study.open(open_storage(url), "digest", SPACE, OBJECTIVES)
    if study.ask_anchor(0).state == "pending":
        tell(study, study.ask_anchor(0))
    sampler = make_sampler(SamplerSettings(name, 4))
    while study.pending() or len(study.trials) <= trials:
        if len(study.pending()) < 2 and len(study.trials) <= trials:
            ask(study, sampler)
        else:
            tell(study, study.pending()[-1])


if __name__ == "__main__":
    search(sys.argv[1], int(sys.argv[2]), sys.argv[3])
