"""The run's folder: where everything lies, whose it is, and whether it may be gone on with.

It knows no Ray and no model. The folder and everything in it is its owner's alone (mode 0700),
since it holds users' text and names them.

Two locks, both released by the kernel when a process ends, however it ends. One driver holds
`driver.lock`. Every process that writes for it shares `writers.lock`; a driver waits until nobody
does, so what a killed run's processes still had to write is there before a new driver reads.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from cluster.private import write_private

WAIT_SECONDS = 60.0
_KEY_BYTES = 32
_PACKAGES = ("ray", "torch", "transformers", "peft", "botorch", "gpytorch", "optuna")


class Settings(Protocol):
    """What a person set: an `Experiment`, or the terms of a comparison."""

    def to_json(self) -> dict[str, object]:
        """The settings as JSON values."""

    def differences(self, stored: Mapping[str, Any]) -> list[str]:
        """What differs from stored settings, one line for each."""


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run."""

    path: Path

    @property
    def data(self) -> Path:
        """The run's own copy of the histories."""
        return self.path / "data"

    @property
    def base(self) -> Path:
        """The base with the population merged in, where there is one."""
        return self.path / "base"

    @property
    def population(self) -> Path:
        """The population's adapter and its report."""
        return self.path / "population"

    @property
    def registry(self) -> Path:
        """Published user states."""
        return self.path / "registry"

    @property
    def winners(self) -> Path:
        """One file for each user whose winner is published."""
        return self.path / "winners"

    @property
    def tune(self) -> Path:
        """Tune's own files; removable."""
        return self.path / "ray"

    @property
    def settings(self) -> Path:
        """What the run resolved to."""
        return self.path / "experiment.json"

    @property
    def default_storage(self) -> str:
        """Address of the studies where no other is given."""
        from search.storage import sqlite_url  # brings Optuna, which GPU benchmarks go without

        return sqlite_url(self.path.absolute() / "studies.db")

    def storage(self) -> str:
        """Address of the studies; the run's own database moves with its folder."""
        if (self.path / "studies.db").is_file() or not self.settings.is_file():
            return self.default_storage
        return str(self.stored().get("storage", self.default_storage))

    @property
    def has_studies(self) -> bool:
        """Whether studies lie somewhere: a comparison has none, nor a run that never began."""
        return (self.path / "studies.db").is_file() or self.storage() != self.default_storage

    @property
    def is_comparison(self) -> bool:
        """Whether methods are compared here, and nothing is searched."""
        return self.settings.is_file() and "methods" in self.stored()

    def searched_base(self) -> str:
        """The base that memories were searched on.

        Raises:
            FileNotFoundError: there is no run.
            ValueError: methods are compared here.
        """
        self.check()
        if self.is_comparison:
            base = self.base if self.base.is_dir() else self.stored()["base"]
            raise ValueError(
                f"expected the folder of a search, got {self.path}, a comparison of methods; one "
                f"method's states: --registry {self.path}/registries/METHOD --base {base}"
            )
        return str(self.base) if self.base.is_dir() else str(self.stored()["base"])

    def check(self) -> None:
        """Refuses a folder that holds no run.

        Raises:
            FileNotFoundError: there is none.
        """
        if not (self.path / "key").is_file():
            raise FileNotFoundError(
                f"expected the folder of a search, got {self.path}, which holds none; give what "
                "was its --out"
            )

    def key(self) -> bytes:
        """The key of user digests, drawn when first asked for.

        Raises:
            ValueError: the file is damaged.
        """
        file = self.path / "key"
        if not file.is_file():
            write_private(file, secrets.token_hex(_KEY_BYTES))
        kept = file.read_text(encoding="ascii", errors="replace")
        if not re.fullmatch(rf"[0-9a-f]{{{2 * _KEY_BYTES}}}", kept):
            raise ValueError(
                f"{file}: expected {2 * _KEY_BYTES} hexadecimal digits, got something else; put "
                "the run's own key back, or start a new run folder"
            )
        return bytes.fromhex(kept)

    def begin(self, resume: bool) -> None:
        """Makes the folder, or opens it to go on.

        Raises:
            FileExistsError: it is a file, or it holds something and `resume` is off.
            FileNotFoundError: `resume` is on and there is no run.
        """
        if resume and not (self.path / "key").is_file():
            raise FileNotFoundError(f"--resume: expected a run in {self.path}, found none")
        if self.path.exists() and not self.path.is_dir():
            raise FileExistsError(f"--out: {self.path} is no folder; choose another name")
        if not resume and self.path.is_dir() and any(self.path.iterdir()):
            is_run = (self.path / "key").is_file()
            held = "holds a run; go on with --resume, or" if is_run else "holds something else;"
            raise FileExistsError(f"--out: {self.path} {held} choose another folder")
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise OSError(
                f"--out: can't make {self.path}: {error.strerror}; choose another place"
            ) from error
        self.path.chmod(0o700)
        self.key()

    def check_settings(self, experiment: Settings) -> None:
        """Refuses to go on with other settings than the run was begun with.

        Raises:
            ValueError: names every setting that differs, or a damaged file.
        """
        if self.settings.is_file():
            differences = experiment.differences(self.stored())
            if differences:
                listed = "\n  ".join(differences)
                raise ValueError(
                    f"{self.path}: made with other settings:\n  {listed}\n"
                    "Give the same ones, or choose another --out."
                )

    def stored(self) -> dict[str, Any]:
        """What the run resolved to when it began.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            stored = json.loads(self.settings.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{self.settings}: expected JSON, got {error}") from error
        if not isinstance(stored, dict):
            raise ValueError(f"{self.settings}: expected an object, got {type(stored).__name__}")
        return stored

    def store(self, experiment: Settings, resolved: Mapping[str, object]) -> dict[str, Any]:
        """Writes what the run resolves to, with versions and commit, and returns it."""
        content = {
            **experiment.to_json(),
            **resolved,
            "versions": {name: _version(name) for name in ("milpa", *_PACKAGES)},
            "commit": commit(),
        }
        write_private(self.settings, json.dumps(content, indent=1))
        return content

    def lock(self) -> IO[str]:
        """Becomes the run's only driver, once an earlier run's processes have ended.

        Raises:
            ValueError: another driver is at work, or its processes don't end.
        """
        driver = (self.path / "driver.lock").open("w")
        try:
            if not _flock(driver, fcntl.LOCK_EX, wait_seconds=0):
                raise ValueError(f"{self.path}: another command works here; wait for its end")
            with (self.path / "writers.lock").open("w") as writers:
                if not _flock(writers, fcntl.LOCK_EX, WAIT_SECONDS):
                    raise ValueError(
                        f"{self.path}: processes of an earlier run still write here after "
                        f"{WAIT_SECONDS:.0f} s; end them first"
                    )
        except ValueError:
            driver.close()
            raise
        return driver

    def write_lock(self) -> IO[str]:
        """Held by a process that writes for the driver; a new driver waits for it."""
        writers = (self.path / "writers.lock").open("w")
        fcntl.flock(writers, fcntl.LOCK_SH)
        return writers

    def remember_temporary(self, folder: Path) -> None:
        """Notes Ray's temporary folder, so that a killed run's can be removed by the next."""
        write_private(self.path / "temporary", str(folder))

    def remove_temporary(self) -> None:
        """Removes Ray's temporary folder that was noted, and Tune's files."""
        note = self.path / "temporary"
        if note.is_file():
            folder = Path(note.read_text())
            if folder.name.startswith("milpa-") and folder.is_dir():
                shutil.rmtree(folder, ignore_errors=True)
            note.unlink()
        shutil.rmtree(self.tune, ignore_errors=True)


def commit() -> str | None:
    """The commit of the source tree this runs from; None for an installed package."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _flock(file: IO[str], kind: int, wait_seconds: float) -> bool:
    """Whether the lock was got, tried for so long."""
    end = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.2)
