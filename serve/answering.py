"""Asks in the engine, seen from an event loop.

The engine's thread hands pieces over through `call_soon_threadsafe`; nobody blocks anybody. It
knows no HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial

from serve.ask import Ask, EngineError, Piece, Ticket
from serve.engine import Engine
from serve.schema import Choice


class Answering:
    """The answers to some asks while they come.

    Raises:
        BusyError: the engine's line has no room for all of them; none is left in it then.
        StoppedError: the engine is closed or broken.
    """

    def __init__(self, engine: Engine, asks: Sequence[Ask]) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[int, Piece | EngineError]] = asyncio.Queue()
        self._open = len(asks)
        self._tickets: list[Ticket] = []
        try:
            for index, ask in enumerate(asks):
                self._tickets.append(engine.submit(ask, partial(self._deliver, index)))
        except EngineError:
            self.close()
            raise

    async def pieces(self) -> AsyncIterator[list[tuple[int, Piece]]]:
        """(index of the ask, piece): all that has come since, until every answer is finished.

        Raises:
            LostError, StoppedError: an answer was lost.
        """
        while self._open:
            come = [await self._queue.get()]
            while not self._queue.empty():
                come.append(self._queue.get_nowait())
            pieces = []
            for index, piece in come:
                if isinstance(piece, EngineError):
                    raise piece
                self._open -= piece.finish is not None
                pieces.append((index, piece))
            yield pieces

    async def choices(self) -> list[Choice]:
        """The whole answers, in the order of their asks."""
        texts = [""] * len(self._tickets)
        ended: dict[int, Choice] = {}
        async for pieces in self.pieces():
            for index, piece in pieces:
                texts[index] += piece.text
                if piece.finish is not None:
                    ended[index] = Choice(texts[index], piece.finish, piece.tokens)
        return [ended[index] for index in range(len(texts))]

    def close(self) -> None:
        """Nobody waits any more: what still runs is given up."""
        for ticket in self._tickets:
            ticket.cancel()

    def _deliver(self, index: int, piece: Piece | EngineError) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, (index, piece))
