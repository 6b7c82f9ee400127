"""A command's bill holds what its children spent, and those that outlive their parent."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.meter import cost

# NOTE: CPU time, not wall time: a busy machine makes it last longer, and changes no figure.
SPEND = "import time\nwhile time.process_time() < {}: pass\n"


def test_children_are_counted(tmp_path: Path) -> None:
    child = f"{SPEND.format(1.0)}"
    program = (
        f"import pathlib, subprocess, sys\n{SPEND.format(0.5)}"
        f"pathlib.Path({str(tmp_path / 'ready')!r}).touch()\n"
        f"subprocess.run([sys.executable, '-c', {child!r}])\n{SPEND.format(0.6)}"
    )
    spent = cost([sys.executable, "-c", program], tmp_path / "log", tmp_path / "ready")
    assert 1.3 < spent.cpu_seconds < 2.0
    assert 0.4 < spent.ready_cpu_seconds < 1.0
    assert spent.peak_bytes > 2**20
    assert sum(spent.by_process.values()) == pytest.approx(spent.cpu_seconds)
    later = spent.cpu_seconds - spent.ready_cpu_seconds
    assert sum(spent.later_by_process.values()) == pytest.approx(later)
    assert any(name.startswith("python") for name in spent.by_process)


def test_a_command_that_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="failed: see"):
        cost([sys.executable, "-c", "1 / 0"], tmp_path / "log", tmp_path / "ready")
    assert "ZeroDivisionError" in (tmp_path / "log").read_text()
