"""Submission to a real head on loopback that asks for a token."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from cluster.submit import SOURCE, _Output, submit
from examples import generate
from tests.tiny import tiny_model, tiny_tokenizer

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-of-the-test-0123456789abcdef"
TRIAL = r"milpa/[0-9a-f]{16}/(base|L[0-9a-f.]*-r\d+-lr.*)$"
AUTHENTICATED = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _head_command(folder: str, ports: dict[str, int]) -> list[str]:
    flags = [f"--{name}={port}" for name, port in ports.items()]
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--num-cpus=1"),
        """--resources={"slot": 2}""",
        *("--object-store-memory=80000000", "--disable-usage-stats", f"--temp-dir={folder}"),
        *flags,
    ]


def _environment(**more: str) -> dict[str, str]:
    """This process' environment, free of another Ray's variables, with our `python` first."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"
    return {**own, "PATH": path, "RAY_USAGE_STATS_ENABLED": "0", **more}


def _wait_for_jobs(address: str, head: subprocess.Popen[bytes], log: Path) -> None:
    """Until the job agent answers: the dashboard alone does so earlier."""
    end = time.monotonic() + 90
    while time.monotonic() < end:
        assert head.poll() is None, log.read_text()
        try:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            answer = requests.get(f"{address}/api/jobs/", headers=headers, timeout=5)
            if answer.status_code == 200:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.3)
    raise AssertionError(f"no head after 90 s: {log.read_text()}")


def _end(head: subprocess.Popen[bytes]) -> None:
    """Ends the head and the processes it started, and no others."""
    children = psutil.Process(head.pid).children(recursive=True)
    head.send_signal(signal.SIGTERM)
    try:
        head.wait(timeout=10)
    except subprocess.TimeoutExpired:
        head.kill()
    for child in psutil.wait_procs(children, timeout=5)[1]:
        child.kill()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    names = (
        *("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port"),
        *("dashboard-agent-grpc-port", "metrics-export-port", "runtime-env-agent-port"),
        *("node-manager-port", "object-manager-port"),
    )
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    folder = tempfile.mkdtemp(prefix="m-", dir="/tmp")  # short: a socket's path ends at 107 bytes
    log = Path(folder) / "head.log"
    with log.open("wb") as output:
        head = subprocess.Popen(
            _head_command(folder, ports),
            env=_environment(**AUTHENTICATED),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{ports['dashboard-port']}"
    try:
        _wait_for_jobs(url, head, log)
        yield url
    finally:
        _end(head)
        shutil.rmtree(folder, ignore_errors=True)


def _run(call: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A call in a process of its own, since Ray reads its authentication mode once."""
    code = f"import sys\nfrom cluster.submit import run_job, submit\nsys.exit({call})"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=_environment(**environment),
        capture_output=True,
        text=True,
        timeout=900,
    )


def test_a_jobs_output_and_exit_code_come_back_and_only_source_goes_up(address: str) -> None:
    entrypoint = "ls -1; echo to stderr >&2; exit 7"
    done = _run(f"run_job({address!r}, {entrypoint!r})", **AUTHENTICATED)
    assert done.returncode == 7, done.stderr
    listed = [line for line in done.stdout.splitlines() if line in {*SOURCE, *os.listdir(ROOT)}]
    assert sorted(listed) == sorted(SOURCE)
    assert done.stdout.count("to stderr") == 2  # Ray's line with the command, and its output
    assert "failed: Job entrypoint command failed with exit code 7\n" in done.stdout


def test_arguments_reach_the_command_unchanged(address: str) -> None:
    words = ["no such command", "$HOME; exit 0", "it's"]
    done = subprocess.run(
        [sys.executable, "-m", "milpa", "submit", "--address", address, "--", *words],
        cwd=ROOT,
        env=_environment(**AUTHENTICATED),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stdout  # the command line's own answer to unknown commands
    assert "no such command" in done.stdout.partition("\n")[2]


def test_without_following_it_returns_at_once(address: str) -> None:
    done = _run(f"run_job({address!r}, 'true', follow=False)", **AUTHENTICATED)
    assert done.returncode == 0
    assert done.stdout.startswith("submitted raysubmit_")


def test_variables_of_another_ray_do_not_capture_the_address(address: str) -> None:
    elsewhere = {"RAY_ADDRESS": "http://127.0.0.1:9", "RAY_API_SERVER_ADDRESS": "127.0.0.1:9"}
    done = _run(f"run_job({address!r}, 'true', follow=False)", **AUTHENTICATED, **elsewhere)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "environment",
    [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "b" * 32}],
    ids=["none", "another"],
)
def test_without_the_clusters_token_nothing_runs(
    address: str, environment: dict[str, str], tmp_path: Path
) -> None:
    trace = tmp_path / "ran"
    done = _run(f"run_job({address!r}, 'touch {trace}')", **environment)
    assert done.returncode == 1
    assert "PermissionError" in done.stderr
    assert "RAY_AUTH_TOKEN" in done.stderr
    assert not trace.exists()


@pytest.mark.parametrize(
    "word",
    [
        "postgresql://me:s3cret@host/database",
        "--storage=postgresql://me:s3cret@host/database",
        "postgresql://me@host/database?sslmode=require&password=s3cret",
    ],
)
def test_a_password_is_no_part_of_a_job_that_everybody_can_read(word: str) -> None:
    with pytest.raises(ValueError, match="passfile") as raised:
        submit("http://127.0.0.1:1", ["search", "--storage", word])
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("command", ["export", "forget", "withdraw"])
def test_a_user_is_named_in_no_job(command: str) -> None:
    with pytest.raises(ValueError, match=rf"names no user, got '{command}'.*run `milpa {command}`"):
        submit("http://127.0.0.1:1", [command, "run", "ann@work"])


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:8265", "ray://127.0.0.1:10001"])
def test_an_address_that_is_no_dashboards_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="expected a dashboard's"):
        submit(address, ["--help"])


def test_nobody_there() -> None:
    (port,) = _free_ports(1)
    with pytest.raises(OSError, match="Failed to connect"):
        submit(f"http://127.0.0.1:{port}", ["--help"])


@pytest.mark.long
def test_a_submitted_search_runs_on_the_cluster_and_names_its_trials(
    address: str, tmp_path: Path
) -> None:
    tiny_model().save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    generate.write(tmp_path / "data", users=3, seed=0, population=1)  # one with too few items
    small = "--min-items 50 "
    small += "--trials 2 --injection-epochs 1 --tuning-epochs 1 --winner-epochs 1 --items 4"
    where = ("--data", tmp_path / "data/users", "--base", tmp_path / "base", "--out")
    words = ["search", *map(str, (*where, tmp_path / "run")), *small.split(), "--population", "off"]
    done = _run(f"submit({address!r}, {words!r})", **AUTHENTICATED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run/report.html").is_file()
    assert re.search(r"left out: [0-9a-f]{16}: 40 items", done.stdout)  # what is printed is a log
    assert "user-00" not in done.stdout
    named = [task for task in _tasks(address) if task["name"].startswith("milpa/")]
    trials = {task["name"] for task in named if re.match(TRIAL, task["name"])}
    assert len({name.split("/")[1] for name in trials}) == 2  # users, by digest
    assert len(trials) >= 2 * 2
    assert {task["state"] for task in named} == {"FINISHED"}
    assert all(task["end_time_ms"] >= task["start_time_ms"] > 0 for task in named)
    assert "user-00" not in json.dumps([task["name"] for task in _tasks(address)])


def _tasks(address: str) -> list[dict[str, Any]]:
    """Every task that the dashboard lists, in detail."""
    answer = requests.get(
        f"{address}/api/v0/tasks",
        params={"detail": "true", "limit": "10000"},
        headers={"Authorization": f"Bearer {TOKEN}"},
        timeout=60,
    )
    tasks: list[dict[str, Any]] = answer.json()["data"]["result"]["result"]
    return tasks


def test_output_is_shown_once_when_the_connection_breaks() -> None:
    class Broken:
        """A job server whose first connection breaks in the middle of a line."""

        connections = 0

        async def tail_job_logs(self, job: str):  # type: ignore[no-untyped-def]
            self.connections += 1
            yield "one\ntw"
            if self.connections == 1:
                raise RuntimeError("closed unexpectedly")
            yield "o\nthree\n"

        def get_job_info(self, job: str):  # type: ignore[no-untyped-def]
            return type("", (), {"status": type("", (), {"is_terminal": lambda self: False})()})

    shown: list[str] = []
    _Output(Broken(), "job", shown.append).follow()
    assert "".join(shown) == "one\ntwo\nthree\n"
