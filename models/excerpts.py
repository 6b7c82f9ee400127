"""Excerpts of a user's past, put before a query within a budget of tokens.

Every method of words frames a query here, so that two of them differ in what they select and in
nothing else. The frame is plain text for any base: a line for the profile, a line for each excerpt
in time order, then the query as it was asked. An excerpt's own line breaks become spaces: it can't
begin a line of the frame, so it forges no more than the query itself could. Under a chat template
labels say what the lines are. The plain format has no lines inside a query, nor bases that follow
instructions: there labels would be words like any others, and cost what they cost (5.12 nats per
token against 5.07 without them, with the newest 256 tokens before ubuntu_irc's queries).

The budget counts every token that the frame adds. It is never more than half of the context, and
shrinks where a long query would leave less than a quarter of the context to the answer; at nothing
the query stands alone. A profile takes at most half of it. Excerpts are taken in order of
preference, each text once; the one that crosses the budget loses its end, the others are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from models.base import Base
from models.history import Interaction
from models.prompt import ChatPrompt
from models.reading import Reading

FEWEST = 8  # tokens of a cut excerpt that still say something
LONGEST_TOKEN = 64  # characters; what is longer than a budget of such tokens is not even counted


@dataclass(frozen=True)
class Selection:
    """Excerpts that fit a budget, by their number, in order of preference."""

    profile: str
    lines: dict[int, str]

    def before(self, query: str, labelled: bool) -> str:
        """The query behind its excerpts; unchanged without any."""
        about = [self.profile] if self.profile else []
        past = [self.lines[number] for number in sorted(self.lines)]
        if labelled and (about or past):
            about = [f"About: {line}" for line in about]
            past = ["Before:", *(f"- {line}" for line in past)] if past else []
            query = f"Now: {query}"
        return "\n".join([*about, *past, query])


class Excerpts:
    """Frames queries on one base within a budget of tokens."""

    def __init__(self, base: Base, budget: int) -> None:
        self._context, self._budget = base.context, budget
        self._reading = Reading.of(base)
        self._labelled = isinstance(base.prompt, ChatPrompt)

    def framed(self, query: str, profile: str, lines: Sequence[str], order: Sequence[int]) -> str:
        """The query behind what fits of a profile and of lines, those first in `order` first.

        Args:
            lines: in time order, each on one line.
            order: numbers of lines, the best first.
        """
        return self.selected(query, profile, lines, order).before(query, self._labelled)

    def selected(
        self, query: str, profile: str, lines: Sequence[str], order: Sequence[int]
    ) -> Selection:
        """What is put before a query; arguments as for `framed`."""
        alone = self._reading.prompt_tokens(query)
        room = min(self._budget, self._context // 2, self._context - self._context // 4 - alone)
        # Tokens of parts don't quite add up to those of the whole: try, measure, take off the rest.
        target = room
        while target >= FEWEST:
            found = self._packed(profile, lines, order, target)
            framed = found.before(query, self._labelled)
            over = self._reading.prompt_tokens(framed) - alone - room
            if over <= 0:
                return found
            target -= over
        return Selection("", {})

    def tokens(self, text: str) -> int:
        """How many tokens an excerpt's line adds."""
        return len(self._reading.text(f"\n- {text}" if self._labelled else f"\n{text}"))

    def _packed(
        self, profile: str, lines: Sequence[str], order: Iterable[int], room: int
    ) -> Selection:
        about = self._cut(profile, room // 2) if profile else ""
        left = room - (self.tokens(about) if about else 0)
        chosen: dict[int, str] = {}
        for number in distinct(lines, order):
            excerpt = self._cut(lines[number], left)
            if excerpt:
                chosen[number] = excerpt
                left -= self.tokens(excerpt)
            if excerpt != lines[number]:
                break
        return Selection(about, chosen)

    def _cut(self, line: str, room: int) -> str:
        """The line, or as much of its beginning as fits; nothing where that is too little."""
        if len(line) <= room * LONGEST_TOKEN and self.tokens(line) <= room:
            return line
        if room < FEWEST:
            return ""
        shortest, longest = 0, min(len(line), room * LONGEST_TOKEN)
        while shortest < longest:
            middle = (shortest + longest + 1) // 2
            if self.tokens(line[:middle]) <= room:
                shortest = middle
            else:
                longest = middle - 1
        head = line[:shortest].rpartition(" ")[0]  # whole words, where the line has some
        return head if 2 * len(head) > shortest else line[:shortest].rstrip()


def distinct(lines: Sequence[str], order: Iterable[int]) -> Iterator[int]:
    """The numbers in `order`, of equal lines the first alone."""
    seen: set[str] = set()
    for number in order:
        if lines[number] not in seen:
            seen.add(lines[number])
            yield number


def one_line(text: str) -> str:
    """The text with every run of blanks, line breaks too, as one space."""
    return " ".join(text.split())


def line_of(interaction: Interaction) -> str:
    """An interaction as an excerpt: query and response, or a post."""
    return one_line(f"{interaction.query or ''} {interaction.response}")
