"""Published user states on disk: one folder for each state, one small pointer for each user.

    states/3f/<digest>/   state.json and, for a memory, a PEFT adapter
    shared/<digest>/      what a method learned once for many users' states
    users/3f/<name>.json  the user's current state, earlier ones, and those taken back
    locks/3f              held while anything below states/3f or users/3f is written

`<name>` is the SHA-256 of the user id and `3f` its first two digits: user ids are data, never
paths, and no folder grows large. Since `state.json` holds the user id, a state belongs to one user
and can be forgotten with that user. Several processes may publish at once, and a reader needs no
lock: a pointer is replaced whole, and what it names was there before (`models/storage.py`).

A user whose best model is the base, or who had too little text, has a state of kind `base`: no
adapter, and the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from models import peft_format, sharing, storage
from models.base import Base
from models.listing import Listing
from models.personalizer import Shared, UserState
from models.pointer import Pointer, name_on_disk
from models.published import (
    BaseIdentity,
    NoMemory,
    Published,
    WrongBase,
    check_places,
    files_of,
    head_of,
    owner_of,
    plain_adapter,
    shortened,
    state_of,
)
from models.storage import DamagedState

__all__ = [
    "BaseIdentity",
    "DamagedState",
    "NoMemory",
    "Published",
    "Registry",
    "UnknownUser",
    "WrongBase",
]


class UnknownUser(KeyError):  # noqa: N818
    """A user without a published state."""

    def __str__(self) -> str:
        return str(self.args[0])


class Registry:
    """The published states in a folder. Nothing is written before the first `publish`."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._shared: dict[str, Shared] = {}
        self._listing = Listing(self.folder / "users")

    def publish(
        self,
        state: UserState,
        base: BaseIdentity,
        objectives: Mapping[str, float],
        reason: str | None = None,
    ) -> str:
        """Make a state its user's current one; returns its digest.

        The same content again changes nothing, or makes an earlier state the current one. A
        damaged state or pointer of this user is replaced.

        Args:
            reason: why there is no memory, for a state of kind `base`.

        Raises:
            ValueError: values that are not finite, or tensors that are not a LoRA's of one rank.
        """
        part = None if state.shared is None else sharing.put(self.folder / "shared", state.shared)
        head, files = head_of(state, base, objectives, reason, part), files_of(state, base)
        with self._writing(state.user_id):
            digest = storage.put(self._states(state.user_id), head, files)
            try:
                pointer = self._pointer(state.user_id)
            except DamagedState:
                pointer = None
            changed = (pointer or Pointer(state.user_id)).publishing(digest)
            if changed != pointer:
                self._point(changed)
        return digest

    def __contains__(self, user_id: str) -> bool:
        pointer = self._pointer(user_id)
        return pointer is not None and pointer.current is not None

    def users(self) -> list[str]:
        """All users with a current state, in order of their ids; see `Listing`."""
        return self._listing.users()

    def some_users(self, count: int) -> list[str]:
        """So many users with a current state; see `Listing`."""
        return self._listing.some(count)

    def current(self, user_id: str) -> Published:
        """A user's current state, without its tensors.

        Raises:
            UnknownUser: none is published.
            DamagedState: it is not what was written.
        """
        return self._read(user_id)[0]

    def load(self, user_id: str, base: Base) -> UserState | None:
        """A user's current state, on the CPU; None where the user is answered by the base.

        Raises:
            UnknownUser: none is published.
            WrongBase: it was made for another base.
            DamagedState: it is not what was written, or has no place on the base.
        """
        published, manifest = self._read(user_id)
        published.check_base(base)
        if published.kind == "base":
            return None
        state = state_of(published, manifest, self._part(manifest))
        check_places(state, base, published.folder)
        return state

    def withdraw(self, user_id: str) -> Published | None:
        """Take the current state back; returns the one before it, which is current from now on.

        With none before it the user becomes unknown. What was taken back stays on disk until its
        user is forgotten, and becomes current again when it is published again.

        Raises:
            UnknownUser: nothing is published.
        """
        with self._writing(user_id):
            pointer = self._known(user_id)[0].withdrawing()
            self._point(pointer)
        return None if pointer.current is None else self._read(user_id)[0]

    def holds(self, user_id: str) -> bool:
        """Whether anything of a user lies here: a pointer, or states of whatever kind."""
        return self._pointer_file(user_id).exists() or bool(self._own(user_id))

    def forget(self, user_id: str) -> int:
        """Remove a user's pointer and all states; returns how many states there were.

        An unknown user is no error, so that what a kill interrupted can be done again.
        """
        with self._writing(user_id):
            own = self._own(user_id)
            storage.remove_file(self._pointer_file(user_id))
            for folder in own:
                storage.discard(folder)
        return len(own)

    def export(
        self,
        user_id: str,
        folder: Path,
        onto: Literal["searched", "original"] = "searched",
        population: Path | None = None,
    ) -> None:
        """Write a user's memory as a plain PEFT adapter into a new folder.

        Args:
            onto: the base that the memory was searched on; or `original`, the base before the
                population was merged into it: the adapter then adds both.
            population: folder of the population's PEFT adapter; None where none was merged, so
                that both bases are the same.

        Raises:
            UnknownUser: none is published.
            NoMemory: there is nothing to add to that base.
            ValueError: the state is more than a LoRA, or does not fit the population's.
            FileExistsError: the folder exists and is not empty.
        """
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(f"expected a new or empty folder, got {folder}, which is in use")
        published, manifest = self._read(user_id)
        adapters, base_name = [plain_adapter(published, manifest)], published.base.name
        if onto == "original" and population is not None:
            shared, configuration = peft_format.read_adapter(population)
            adapters.append(shared)
            base_name = str(configuration.get("base_model_name_or_path") or base_name)
        parts = [adapter for adapter in adapters if adapter is not None]
        if not parts:
            raise NoMemory(
                f"expected a user with a memory, got {shortened(user_id)}, who is answered by the "
                f"base: {published.reason}"
            )
        tensors = peft_format.concatenate(*parts) if len(parts) == 2 else parts[0]
        files = peft_format.encode(tensors, base_name, published.base.fan_in_fan_out)
        storage.write_folder(folder, files)

    @contextmanager
    def _writing(self, user_id: str) -> Iterator[None]:
        """Nobody else writes near this user meanwhile; what killed writers left there is gone."""
        with storage.locked(self.folder / "locks" / name_on_disk(user_id)[:2]):
            storage.sweep(self._states(user_id))
            storage.sweep(self._pointer_file(user_id).parent)
            yield

    def _states(self, user_id: str) -> Path:
        return self.folder / "states" / name_on_disk(user_id)[:2]

    def _pointer_file(self, user_id: str) -> Path:
        name = name_on_disk(user_id)
        return self.folder / "users" / name[:2] / f"{name}.json"

    def _pointer(self, user_id: str) -> Pointer | None:
        file = self._pointer_file(user_id)
        return Pointer.read(file) if file.exists() else None

    def _point(self, pointer: Pointer) -> None:
        storage.write_file(self._pointer_file(pointer.user_id), storage.to_json(asdict(pointer)))

    def _known(self, user_id: str) -> tuple[Pointer, str]:
        """A user's pointer and current digest."""
        pointer = self._pointer(user_id)
        if pointer is None or pointer.current is None:
            raise UnknownUser(
                # NOTE: without the id: whoever asked has it, and this may end in a log.
                f"expected a user with a published state, got an id for which {self.folder} has "
                "none; give an id as it stands in the data"
            )
        return pointer, pointer.current

    def _read(self, user_id: str) -> tuple[Published, Mapping[str, Any]]:
        """A user's current state and its checked manifest."""
        folder = self._states(user_id) / self._known(user_id)[1]
        try:
            published, manifest = Published.read(folder)
        except DamagedState:
            self._known(user_id)  # forgotten meanwhile?
            raise
        if published.user_id != user_id:
            raise DamagedState(f"{folder}: expected a state of its user, got another's")
        return published, manifest

    def _part(self, manifest: Mapping[str, Any]) -> Shared | None:
        """The shared part that a state names; one in memory serves all states that name it."""
        if "shared" not in manifest:
            return None
        digest = str(manifest["shared"])
        if digest not in self._shared:
            self._shared[digest] = sharing.get(self.folder / "shared", digest)
        return self._shared[digest]

    def _own(self, user_id: str) -> list[Path]:
        """The folders of all states that are a user's, listed or not."""
        listed, states = self._listed(user_id), self._states(user_id)
        folders = list(states.iterdir()) if states.is_dir() else []
        return [f for f in folders if f.name in listed or owner_of(f) == user_id]

    def _listed(self, user_id: str) -> set[str | None]:
        """Digests in a user's pointer, whatever state that is in."""
        try:
            pointer = self._pointer(user_id)
        except DamagedState:
            return set()
        return set() if pointer is None else {pointer.current, *pointer.earlier, *pointer.withdrawn}
