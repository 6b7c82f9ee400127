"""Studies in a storage that a new user may learn from.

It chooses and reads; what follows from them is `transfer`'s business. Only studies of the same
space, objectives and base are about the same question.
"""

import itertools
from collections.abc import Collection, Sequence

from optuna.storages import RDBStorage

from search import header
from search.pareto import Objective
from search.samplers import Evidence
from search.space import SearchSpace
from search.study import Study

MOST = 16  # users: each costs a fit, and the more there are, the less another one adds


def earlier(
    storage: RDBStorage,
    space: SearchSpace,
    objectives: Sequence[Objective],
    base: str,
    besides: Collection[str] = (),
) -> list[Evidence]:
    """What the users searched last show, in this space and on this base; at most `MOST` of them.

    A study counts once enough of its trials are told. A few may still be pending: where many users
    are searched, the next ones start while the last ones drain.

    Args:
        storage: where the studies are.
        space: of the new user.
        objectives: of the new user.
        base: as it was told to `Study.open`.
        besides: names of studies that are not to be read.
    """
    wanted = header.of(space, objectives)
    names = [
        study.study_name
        for study in storage.get_all_studies()
        if study.user_attrs.get(header.NAME) == wanted
        and study.user_attrs.get(header.BASE, "") == base
        and study.study_name not in besides
    ]
    shown = (Study(storage, name).evidence() for name in reversed(names))
    return list(itertools.islice((one for one in shown if one.is_telling), MOST))
