"""A tiny base and an empty registry, for the tests of what is published."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.base import Base
from models.registry import Registry
from tests.tiny import tiny_base


@pytest.fixture(scope="session")
def base() -> Base:
    return tiny_base()


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")
