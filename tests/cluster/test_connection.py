"""The Ray a run works on: how much of a machine it takes, and which clusters it refuses."""

from __future__ import annotations

import math
import os
import subprocess
from pathlib import Path

import pytest

from cluster import connection
from tests.cluster import tiny_run
from tests.cluster.head import AUTHENTICATED, head


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


@pytest.mark.parametrize(
    ("cores", "slots", "packers_fitting", "packers", "threads"),
    [
        (2, 4, 9.0, 2, 1),
        (2, 1, 9.0, 1, 2),
        (16, 4, 9.0, 4, 3),
        (2, 4, 1.9, 1, 2),
        (2, 4, 0.0, 1, 2),
    ],
)
def test_a_packer_for_each_core_as_far_as_slots_and_memory_reach(
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    slots: int,
    packers_fitting: float,
    packers: int,
    threads: int,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    node = connection.Node({}, cores, slots, free_bytes=2e9 * packers_fitting)
    assert node.places(1e9) == (connection.Place({}, "cpu", threads),) * packers
    assert node.places(math.inf) == (node.whole,)


def test_workers_find_what_the_driver_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    path = connection.python_path().split(os.pathsep)
    assert path == [str(tiny_run.ROOT), "/somewhere"]


def test_a_ray_that_does_not_start_is_no_traceback(tmp_path: Path) -> None:
    too_long = tmp_path / ("x" * 107)  # for a Unix socket's path
    with (
        pytest.raises(OSError, match=r"expected Ray to start here, got: .*give --address"),
        connection._embedded(too_long, 1, "milpa-test", 1.0),
    ):
        raise AssertionError("it started")


@pytest.mark.long
def test_a_cluster_without_slots_is_refused_with_the_line_to_use(tmp_path: Path) -> None:
    data, base = tiny_run.write_data(tmp_path), tiny_run.write_base(tmp_path)

    def refusal(words: list[str], **environment: str) -> str:
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

    with head({}) as cluster:
        words = tiny_run.command(data, base, tmp_path / "run", address=cluster.address)
        another = {**AUTHENTICATED, "RAY_AUTH_TOKEN": "x" * 40}
        assert "RAY_AUTH_TOKEN" in refusal(words, **another)
        message = refusal(words, **AUTHENTICATED)
    assert "declares no 'slot'" in message
    assert f"ray start --address={cluster.address} --resources='{{\"slot\": 16}}'" in message
    assert not (tmp_path / "run").exists()
