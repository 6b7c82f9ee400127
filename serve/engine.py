"""One running batch for everybody: rows of different users join and leave between tokens.

Plain Python and one thread. It knows no HTTP, no keys and no registry: an `Ask` brings its tokens
and its user's state, and what becomes of it is handed, piece by piece, to a function on the
engine's thread. Asks wait in a bounded line; a full one refuses at once, since an answer that comes
after its asker left is worth nothing. An ask can be cancelled at any time, which frees its row.

A row's answer does not depend on the others (`models/decoding.py`). Asks of one asker are taken in
order of arrival, those of several in turn (`line.py`): where others wait, rows beyond an equal
share pause, and go on later at the very token where they were.

A batch that fails takes its own rows with it and nothing else, whatever the error. Where memory ran
out, the batch is kept smaller from then on. Where the device itself is lost, the engine ends, so
that whoever watches it starts another process.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue

import torch

from models.alive import is_alive
from models.base import Base
from models.decoding import Decoder
from models.personalizer import Attach
from serve.ask import Ask, BusyError, Deliver, EngineError, LostError, Piece, StoppedError, Ticket
from serve.line import Line, askers, in_turn, to_pause
from serve.words import Words

PREFILL_TOKENS = 4096  # that may join between two steps: more would keep running answers waiting

log = logging.getLogger(__name__)


class Engine:
    """Answers asks until it is closed.

    Args:
        base: the frozen model; from now on the engine's thread alone may run it.
        attach: opens a context in which row i runs under state i.
        rows: answers that run at a time.
        waiting: asks that may stand in line.
    """

    def __init__(self, base: Base, attach: Attach, rows: int = 16, waiting: int = 64) -> None:
        self._base, self._attach = base, attach
        self._rows = rows
        self._decoder = Decoder(base, attach)
        self._running: dict[int, Ticket] = {}
        self._paused: dict[int, Ticket] = {}
        self._line = Line(waiting)
        self._arriving: list[Ticket] = []
        self._changed = threading.Condition()
        self._cancelled = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, ask: Ask, deliver: Deliver) -> Ticket:
        """Put an ask in line. `deliver` is called on the engine's thread and must not block.

        An ask that loses its place to another asker's hears so on that one's thread.

        Raises:
            BusyError: the line is full; try again later.
            StoppedError: the engine is closed or broken.
        """
        ticket = Ticket(ask, Words(self._decode(ask), ask.stops), deliver)
        with self._changed:
            if self._closing or not self._thread.is_alive():
                raise StoppedError("the engine is stopped")
            self._cancelled += self._line.sweep()
            displaced = self._line.add(ticket)
            self._changed.notify()
        if displaced is not None:
            displaced.give(BusyError("others wait, too"))
        return ticket

    def answer(self, asks: Sequence[Ask]) -> list[Piece]:
        """Whole answers, waited for: the plain way in.

        Raises:
            BusyError, StoppedError, LostError: the first that befell one of the asks.
        """
        pieces: list[SimpleQueue[Piece | EngineError]] = [SimpleQueue() for _ in asks]
        tickets: list[Ticket] = []
        try:
            for ask, queue in zip(asks, pieces, strict=True):
                tickets.append(self.submit(ask, queue.put))
            return [_whole(queue) for queue in pieces]
        finally:
            for ticket in tickets:
                ticket.cancel()

    def close(self) -> None:
        """Fail what is left and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether asks are still answered."""
        return self._thread.is_alive() and not self._closing

    @property
    def load(self) -> dict[str, int]:
        """Rows running, asks waiting (or paused), and asks given up by their askers so far."""
        return {
            "running": len(self._running),
            "waiting": len(self._line) + len(self._paused),
            "cancelled": self._cancelled,
        }

    def _decode(self, ask: Ask) -> Callable[[Sequence[int]], str]:
        if not ask.bare:
            return self._base.prompt.decode
        # Some tokenizers drop the first word's space; behind the prompt's end it stays.
        before = list(ask.prompt[-4:])

        def decode(tokens: Sequence[int]) -> str:
            known = self._base.tokenizer.decode(before, skip_special_tokens=True)
            text = self._base.tokenizer.decode([*before, *tokens], skip_special_tokens=True)
            return str(text).removeprefix(str(known))

        return decode

    # What follows runs on the engine's thread.

    def _run(self) -> None:
        try:
            while self._wait():
                try:
                    self._admit()
                    self._step()
                except Exception as error:
                    if not (self._running or self._paused):
                        raise  # no answer's fault: it would come again and again
                    self._fail_batch(error)
        finally:
            with self._changed:
                self._closing = True
                rows = [*self._running.values(), *self._paused.values()]
                left = [*rows, *self._arriving, *self._line]
                for tickets in (self._running, self._paused, self._arriving):
                    tickets.clear()
                self._line = Line(0)
            for ticket in left:
                ticket.give(StoppedError("the engine is stopped"))

    def _wait(self) -> bool:
        """Until there is work; False once the engine is closing."""
        with self._changed:
            while not (self._closing or self._line or self._running or self._paused):
                self._changed.wait()
            return not self._closing

    def _admit(self) -> None:
        """Take asks from the line into free rows, and let paused rows go on, in turn."""
        rows = [*self._running.items(), *self._paused.items()]
        self._drop([number for number, ticket in rows if ticket.over])
        with self._changed:
            self._cancelled += self._line.sweep()
            waiting = askers([*self._paused.values(), *self._line])
        self._pause(to_pause(self._running, waiting, self._rows))
        with self._changed:
            going_on = self._choose()
        self._go_on(going_on)
        self._join()

    def _choose(self) -> list[int]:
        """Fill what is free: from the line into `_arriving`, and the paused rows returned."""
        held = askers([*self._running.values(), *self._arriving])
        paused = [self._paused[number] for number in sorted(self._paused)]
        going_on: list[int] = []
        tokens = 0
        while held.total() < self._rows:
            ticket = in_turn([*paused, *self._line], held)
            if ticket is None:
                break
            if ticket.row is not None:
                paused.remove(ticket)
                going_on.append(ticket.row)
            else:
                tokens += len(ticket.ask.prompt)
                if self._arriving and tokens > PREFILL_TOKENS:
                    break
                self._line.remove(ticket)
                self._arriving.append(ticket)
            held[ticket.asker] += 1
        return going_on

    def _pause(self, numbers: Sequence[int]) -> None:
        self._decoder.pause(numbers)
        for number in numbers:
            self._paused[number] = ticket = self._running.pop(number)
            ticket.row = number

    def _go_on(self, numbers: Sequence[int]) -> None:
        try:
            self._decoder.resume(numbers)
        except torch.OutOfMemoryError:
            if not self._running:
                raise
            return self._shrink(len(self._running))
        for number in numbers:
            self._running[number] = ticket = self._paused.pop(number)
            ticket.row = None

    def _join(self) -> None:
        """Let who arrived into the batch."""
        if len(self._arriving) > 1 and self._joined(self._arriving) is None:
            self._arriving.clear()
        while self._arriving:  # one by one, so that the one at fault fails alone
            error = self._joined(self._arriving[:1])
            if isinstance(error, torch.OutOfMemoryError) and self._running:
                return self._shrink(len(self._running))
            ticket = self._arriving.pop(0)
            if error is not None:
                ticket.give(LostError("the prompt could not be taken into the batch"))
                self._check_device(error)

    def _joined(self, tickets: Sequence[Ticket]) -> Exception | None:
        """Let asks into the batch, all or none; what went wrong, if anything did."""
        asks = [ticket.ask for ticket in tickets]
        try:
            numbers = self._decoder.join(
                [ask.prompt for ask in asks],
                [ask.state for ask in asks],
                [ask.sampling for ask in asks],
            )
        except Exception as error:
            log.warning("%d asks could not join the batch", len(asks), exc_info=error)
            return error
        self._running.update(zip(numbers, tickets, strict=True))
        return None

    def _shrink(self, rows: int) -> None:
        """Keep the batch at what memory was enough for; who arrived waits on, in front."""
        log.warning("out of memory: at most %d rows run from now on", rows)
        self._rows = rows
        with self._changed:
            self._line.put_back(self._arriving)
            self._arriving.clear()

    def _step(self) -> None:
        """One token of every row."""
        tokens = self._decoder.step()
        self._drop([number for number, token in tokens if self._over(number, token)])

    def _over(self, number: int, token: int) -> bool:
        prompt, ticket = self._base.prompt, self._running[number]
        bare = ticket.ask.bare
        return ticket.say(token, token in prompt.stop_ids if bare else prompt.ends_answer(token))

    def _drop(self, numbers: Sequence[int]) -> None:
        self._decoder.leave(numbers)
        for number in numbers:
            rows = self._running if number in self._running else self._paused
            self._cancelled += rows.pop(number).cancelled

    def _fail_batch(self, error: Exception) -> None:
        """Start over with an empty batch, smaller if memory ran out."""
        log.error("a batch of %d rows failed", len(self._running), exc_info=error)
        if isinstance(error, torch.OutOfMemoryError):
            self._shrink(max(1, len(self._running) // 2))
        for ticket in [*self._running.values(), *self._paused.values()]:
            ticket.give(LostError("the answer was lost; ask again"))
        self._running.clear()
        self._paused.clear()
        self._decoder = Decoder(self._base, self._attach)
        self._check_device(error)

    def _check_device(self, error: Exception) -> None:
        """Close where the device is lost: every ask from now on would be, too."""
        if isinstance(error, torch.OutOfMemoryError) or is_alive(self._base.device):
            return
        log.critical("%s computes no more: the engine ends", self._base.device)
        with self._changed:
            self._closing = True


def _whole(pieces: SimpleQueue[Piece | EngineError]) -> Piece:
    text = ""
    while True:
        piece = pieces.get()
        if isinstance(piece, EngineError):
            raise piece
        text += piece.text
        if piece.finish is not None:
            return Piece(text, piece.tokens, piece.finish)
