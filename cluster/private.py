"""Files that their owner alone reads: written aside and renamed, long JSON as it is made.

Of a long list one item is in memory, not the text of all.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path


def write_private(path: Path, text: str | Iterable[str]) -> None:
    """Writes a text, or its pieces, aside and renames it, readable by its owner alone."""
    descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines([text] if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def pieces(content: Mapping[str, object]) -> Iterator[str]:
    """What `json.dumps` gives for an object, piece by piece.

    Args:
        content: the object; a value that is an iterator stands for the list of its items.

    Raises:
        ValueError: a number that is not finite.
    """
    for place, (name, value) in enumerate(content.items()):
        yield f"{', ' if place else '{'}{json.dumps(name)}: "
        yield from _items(value) if isinstance(value, Iterator) else [_json(value)]
    yield "}" if content else "{}"


def _items(items: Iterator[object]) -> Iterator[str]:
    before = "["
    for item in items:
        yield before + _json(item)
        before = ", "
    yield "[]" if before == "[" else "]"


def _json(value: object) -> str:
    return json.dumps(value, allow_nan=False)
