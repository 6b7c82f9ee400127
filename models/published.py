"""What a published state is: a user state together with what it was made for, as files and back.

`state.json` says whose it is, how it was made and for which base; a LoRA is a PEFT adapter; other
tensors and text, which other methods keep, have a file each. Nothing here knows where it is stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from models import peft_format, storage
from models.base import Base
from models.personalizer import Shared, UserState
from models.storage import DamagedState

FORMAT = "milpa-state/1"
OTHER_TENSORS = "tensors.safetensors"
TEXT = "text.json"
WINNER_IS_BASE = "no configuration was better than the base"

_T = TypeVar("_T")


class WrongBase(ValueError):  # noqa: N818
    """A state that was made for another base."""


class NoMemory(ValueError):  # noqa: N818
    """A user who is answered by the base: there is nothing to export."""


@dataclass(frozen=True)
class BaseIdentity:
    """What a state remembers of the base it was made for."""

    name: str
    fingerprint: str
    prompt_format: str
    fan_in_fan_out: bool = False

    @classmethod
    def of(cls, base: Base) -> BaseIdentity:
        """The identity of a loaded base."""
        return cls(base.name, base.fingerprint, base.prompt.name, base.fan_in_fan_out)


@dataclass(frozen=True)
class Published:
    """A published state without its tensors. `kind` is `base`, or the method that made it."""

    digest: str
    folder: Path
    user_id: str
    kind: str
    method: str
    configuration: Mapping[str, object]
    objectives: Mapping[str, float]
    base: BaseIdentity
    reason: str | None
    versions: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path) -> tuple[Published, Mapping[str, Any]]:
        """A stored state and its checked manifest.

        Raises:
            DamagedState: it is not what was written.
        """
        manifest = storage.manifest_of(folder)
        where = folder / storage.MANIFEST
        if manifest.get("format") != FORMAT:
            got = str(manifest.get("format"))[:80]
            raise DamagedState(
                f"{where}: expected format {FORMAT}, got {got!r}; use the Milpa it is of"
            )
        base = _field(manifest, "base", dict, where)
        reason = manifest.get("reason")
        return cls(
            digest=folder.name,
            folder=folder,
            user_id=_field(manifest, "user_id", str, where),
            kind=_field(manifest, "kind", str, where),
            method=_field(manifest, "method", str, where),
            configuration=_field(manifest, "configuration", dict, where),
            objectives=_field(manifest, "objectives", dict, where),
            base=BaseIdentity(
                name=_field(base, "name", str, where),
                fingerprint=_field(base, "fingerprint", str, where),
                prompt_format=_field(base, "prompt_format", str, where),
                fan_in_fan_out=_field(base, "fan_in_fan_out", bool, where),
            ),
            reason=None if reason is None else _field(manifest, "reason", str, where),
            versions=_field(manifest, "versions", dict, where),
        ), manifest

    def check_base(self, base: Base) -> None:
        """Refuse a base that this state was not made for.

        Raises:
            WrongBase: the fingerprints differ.
        """
        if self.base.fingerprint != base.fingerprint:
            raise WrongBase(
                f"expected the base {self.base.name!r} (fingerprint {self.base.fingerprint[:12]}, "
                f"prompt format {self.base.prompt_format}), got {base.name!r} "
                f"({base.fingerprint[:12]}, {base.prompt.name}); load the base that this memory "
                "was made for, or search again on this one"
            )


def head_of(
    state: UserState,
    base: BaseIdentity,
    objectives: Mapping[str, float],
    reason: str | None,
    shared: str | None = None,
) -> dict[str, object]:
    """What `state.json` says beside the list of files; `shared` is its shared part's digest."""
    return {
        **({} if shared is None else {"shared": shared}),
        "format": FORMAT,
        "user_id": state.user_id,
        "kind": "base" if state.is_base else state.method,
        "method": state.method,
        "configuration": dict(state.configuration),
        "objectives": {name: float(value) for name, value in objectives.items()},
        "base": asdict(base),
        "reason": (reason or WINNER_IS_BASE) if state.is_base else reason,
        "versions": _versions(),
    }


def files_of(state: UserState, base: BaseIdentity) -> dict[str, bytes]:
    """The files of a state: none for one that is the base.

    Raises:
        ValueError: a value that is not finite, or tensors that are not a LoRA's of one rank.
    """
    adapter = {n: t for n, t in state.tensors.items() if peft_format.is_lora(n)}
    other = {n: t for n, t in state.tensors.items() if n not in adapter}
    files = peft_format.encode(adapter, base.name, base.fan_in_fan_out) if adapter else {}
    if other:
        files[OTHER_TENSORS] = peft_format.encode_tensors(other)
    if state.text:
        files[TEXT] = storage.to_json(dict(state.text))
    return files


def state_of(
    published: Published, manifest: Mapping[str, Any], shared: Shared | None = None
) -> UserState:
    """The user state in a stored folder, every file checked against its digest.

    Raises:
        DamagedState: it is not what was written.
    """
    adapter = _adapter(published.folder, manifest)
    content = storage.file_of(published.folder, manifest, OTHER_TENSORS)
    other = {} if content is None else _decoded(published.folder / OTHER_TENSORS, content)
    text = _text(published.folder, manifest)
    return UserState(
        published.method,
        published.user_id,
        published.configuration,
        {**adapter, **other},
        text,
        shared,
    )


def plain_adapter(published: Published, manifest: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """The LoRA that a state is; None for one that is the base.

    Raises:
        ValueError: the state is more than a LoRA, or none.
        DamagedState: it is not what was written.
    """
    if published.kind == "base":
        return None
    extra = sorted(set(manifest["files"]) - {peft_format.WEIGHTS, peft_format.CONFIGURATION})
    extra += ["a shared part"] if "shared" in manifest else []
    if extra:
        raise ValueError(
            f"expected a state that is a LoRA alone, got one of method {published.method} with "
            f"{', '.join(extra)}; an adapter would not answer as this user's model does"
        )
    return _adapter(published.folder, manifest)


def check_places(state: UserState, base: Base, folder: Path) -> None:
    """Refuse a LoRA that does not fit the base: PEFT would only warn, and answer as the base.

    Raises:
        DamagedState: a tensor without a place, or of a wrong shape.
    """
    places = base.places
    for name in filter(peft_format.is_lora, state.tensors):
        module, shape = peft_format.module_of(name), tuple(state.tensors[name].shape)
        if module not in places:
            raise DamagedState(f"{folder}: expected matrices of the base, got {module!r}")
        axis = 1 if ".lora_A." in name else 0
        expected = places[module][1 - axis]
        if shape[axis] != expected:
            raise DamagedState(f"{folder}: expected {expected} features in {name!r}, got {shape}")


def owner_of(folder: Path) -> str | None:
    """Whose state lies in a folder, damaged or not; None where that cannot be told."""
    file = folder / storage.MANIFEST
    try:
        owner = storage.from_json(storage.read_small(file), file).get("user_id")
    except DamagedState:
        return None
    return owner if isinstance(owner, str) else None


def shortened(user_id: str) -> str:
    """A user id fit for a message to the person who asked."""
    return repr(user_id) if len(user_id) <= 80 else f"{user_id[:80]!r}..."


def _adapter(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Tensor]:
    storage.file_of(
        folder, manifest, peft_format.CONFIGURATION
    )  # what PEFT would read is checked too
    content = storage.file_of(folder, manifest, peft_format.WEIGHTS)
    if content is None:
        return {}
    try:
        return peft_format.decode_adapter(content)
    except ValueError as error:
        raise DamagedState(f"{folder / peft_format.WEIGHTS}: {error}") from error


def _decoded(file: Path, content: bytes) -> dict[str, Tensor]:
    try:
        return peft_format.decode_tensors(content)
    except ValueError as error:
        raise DamagedState(f"{file}: {error}") from error


def _text(folder: Path, manifest: Mapping[str, Any]) -> dict[str, str]:
    content = storage.file_of(folder, manifest, TEXT)
    text = {} if content is None else storage.from_json(content, folder / TEXT)
    if not all(isinstance(value, str) for value in text.values()):
        raise DamagedState(f"{folder / TEXT}: expected text under every name, got something else")
    return text


def _field(values: Mapping[str, Any], key: str, kind: type[_T], where: Path) -> _T:
    value = values.get(key)
    if not isinstance(value, kind):
        got = type(value).__name__
        raise DamagedState(f"{where}: expected {key} to be of type {kind.__name__}, got {got}")
    return value


def _versions() -> dict[str, str]:
    """Versions of what made a state; Milpa itself has one only where it is installed."""
    versions = {}
    for package in ("milpa", "torch", "transformers"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
