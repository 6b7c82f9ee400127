"""The fingerprint of a base on disk: a SHA-256 over config, tokenizer, prompt format and weights.

A memory belongs to the exact base it was trained on. Hashing gigabytes takes time, so a file's
digest is kept in the user's cache folder under its path, size and time of change.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

_SUFFIXES = {".json", ".safetensors", ".bin", ".txt", ".model", ".jinja"}
# Written by trainers and by loading; says nothing about what the model computes.
_IGNORED = {"generation_config.json", "README.md", "training.json"}


def fingerprint_of(folder: Path, prompt_name: str) -> str:
    """Hexadecimal SHA-256 over the files of a base that decide what it computes.

    Args:
        folder: a folder written by transformers.
        prompt_name: name and version of the prompt format.
    """
    files = sorted(
        file for file in folder.iterdir() if file.suffix in _SUFFIXES and file.name not in _IGNORED
    )
    digest = hashlib.sha256(prompt_name.encode())
    for file in files:
        digest.update(file.name.encode() + b"\0" + _file_digest(file).encode())
    return digest.hexdigest()


def _file_digest(file: Path) -> str:
    status = file.stat()
    key = f"{file.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    cached = _cache_folder() / hashlib.sha256(key.encode()).hexdigest()
    try:
        return str(json.loads(cached.read_text())["sha256"])
    except (OSError, ValueError, KeyError):
        pass  # not hashed yet, or a damaged entry: hash it again
    with file.open("rb") as stream:
        value = hashlib.file_digest(stream, "sha256").hexdigest()
    _store(cached, value)
    return value


def _store(cached: Path, value: str) -> None:
    """Keep a digest; a cache that cannot be written costs time, nothing else."""
    aside = cached.with_suffix(f".{os.getpid()}")
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps({"sha256": value}))
        aside.replace(cached)
    except OSError:
        return


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "milpa" / "fingerprints"
