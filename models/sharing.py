"""What a method shares between its users: from whom it is learned, and where it is kept.

Shared parts are learned from people who are not personalised themselves, and never from a session
that a personalised user's later words come from. On disk they lie beside the users' states, named
by the digest of their content; a state names the one that it was made with.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Set
from pathlib import Path
from weakref import WeakKeyDictionary

from models import peft_format, storage
from models.history import History
from models.personalizer import Person, Shared, Task, UserState
from models.storage import DamagedState

FORMAT = "milpa-shared/1"
TENSORS = "tensors.safetensors"
READ_SHARE = 0.7  # of a person's interactions are read; the later ones are answered
FEWEST = 4  # interactions read, and pairs answered

_digests: WeakKeyDictionary[Shared, str] = WeakKeyDictionary()


def people(
    histories: Iterable[History], closed: Set[str], count: int, pairs: int, seed: int
) -> list[Person]:
    """At most `count` people, drawn from all of them alike, each with at most `pairs` newest pairs.

    Args:
        histories: of users who are not personalised.
        closed: sessions that nothing may be learned from.
        count: the most people.
        pairs: the most pairs of a person that are answered.
        seed: draws.
    """
    draw = random.Random(seed)
    kept: list[Person] = []
    seen = 0
    for history in histories:
        person = _person(history, closed, pairs)
        if person is None:
            continue
        seen += 1
        if len(kept) < count:
            kept.append(person)
        elif (place := draw.randrange(seen)) < count:
            kept[place] = person
    return kept


def require(found: list[Person], needed: int, method: str) -> None:
    """Refuse a population too small to learn a shared part from.

    Raises:
        ValueError: fewer people than are needed.
    """
    if len(found) < needed:
        raise ValueError(
            f"expected at least {needed} other users with {FEWEST} interactions to read and "
            f"{FEWEST} to answer, from whom {method} learns what its users share, got {len(found)}"
        )


def learned_for(task: Task, method: str) -> Shared:
    """The shared part that a task is to be fitted with.

    Raises:
        ValueError: it has none, or one of another method or configuration.
    """
    shared, wanted = task.shared, dict(task.configuration.to_json())
    if shared is None:
        raise ValueError(f"expected what {method} learned from other users, got none; learn first")
    learned_under = {name: shared.configuration.get(name) for name in wanted}
    if (shared.method, learned_under) != (method, wanted):
        raise ValueError(
            f"expected what {method} learned under {wanted}, got what {shared.method} learned "
            f"under {learned_under}"
        )
    return shared


def shared_of(state: UserState) -> Shared:
    """What a state was made with.

    Raises:
        ValueError: nothing.
    """
    if state.shared is None:
        raise ValueError(f"expected a state of {state.method} with a shared part, got one without")
    return state.shared


def put(folder: Path, shared: Shared) -> str:
    """Keep a shared part in a folder; returns its digest. What is there already stays."""
    if shared not in _digests or not (folder / _digests[shared]).is_dir():
        head = {
            "format": FORMAT,
            "method": shared.method,
            "configuration": dict(shared.configuration),
        }
        with storage.locked(folder.parent / "locks" / "shared"):
            storage.sweep(folder)
            files = {TENSORS: peft_format.encode_tensors(shared.tensors)}
            _digests[shared] = storage.put(folder, head, files)
    return _digests[shared]


def get(folder: Path, digest: str) -> Shared:
    """A shared part by its digest.

    Raises:
        DamagedState: missing, or not what was written.
    """
    if not storage.is_digest(digest):
        raise DamagedState(f"{folder}: expected the digest of a shared part, got {digest[:80]!r}")
    place = folder / digest
    manifest = storage.manifest_of(place)
    content = storage.file_of(place, manifest, TENSORS)
    method, configuration = manifest.get("method"), manifest.get("configuration")
    if manifest.get("format") != FORMAT or content is None:
        raise DamagedState(f"{place}: expected a shared part of format {FORMAT}, got another")
    if not isinstance(method, str) or not isinstance(configuration, dict):
        raise DamagedState(f"{place}: expected a method and its configuration, got others")
    try:
        shared = Shared(method, configuration, peft_format.decode_tensors(content))
    except ValueError as error:
        raise DamagedState(f"{place / TENSORS}: {error}") from error
    _digests[shared] = digest
    return shared


def _person(history: History, closed: Set[str], pairs: int) -> Person | None:
    """A person with enough to read and to answer in open sessions, or None."""
    items = [item for item in history.interactions if item.session not in closed]
    cut = int(len(items) * READ_SHARE)
    answered = [item for item in items[cut:] if item.query is not None]
    if cut < FEWEST or len(answered) < FEWEST:
        return None
    return Person(history.user_id, tuple(items[:cut]), tuple(answered[-pairs:]))
