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
        """What has come, at most one event of each stream; a broken one gives `{"broken": ...}`."""
        if not self._names:
            return []
        ready, _ = ray.wait(list(self._names), timeout=seconds, fetch_local=False)
        return [(self._names[stream], self._next(stream)) for stream in ready]

    def _next(self, stream: Any) -> Event:
        try:
            event: Event = ray.get(next(stream))
        except StopIteration:
            event = {"broken": "it ended early", "done": True}
        except RayError as error:
            event = {"broken": type(error).__name__, "done": True}
        if event.get("done"):
            del self._names[stream]
        return event
