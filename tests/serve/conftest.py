"""One tiny base for the package's tests: building it costs more than using it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from models.base import Base
from models.catalog import attach_all
from serve.engine import Engine
from tests.tiny import tiny_base


@pytest.fixture(scope="session")
def base() -> Base:
    return tiny_base()


@pytest.fixture
def engine(base: Base) -> Iterator[Engine]:
    engine = Engine(base, attach_all(base), rows=4, waiting=8)
    yield engine
    engine.close()
