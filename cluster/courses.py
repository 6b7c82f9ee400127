"""The course of one user's search, as the page draws it: where each trial landed, and what for.

It reads studies and changes nothing in them. Whatever else a study holds as objectives, the page
draws loss against ROUGE-L, so front and hypervolume are of those two. The base is the first trial:
it stands in the course, but is not on the front, since nothing had to be searched for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.results import UserResult
from search.census import study_names
from search.certainty import Certainty, certainty
from search.pareto import LOSS, ROUGE_L, front, hypervolume_trace, reference_point
from search.samplers import PORTFOLIO
from search.space import MemoryConfig
from search.storage import open_storage
from search.study import Study

Point = tuple[float, float]  # validation loss in nats per token, ROUGE-L in [0, 1]
_DRAWN = (LOSS, ROUGE_L)


@dataclass(frozen=True)
class Trial:
    """One completed trial: where it landed, and whether any other is better in both."""

    configuration: MemoryConfig
    at: Point
    on_front: bool


@dataclass(frozen=True)
class Course:
    """One user's completed trials in the order they were asked, and what they came to.

    `hypervolume[i]` is what the first i + 1 trials dominate beyond the reference point; that is the
    search's own, or, where a short search never set one, that of all its trials (`is_late`); None
    where there is none to set it from. `published` is where the winner stands after its training
    at full budget. `certainty` is of the trial that won, where it was trained again.
    """

    trials: tuple[Trial, ...]
    winner: MemoryConfig
    published: Point
    reference: Point | None
    hypervolume: tuple[float, ...] | None
    failed: int = 0
    advised: int = 0  # proposed since they were best for other users
    stopped: int = 0
    certainty: Certainty | None = None
    is_late: bool = False


def courses(address: str, users: Sequence[UserResult]) -> dict[str, Course]:
    """The courses of some users by digest; those without a study are left out.

    Args:
        address: of the studies' storage.
        users: whose.

    Raises:
        ValueError: the storage can't be opened, or a study is damaged.
    """
    storage = open_storage(address)
    known = set(study_names(storage))
    return {
        user.digest: course(Study(storage, user.digest), user)
        for user in users
        if user.digest in known
    }


def course(study: Study, user: UserResult) -> Course:
    """One user's course."""
    names = [objective.name for objective in study.objectives]
    loss, rouge = (names.index(objective.name) for objective in _DRAWN)
    done = [(t.config, (t.values[loss], t.values[rouge])) for t in study.trials if t.values]
    rows = [at for _, at in done]
    memories = [i for i, (configuration, _) in enumerate(done) if configuration.layers]
    best = {memories[i] for i in front(_DRAWN, [rows[i] for i in memories])}
    corner = study.reference
    reference = None if corner is None else (corner[loss], corner[rouge])
    if reference is None and memories and len(memories) < len(rows):
        base = next(at for configuration, at in done if not configuration.layers)
        late = reference_point(_DRAWN, [rows[i] for i in memories], base)
        reference = (late[0], late[1])
    return Course(
        trials=tuple(
            Trial(configuration, at, i in best) for i, (configuration, at) in enumerate(done)
        ),
        winner=user.configuration,
        published=(user.winner.loss_nats, user.winner.rouge_l or 0.0),
        reference=reference,
        hypervolume=tuple(hypervolume_trace(_DRAWN, rows, reference)) if reference else None,
        is_late=corner is None,
        failed=sum(trial.state == "failed" for trial in study.trials),
        advised=sum(trial.source == PORTFOLIO for trial in study.trials),
        stopped=sum(trial.state == "stopped" for trial in study.trials),
        certainty=certainty(study),
    )
