"""One tiny base for the package's tests: building it costs more than using it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from models.base import Base
from serve.engine import Engine
from serve.service import attach_all
from tests.tiny import tiny_base


@pytest.fixture(scope="session")
def base() -> Base:
    return tiny_base()


@pytest.fixture
def engine(base: Base) -> Iterator[Engine]:
    engine = Engine(base, attach_all(base), rows=4, waiting=8)
    yield engine
    engine.close()
