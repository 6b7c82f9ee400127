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
    the answer comes in one piece at its end.
    """

    prompt: tuple[int, ...]
    state: UserState | None
    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    stops: tuple[str, ...] = ()
    bare: bool = False
    piecewise: bool = True


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
        self._deliver = deliver

    def cancel(self) -> None:
        """Nobody waits for this answer any more; one that is over stays what it is."""
        self.cancelled = self.cancelled or not self.over
        self.over = True

    def give(self, piece: Piece | EngineError) -> None:
        """Hand a piece on; a receiver that is gone counts as cancelled."""
        if self.over:
            return
        self.over = isinstance(piece, EngineError) or piece.finish is not None
        try:
            self._deliver(piece)
        except RuntimeError:  # an event loop that is closed
            self.over = self.cancelled = True
