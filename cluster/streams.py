"""Many Ray streams followed at once: what comes next, of whichever has something."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import RayError

Event = dict[str, Any]


class Streams:
    """Streams by name; one that ends, or breaks, is followed no more."""

    def __init__(self) -> None:
        self._names: dict[Any, str] = {}

    def __len__(self) -> int:
        """How many streams have not ended."""
        return len(self._names)

    def add(self, name: str, stream: Any) -> None:
        """Follow a stream of events, whose last one has `done`."""
        self._names[stream] = name

    def wait(self, seconds: float) -> list[tuple[str, Event]]:
        """What has come, at most one item of each stream; a broken one gives `{"broken": ...}`.

        An item is an event, or a list of them.
        """
        if not self._names:
            return []
        ready, _ = ray.wait(list(self._names), timeout=seconds, fetch_local=False)
        named = [(self._names[stream], self._next(stream)) for stream in ready]
        return [(name, event) for name, events in named for event in events]

    def _next(self, stream: Any) -> list[Event]:
        try:
            item: Event | list[Event] = ray.get(next(stream))
        except StopIteration:
            item = {"broken": "it ended early", "done": True}
        except RayError as error:
            item = {"broken": type(error).__name__, "done": True}
        events = item if isinstance(item, list) else [item]
        if events[-1].get("done"):
            del self._names[stream]
        return events
