"""Storages for the tests of studies: a file, and a real PostgreSQL started once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from search.patience import PatientStorage
from search.storage import open_storage, sqlite_url
from tests.search.server import postgres


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "studies.db")
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def storage(storage_url: str) -> Iterator[PatientStorage]:
    opened = open_storage(storage_url)
    yield opened
    for study in opened.get_all_studies():
        opened.delete_study(study._study_id)
    opened.engine.dispose()
