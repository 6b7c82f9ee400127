"""What judges have said in a comparison's folder, kept so that the same is asked, and paid, once.

A reply is kept as soon as it comes, under a digest of all that was asked: the judge's model and
settings, the question, the true answer, and both answers in their places. The digest is keyed with
the folder's key, so nobody can guess a text and look whether it was asked about. A user's replies
are one file, `judgements/<user's digest>`: a line holds a digest and one word, and no text.

A reply that can't be read isn't kept: the next call asks again. A line that a killed process left
half written is no reply. Where a judge has changed under the same name, remove the folder
`judgements`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Verdict = Literal["A", "B", "tie"]

FOLDER = "judgements"
_LINE = re.compile(r"^([0-9a-f]{64}) (A|B|tie)\n", re.MULTILINE)


class Judgements:
    """The replies in a comparison's folder.

    Attributes:
        found: how many were asked for and were there.
    """

    def __init__(self, run: Path, key: bytes) -> None:
        self._folder, self._key = run / FOLDER, key
        self._known: dict[str, dict[str, Verdict]] = {}
        self.found = 0

    def of(self, user: str, request: Mapping[str, object]) -> Verdict | None:
        """What a judge said to a request about a user, who is named by digest; None if nothing."""
        verdict = self._of_user(user).get(self._digest(request))
        self.found += verdict is not None
        return verdict

    def keep(self, user: str, request: Mapping[str, object], verdict: Verdict) -> Verdict:
        """Keeps a reply and returns it; or what was said to the same request meanwhile."""
        known, digest = self._of_user(user), self._digest(request)
        if digest not in known:
            _append(self._folder / user, f"{digest} {verdict}\n")
            known[digest] = verdict
        return known[digest]

    def _of_user(self, user: str) -> dict[str, Verdict]:
        if user not in self._known:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._known[user] = _read(self._folder / user)
        return self._known[user]

    def _digest(self, request: Mapping[str, object]) -> str:
        told = json.dumps(request, sort_keys=True)
        return hmac.new(self._key, told.encode(), hashlib.sha256).hexdigest()


def _read(file: Path) -> dict[str, Verdict]:
    """A file's whole lines; one that is half written is ended, so that none is added to it."""
    if not file.is_file():
        return {}
    text = file.read_text(encoding="utf-8", errors="replace")
    if text and not text.endswith("\n"):
        _append(file, "\n")
    return dict(_LINE.findall(text))


def _append(file: Path, text: str) -> None:
    """Adds to a file of its owner's alone; the kernel has it when this returns."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as stream:
        stream.write(text.encode())
