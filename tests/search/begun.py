"""Studies that have begun: opened, their anchor come back, some configurations told."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy

from search.patience import PatientStorage
from search.samplers import Known, Proposal
from search.space import MemoryConfig
from search.storage import Trial
from search.study import Study
from tests.search.planted import BASE, OBJECTIVES, SPACE

NAME = "0123456789abcdef"
CONFIGS = [MemoryConfig((layer,), 16, 1e-3) for layer in range(8)]


def opened(storage: PatientStorage) -> Study:
    return Study.open(storage, NAME, SPACE, OBJECTIVES)


def begun(storage: PatientStorage, items: int = 20) -> Study:
    """A study whose anchor has come back."""
    study = opened(storage)
    study.tell(study.ask_anchor(seed=1).number, BASE, {"item_count": items})
    return study


def ask_one(
    study: Study, proposal: Proposal, seed: int, parameters: int = 0, known: Known | None = None
) -> Trial:
    """One new trial of this proposal."""
    return study.ask_all([(proposal, seed, parameters)], known)[0]


def ask(study: Study, config: MemoryConfig, parameters: int = 100) -> int:
    return ask_one(study, Proposal(config, "sobol"), seed=11, parameters=parameters).number


def told(
    study: Study, config: MemoryConfig, values: tuple[float, float], parameters: int = 100
) -> int:
    number = ask(study, config, parameters)
    study.tell(number, values, {"rouge_l_error": 0.01})
    return number


@contextmanager
def statements(storage: PatientStorage) -> Iterator[list[str]]:
    """What is asked of the database meanwhile."""
    asked: list[str] = []

    def note(*given: Any) -> None:
        asked.append(given[2])

    sqlalchemy.event.listen(storage.engine, "before_cursor_execute", note)
    yield asked
    sqlalchemy.event.remove(storage.engine, "before_cursor_execute", note)
