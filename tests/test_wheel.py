"""What is built from the tree works outside of it: modules, command line and data files."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("cluster", "examples", "models", "search", "serve")


def _call(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    source = _copy(folder / "source")
    built = _call("-m", "build", "--wheel", "--no-isolation", "-o", str(folder), folder=source)
    assert built.returncode == 0, built.stdout + built.stderr
    (found,) = folder.glob("milpa-*.whl")
    return found


def _copy(folder: Path) -> Path:
    """The tree without what a build leaves in it: an old `build/` would slip into the wheel."""
    for part in (*PACKAGES, "milpa.py", "pyproject.toml", "README.md", "LICENSE"):
        source, target = ROOT / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return folder


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the wheel's content and nothing else."""
    target = tmp_path_factory.mktemp("installed")
    flags = ("--no-deps", "--no-index", "--no-compile", "--target", str(target))
    done = _call("-m", "pip", "install", *flags, str(wheel), folder=target)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    listed = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = set(zipfile.ZipFile(wheel).namelist())
    assert sorted(listed - held) == []
    assert "milpa.py" in held
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in held)


def test_nothing_else_is_in_the_wheel(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {*PACKAGES, "milpa.py"}


def test_the_command_line_answers_outside_of_the_tree(installed: Path, tmp_path: Path) -> None:
    where = "import cluster.run, milpa, serve.app; print(cluster.run.__file__, milpa.__file__)"
    found = _call("-c", where, folder=tmp_path, PYTHONPATH=str(installed))
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == [f"{installed}/cluster/run.py", f"{installed}/milpa.py"]
    shown = _call("-m", "milpa", "--help", folder=tmp_path, PYTHONPATH=str(installed))
    assert shown.returncode == 0, shown.stderr
    assert all(command in shown.stdout for command in ("search", "serve", "submit"))
