"""A Ray cluster for tests, as a person starts one: a head on loopback that asks for a token."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

AUTHENTICATED = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t" * 40}
_START_SECONDS = 120


@dataclass(frozen=True)
class Head:
    """A cluster's address, and the folder that Ray writes its files to."""

    address: str
    folder: Path


@contextmanager
def head(resources: Mapping[str, float]) -> Iterator[Head]:
    """A cluster of one node that declares these resources, as long as the context lasts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="m-", dir="/tmp"))  # short: for paths of sockets
    flags = ["--head", "--block", "--num-cpus=1", "--include-dashboard=false", f"--port={port}"]
    flags += ["--node-ip-address=127.0.0.1", f"--temp-dir={folder}", "--disable-usage-stats"]
    flags += [f"--resources={json.dumps(resources)}"]
    words = [sys.executable, "-m", "ray.scripts.scripts", "start", *flags]
    with (folder / "log").open("w") as log:
        environment = {**os.environ, **AUTHENTICATED}
        process = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
    try:
        end = time.monotonic() + _START_SECONDS
        while "Ray runtime started" not in (folder / "log").read_text():
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.5)
        yield Head(f"127.0.0.1:{port}", folder)
    finally:
        processes = [*psutil.Process(process.pid).children(recursive=True), process]
        for one in processes:
            one.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
