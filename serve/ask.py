"""One answer wanted from the engine, what comes of it, and the ways it can fail.

It knows no base and no batch; `engine.py` drives it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from models.decoding import Sampling
from models.personalizer import UserState
from serve.schema import Finish
from serve.words import Words


class EngineError(RuntimeError):
    """An ask that the engine did not answer."""


class BusyError(EngineError):
    """The line of waiting asks is full."""


class StoppedError(EngineError):
    """The engine takes no more asks."""


class LostError(EngineError):
    """The batch that an ask ran in failed."""


@dataclass(frozen=True, eq=False)
class Ask:
    """One answer wanted.

    `max_tokens` has to fit into the context behind the prompt. With `bare`, the prompt is words to
    be continued: only end-of-text ends them, and the text keeps its spaces. Without `piecewise`
    the answer comes in one piece at its end. Rows are shared out equally among askers.
    """

    prompt: tuple[int, ...]
    state: UserState | None
    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    stops: tuple[str, ...] = ()
    bare: bool = False
    piecewise: bool = True
    asker: str = ""


@dataclass(frozen=True)
class Piece:
    """What came of an ask since the last piece; `finish` is set on the last one."""

    text: str
    tokens: int  # of the answer so far, without the one that ended it
    finish: Finish | None = None


Deliver = Callable[[Piece | EngineError], None]


class Ticket:
    """An ask in the engine."""

    def __init__(self, ask: Ask, words: Words, deliver: Deliver) -> None:
        self.ask = ask
        self.words = words
        self.tokens = 0
        self.over = False
        self.cancelled = False
        self.row: int | None = None  # while it is paused
        self._deliver = deliver

    @property
    def asker(self) -> str:
        """Whose ask it is."""
        return self.ask.asker

    def cancel(self) -> None:
        """Nobody waits for this answer any more; one that is over stays what it is."""
        self.cancelled = self.cancelled or not self.over
        self.over = True

    def say(self, token: int, ends: bool) -> bool:
        """Hand on what a token brings; whether the answer is over.

        Args:
            token: the next one of the answer.
            ends: whether it is no word, but the end.
        """
        finish: Finish | None = None
        if ends:
            finish, text = "stop", self.words.rest()
        else:
            self.tokens += 1
            heard = self.ask.piecewise or self.ask.stops
            text = self.words.add(token) if heard else self.words.keep(token)
            if self.words.stopped:
                finish = "stop"
            elif self.tokens >= self.ask.max_tokens:
                finish, text = "length", text + self.words.rest()
        if not self.ask.piecewise:
            text = self.words.said if finish else ""
        if text or finish:
            self.give(Piece(text, self.tokens, finish))
        return self.over

    def give(self, piece: Piece | EngineError) -> None:
        """Hand a piece on; a receiver that is gone counts as cancelled."""
        if self.over:
            return
        self.over = isinstance(piece, EngineError) or piece.finish is not None
        try:
            self._deliver(piece)
        except RuntimeError:  # an event loop that is closed
            self.over = self.cancelled = True
