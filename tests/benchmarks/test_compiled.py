"""What lies between matrix products computes the same when it is compiled."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from benchmarks import compiled
from tests.cluster import tiny_run


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles with a compiler of C++")
def test_losses_stay_and_the_time_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tiny_run.write_base(tmp_path)
    compiled.main(["--base", str(base), "--repeats", "1"])
    said = capsys.readouterr().out
    assert re.match(r"cpu, float32: a step takes \d+\.\d\d of its time, after the time of", said)
