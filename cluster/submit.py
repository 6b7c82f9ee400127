"""Runs a milpa command on a cluster, through Ray's job server: code up, logs down, exit code back.

It reads no data: what a command names (data, base, run) must lie where the cluster's nodes see it.
A job's command line is there for everybody who sees the cluster's jobs, so a command that names a
user is refused. What travels is this program's own source and nothing else, so a folder of runs
beside it can't leave the machine.

The job server runs whatever it is sent. So a cluster should ask for a token, and the token is
given as Ray expects it: `RAY_AUTH_MODE=token`, and `RAY_AUTH_TOKEN` or the file
`~/.ray/auth_token`. Jobs: https://docs.ray.io/en/latest/cluster/running-applications/job-submission
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

Write = Callable[[str], None]

SOURCE = ("cluster", "examples", "models", "search", "serve", "milpa.py")
_OVERRIDES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
_NAMING = ("export", "forget", "withdraw")  # commands whose arguments name a user
_POLL_SECONDS = 0.5
_STOPPED_EXIT_CODE = 130
_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]+@|[?&](ssl)?password=")
_MESSAGE_LOGS = ", last available logs"


def submit(address: str, arguments: Sequence[str], follow: bool = True) -> int:
    """Runs `milpa ARGUMENTS` on the cluster and returns its exit code.

    Args:
        address: the dashboard's, for example http://127.0.0.1:8265.
        arguments: milpa's own, as words; they reach the command unchanged.
        follow: print the job's output and wait for its end; otherwise print its name and
            return 0 at once.

    Raises:
        ValueError: the address isn't a dashboard's, an argument holds a password or names a user,
            or the job server refused the job.
        PermissionError: the cluster asks for a token that wasn't given or is another one.
        OSError: nobody answers at the address.
    """
    if any(map(_PASSWORD.search, arguments)):
        raise ValueError(
            "expected no password in a job's arguments, which everybody reads who sees the "
            "cluster's jobs; set PGPASSWORD on its nodes, or name a file there: "
            "postgresql://USER@HOST/DATABASE?passfile=/PATH"
        )
    if arguments[:1] and arguments[0] in _NAMING:
        raise ValueError(
            f"expected a command that names no user, got {arguments[0]!r}: everybody reads a job's "
            f"arguments who sees the cluster's jobs; run `milpa {arguments[0]}` on a machine that "
            "has the run's folder"
        )
    return run_job(address, shlex.join(["python", "-m", "milpa", *arguments]), follow)


def run_job(address: str, entrypoint: str, follow: bool = True, write: Write | None = None) -> int:
    """Runs a shell command on the cluster, in a copy of this program's source.

    Raises:
        ValueError, PermissionError, OSError: as `submit`.
    """
    show = write or (lambda text: print(text, end="", flush=True))
    with _errors_named(address), _source_folder() as folder:
        client = _client(address)
        job = client.submit_job(entrypoint=entrypoint, runtime_env={"working_dir": str(folder)})
    show(f"submitted {job} to {address}\n")
    if not follow:
        return 0
    try:
        with _errors_named(address):
            _Output(client, job, show).follow()
            return _exit_code(client, job, show)
    except KeyboardInterrupt:
        show(f"\n{job} goes on; end it with: ray job stop {job} --address {address}\n")
        return _STOPPED_EXIT_CODE


def _client(address: str) -> JobSubmissionClient:
    """A client of the job server at the address that was given, and of no other."""
    if not address.startswith(("http://", "https://")):
        raise ValueError(
            f"--address: expected a dashboard's, for example http://127.0.0.1:8265, got {address!r}"
        )
    with _without_overrides():
        return JobSubmissionClient(address)


@contextmanager
def _without_overrides() -> Iterator[None]:
    """Hides the variables that Ray prefers to an address given in so many words."""
    hidden = {name: os.environ.pop(name) for name in _OVERRIDES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


@contextmanager
def _errors_named(address: str) -> Iterator[None]:
    """Ray's errors as standard types that say what to do."""
    try:
        yield
    except AuthenticationError as error:
        raise PermissionError(
            f"{address} asks for a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the "
            "cluster's (on its head, `ray get-auth-token` prints it)"
        ) from error
    except RuntimeError as error:
        raise ValueError(f"{address}: {error}") from error


@contextmanager
def _source_folder() -> Iterator[Path]:
    """A folder with this program's source alone, as long as the context lasts."""
    root = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory(prefix="milpa-source-") as name:
        for part in SOURCE:
            source, target = root / part, Path(name) / part
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        yield Path(name)


class _Output:
    """A job's output, as far as it has been shown."""

    def __init__(self, client: JobSubmissionClient, job: str, show: Write) -> None:
        self._client, self._job, self._show = client, job, show
        self._shown = 0

    def follow(self) -> None:
        """Shows it until the job ends; a connection that breaks is made anew."""
        while True:
            try:
                asyncio.run(self._tail())
                return
            except (RuntimeError, aiohttp.ClientError):
                time.sleep(_POLL_SECONDS)
            if self._client.get_job_info(self._job).status.is_terminal():
                self._show_beyond(0, self._client.get_job_logs(self._job))
                return

    async def _tail(self) -> None:
        seen = 0  # every connection begins at the first character
        async for text in self._client.tail_job_logs(self._job):
            self._show_beyond(seen, text)
            seen += len(text)

    def _show_beyond(self, start: int, text: str) -> None:
        """Shows what is new of the text that begins at `start`."""
        new = text[max(0, self._shown - start) :]
        self._show(new)
        self._shown += len(new)


def _exit_code(client: JobSubmissionClient, job: str, show: Write) -> int:
    """The command's exit code, as a shell would give it, once the job has ended."""
    while not (details := client.get_job_info(job)).status.is_terminal():
        time.sleep(_POLL_SECONDS)
    if details.status == "SUCCEEDED":
        return 0
    reason = str(details.message).partition(_MESSAGE_LOGS)[0]  # the output has been shown
    show(f"{job} {details.status.lower()}: {reason}\n")
    code = details.driver_exit_code
    if not code:
        return 1
    return int(code) if code > 0 else 128 - int(code)
