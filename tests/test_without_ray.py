"""`models/` and `search/` pass their tests where Ray is not installed, in child processes too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Python runs it at its start: Ray is then found nowhere, as if it were not installed.
WITHOUT_RAY = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        is_ray = name.partition(".")[0] == "ray"
        return None if is_ray else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Without, sys.meta_path)
"""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Python on these words where Ray is not installed."""
    (folder / "sitecustomize.py").write_text(WITHOUT_RAY)
    path = os.pathsep.join(filter(None, [str(folder), str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


def test_ray_is_not_found_where_it_is_taken_away(tmp_path: Path) -> None:
    done = run(tmp_path, "-c", "import importlib.util as u; print(u.find_spec('ray'))\nimport ray")
    assert done.stdout.strip() == "None"
    assert "No module named 'ray'" in done.stderr


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_models_and_search_pass_their_tests(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "pytest", "-q", "tests/models", "tests/search")
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
