from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster import connection
from tests.cluster import tiny_run

AUTHENTICATED = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t" * 40}


@pytest.mark.parametrize(
    ("cores", "said", "threads"),
    [(1, None, 1), (2, None, 2), (16, None, 15), (16, "4", 4), (2, "8", 2)],
)
def test_a_packer_takes_the_cores_that_are_free(
    monkeypatch: pytest.MonkeyPatch, cores: int, said: str | None, threads: int
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert connection.packer_threads(cores) == threads


def test_workers_find_what_the_driver_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    path = connection.python_path().split(os.pathsep)
    assert path == [str(tiny_run.ROOT), "/somewhere"]


@pytest.fixture
def head() -> Iterator[str]:
    """A cluster on loopback that declares no slots."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="m-", dir="/tmp")
    flags = ["--head", "--block", "--num-cpus=1", "--include-dashboard=false", f"--port={port}"]
    flags += ["--node-ip-address=127.0.0.1", f"--temp-dir={folder}", "--disable-usage-stats"]
    environment = {**os.environ, **AUTHENTICATED}
    words = [sys.executable, "-m", "ray.scripts.scripts", "start", *flags]
    with (Path(folder) / "log").open("w") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
    try:
        end = time.monotonic() + 120
        while "Ray runtime started" not in (Path(folder) / "log").read_text():
            assert time.monotonic() < end, (Path(folder) / "log").read_text()
            time.sleep(0.5)
        yield f"127.0.0.1:{port}"
    finally:
        processes = [*psutil.Process(process.pid).children(recursive=True), process]
        for one in processes:
            one.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.long
def test_a_cluster_without_slots_is_refused_with_the_line_to_use(head: str, tmp_path: Path) -> None:
    data, base = tiny_run.write_data(tmp_path), tiny_run.write_base(tmp_path)
    words = tiny_run.command(data, base, tmp_path / "run", address=head)

    def refusal(**environment: str) -> str:
        result = subprocess.run(
            words,
            capture_output=True,
            text=True,
            cwd=tiny_run.ROOT,
            env={**os.environ, **environment},
            timeout=240,
        )
        assert result.returncode == 2, result.stderr
        return result.stderr

    assert "RAY_AUTH_TOKEN" in refusal(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="x" * 40)
    message = refusal(**AUTHENTICATED)
    assert "declares no 'slot'" in message
    assert f"ray start --address={head} --resources='{{\"slot\": 16}}'" in message
    assert not (tmp_path / "run").exists()
