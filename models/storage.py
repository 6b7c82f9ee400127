"""Content-addressed folders on disk: written whole or not at all, checked whenever they are read.

A folder holds files and `state.json`, which lists each file's size and SHA-256; the folder's name
is the SHA-256 of `state.json`. So one small file vouches for all, and can be read alone.

Writing: the files go into a hidden folder beside their place, are flushed to the disk, and the
folder is renamed. A process killed at any moment leaves a hidden folder behind, never half a state.
Whoever holds the lock of a parent folder may `sweep` such leftovers away.

Everything is readable by its owner alone. JSON and bytes only, never pickle.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MANIFEST = "state.json"
LARGEST_MANIFEST_BYTES = 1 << 20

_DIGEST = re.compile(r"[0-9a-f]{64}")
_FILE_NAME = re.compile(r"[a-z_]{1,40}\.(json|safetensors)")


class DamagedState(ValueError):  # noqa: N818
    """Stored content that is not what was written."""


def put(parent: Path, head: Mapping[str, object], files: Mapping[str, bytes]) -> str:
    """Store files under a manifest; returns the digest. What is already there and whole stays.

    The caller holds the lock of `parent`.

    Raises:
        ValueError: the head has no JSON form, or is too large.
    """
    listed = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
        for name, content in files.items()
    }
    manifest = to_json({**head, "files": listed})
    if len(manifest) > LARGEST_MANIFEST_BYTES:
        raise ValueError(
            f"expected a {MANIFEST} of at most {LARGEST_MANIFEST_BYTES} bytes, got {len(manifest)}"
        )
    digest = hashlib.sha256(manifest).hexdigest()
    place = parent / digest
    if place.exists() and not _whole(place):
        discard(place)
    if not place.exists():
        write_folder(place, {**files, MANIFEST: manifest})
    return digest


def manifest_of(place: Path) -> dict[str, Any]:
    """The manifest of a stored folder, checked against the folder's name.

    Raises:
        DamagedState: missing, or not what was written.
    """
    content = _read(place / MANIFEST, LARGEST_MANIFEST_BYTES)
    found = hashlib.sha256(content).hexdigest()
    if found != place.name:
        raise DamagedState(
            f"{place / MANIFEST}: expected content of digest {place.name}, got {found}; "
            "publish this user's state again, or withdraw it"
        )
    return from_json(content, place / MANIFEST)


def file_of(place: Path, manifest: Mapping[str, Any], name: str) -> bytes | None:
    """A stored file, checked against the manifest; None where the manifest has no such file.

    Raises:
        DamagedState: missing, or not what was written.
    """
    listed = manifest["files"].get(name)
    if listed is None:
        return None
    content = _read(place / name, listed["size_bytes"])
    found = hashlib.sha256(content).hexdigest()
    if found != listed["sha256"]:
        raise DamagedState(
            f"{place / name}: expected content of digest {listed['sha256']}, got {found}; "
            "publish this user's state again, or withdraw it"
        )
    return content


def is_digest(value: object) -> bool:
    """Whether a value may be joined to a path as a stored folder's name."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def to_json(value: Mapping[str, object]) -> bytes:
    """The one JSON form of a value.

    Raises:
        ValueError: it has none: a number that is not finite, or a strange type.
    """
    try:
        return json.dumps(value, allow_nan=False, indent=1, sort_keys=True).encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected values that JSON can hold, got others: {error}") from error


def from_json(content: bytes, where: Path) -> dict[str, Any]:
    """A JSON object; where it lists files, their names, sizes and digests are of the right form.

    Raises:
        DamagedState: it is none.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedState(f"{where}: expected JSON, got something else ({error})") from error
    if not isinstance(value, dict):
        raise DamagedState(f"{where}: expected a JSON object, got {type(value).__name__}")
    files = value.get("files", {})
    if not isinstance(files, dict) or not all(_listed(*entry) for entry in files.items()):
        raise DamagedState(f"{where}: expected files with sizes and digests, got something else")
    return value


def write_folder(place: Path, files: Mapping[str, bytes]) -> None:
    """A new folder with these files, which appears at once and whole."""
    make_private(place.parent)
    aside = _hidden(place.parent)
    aside.mkdir(mode=0o700)
    try:
        for name, content in files.items():
            _write(aside / name, content)
        _flush_folder(aside)
        os.rename(aside, place)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    _flush_folder(place.parent)


def write_file(place: Path, content: bytes) -> None:
    """A file that holds either its old or its new content at any moment."""
    make_private(place.parent)
    aside = _hidden(place.parent)
    try:
        _write(aside, content)
        os.replace(aside, place)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    _flush_folder(place.parent)


def read_small(place: Path) -> bytes:
    """A small file's content.

    Raises:
        DamagedState: missing, no plain file, or too large.
    """
    return _read(place, LARGEST_MANIFEST_BYTES)


def remove_file(place: Path) -> None:
    """Remove a file, if it is there."""
    if place.exists():
        place.unlink(missing_ok=True)
        _flush_folder(place.parent)


def discard(place: Path) -> None:
    """Remove a stored folder: at once by name, then its content."""
    gone = _hidden(place.parent)
    os.rename(place, gone)
    _flush_folder(place.parent)
    shutil.rmtree(gone)


def sweep(parent: Path) -> None:
    """Remove what killed writers left. The caller holds the lock of `parent`."""
    if not parent.is_dir():
        return
    for entry in os.scandir(parent):
        if entry.name.startswith("."):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """Holds a lock file against other threads and processes."""
    make_private(place.parent)
    descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for its owner alone."""
    for missing in reversed([f for f in (folder, *folder.parents) if not f.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)


def _whole(place: Path) -> bool:
    try:
        manifest = manifest_of(place)
        for name in manifest["files"]:
            file_of(place, manifest, name)
    except DamagedState:
        return False
    return True


def _listed(name: object, entry: object) -> bool:
    """Whether a manifest's entry for a file has the right form."""
    if not isinstance(name, str) or not _FILE_NAME.fullmatch(name) or not isinstance(entry, dict):
        return False
    size = entry.get("size_bytes")
    return is_digest(entry.get("sha256")) and isinstance(size, int) and size >= 0


def _read(file: Path, largest_bytes: int) -> bytes:
    """Content of a plain file, never more than expected."""
    try:
        # Non-blocking, so that a pipe put in a file's place cannot hang the reader.
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise DamagedState(f"{file}: expected a plain file, got: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > largest_bytes:
            got = f"{status.st_size} bytes of mode {stat.filemode(status.st_mode)}"
            raise DamagedState(
                f"{file}: expected a plain file of at most {largest_bytes} bytes, got {got}"
            )
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            return stream.read(largest_bytes)
    finally:
        os.close(descriptor)


def _write(file: Path, content: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hidden(parent: Path) -> Path:
    return parent / f".{secrets.token_hex(8)}"
