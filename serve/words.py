"""Tokens into text as they come: only what no later token can change or cut.

The pieces joined are exactly the decoded answer, cut before the first stop text. Held back until
it is certain: an incomplete character, spaces at the end (decoding strips them), and whatever might
be the beginning of a stop text.

The whole answer is decoded at each token. That is quadratic in its length, but a decoder's step
costs far more than decoding some hundred tokens, and it is right for every tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # what a character's first bytes decode to


class Words:
    """The text of one growing answer.

    Args:
        decode: tokens to text.
        stops: texts before which the answer ends.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stops = tuple(stops)
        self._tokens: list[int] = []
        self.said = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that has become certain with one more token; `stopped` says if a stop came."""
        self._tokens.append(token)
        return self._say(whole=False)

    def keep(self, token: int) -> str:
        """One more token, its text left for later; only where no stop text can come."""
        self._tokens.append(token)
        return ""

    def rest(self) -> str:
        """What was held back, once no token follows."""
        return "" if self.stopped else self._say(whole=True)

    def _say(self, whole: bool) -> str:
        text = self._decode(self._tokens)
        if not text.startswith(self.said):
            return ""  # a decoder that rewrites its past: wait until it settles
        end = self._first_stop(text)
        if end is not None:
            self.stopped = True
        elif whole:
            end = len(text)
        else:
            end = self._certain(text)
        new = text[len(self.said) : max(end, len(self.said))]
        self.said += new
        return new

    def _first_stop(self, text: str) -> int | None:
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        return min(found, default=None)

    def _certain(self, text: str) -> int:
        """Length of the text that stays, whatever follows."""
        steady = len(text.rstrip(_INCOMPLETE))
        held = (
            length
            for stop in self._stops
            for length in range(min(len(stop) - 1, steady), 0, -1)
            if text.endswith(stop[:length], 0, steady)
        )
        return steady - max(held, default=0)
