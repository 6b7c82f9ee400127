"""Asks that wait, and whose turn it is.

Rows and places in line belong to whoever asks, as long as nobody else does: an *asker* is a key, or
everybody on loopback together. Where others want some too, nobody keeps more than an equal share:
the newest asks of who has most lose their places, and the newest rows of who has most pause. So one
request of many prompts can't make everybody wait until its last word.

It knows no base and no batch; `engine.py` does what it says, under a lock of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from serve.ask import BusyError, Ticket


class Line:
    """Asks in order of arrival, in a bounded number of places."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._tickets: list[Ticket] = []

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self._tickets)

    def add(self, ticket: Ticket) -> Ticket | None:
        """Put an ask in line; returns the one that lost its place to it, if one did.

        Raises:
            BusyError: the line is full, and nobody has more of it than is fair.
        """
        lost = self._too_many(ticket.asker) if len(self) >= self._places else None
        if lost is not None:
            self._tickets.remove(lost)
        elif len(self) >= self._places:
            raise BusyError(f"{self._places} asks are waiting already")
        self._tickets.append(ticket)
        return lost

    def put_back(self, tickets: Sequence[Ticket]) -> None:
        """Asks that had their turn for nothing wait in front."""
        self._tickets[:0] = tickets

    def remove(self, ticket: Ticket) -> None:
        """Its turn has come."""
        self._tickets.remove(ticket)

    def sweep(self) -> int:
        """Let go of asks that are over; returns how many."""
        before = len(self)
        self._tickets = [ticket for ticket in self._tickets if not ticket.over]
        return before - len(self)

    def _too_many(self, asker: str) -> Ticket | None:
        held = askers(self)
        fair = share(self._places, {*held, asker})
        most, count = held.most_common(1)[0]
        if held[asker] >= fair or count <= fair:
            return None
        return next(ticket for ticket in reversed(self._tickets) if ticket.asker == most)


def askers(tickets: Collection[Ticket] | Line) -> Counter[str]:
    """How many of the tickets are whose."""
    return Counter(ticket.asker for ticket in tickets)


def share(places: int, askers: Collection[str]) -> int:
    """How many of the places each may hold, at least one."""
    return max(1, places // max(1, len(askers)))


def in_turn(waiting: Sequence[Ticket], held: Mapping[str, int]) -> Ticket | None:
    """The first ask of those who hold the fewest rows."""
    return min(waiting, key=lambda ticket: held.get(ticket.asker, 0), default=None)


def to_pause(running: Mapping[int, Ticket], waiting: Mapping[str, int], rows: int) -> list[int]:
    """The rows that must pause so that nobody who waits lacks a share; the newest of who has most.

    Args:
        running: tickets by the numbers of their rows; later rows have larger numbers.
        waiting: how many asks of whom wait.
        rows: how many may run at a time.
    """
    held = askers(running.values())
    fair = share(rows, held.keys() | waiting.keys())
    wanted = sum(min(count, max(0, fair - held[asker])) for asker, count in waiting.items())
    pausing: list[int] = []
    while len(running) - len(pausing) + wanted > rows:
        most = max(held, key=held.__getitem__, default=None)
        if most is None or held[most] <= fair:
            break
        pausing.append(max(n for n, t in running.items() if t.asker == most and n not in pausing))
        held[most] -= 1
    return pausing
