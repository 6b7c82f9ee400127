"""JSON that is written as it is made: of a long list one item is in memory, not the text of all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping


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
