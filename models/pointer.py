"""A user's small file in the registry: which state is current, and which ones were before.

It knows digests only, no content. Values are replaced, never changed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from models import storage
from models.storage import DamagedState


@dataclass(frozen=True)
class Pointer:
    """What a user's small file says: digests, oldest first."""

    user_id: str
    current: str | None = None
    earlier: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()

    @classmethod
    def read(cls, file: Path) -> Pointer:
        """The pointer in a file.

        Raises:
            DamagedState: no pointer, or another user's.
        """
        value = storage.from_json(storage.read_small(file), file)
        user_id, current = value.get("user_id"), value.get("current")
        lists = [value.get("earlier"), value.get("withdrawn")]
        whole = isinstance(user_id, str) and (current is None or storage.is_digest(current))
        if not whole or not all(
            isinstance(x, list) and all(map(storage.is_digest, x)) for x in lists
        ):
            raise DamagedState(f"{file}: expected a user id and digests, got something else")
        if file.stem != name_on_disk(str(user_id)):
            raise DamagedState(f"{file}: expected a pointer of its user, got another's")
        return cls(str(user_id), current, *(tuple(x or ()) for x in lists))

    def publishing(self, digest: str) -> Pointer:
        """With a state as the current one."""
        kept = (*self.earlier, *([self.current] if self.current else []))
        earlier, withdrawn = (
            tuple(d for d in digests if d != digest) for digests in (kept, self.withdrawn)
        )
        return Pointer(self.user_id, digest, earlier, withdrawn)

    def withdrawing(self) -> Pointer:
        """With the state before the current one as the current one."""
        withdrawn = (*self.withdrawn, *([self.current] if self.current else []))
        previous = self.earlier[-1] if self.earlier else None
        return Pointer(self.user_id, previous, self.earlier[:-1], withdrawn)


def name_on_disk(user_id: str) -> str:
    """A user's name on disk. Any string has one, those that are not valid Unicode too."""
    return hashlib.sha256(user_id.encode("utf-8", "surrogatepass")).hexdigest()
