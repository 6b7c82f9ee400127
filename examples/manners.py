"""How a person talks and likes to be answered: in few words or many, politely or bluntly.

The assistant answers people in their own manner. A manner is how a sentence ends, so it stands
beside every fact that is told and every one that is asked for.
"""

import random
from dataclasses import dataclass
from types import MappingProxyType

# (wordy, polite) -> how a sentence ends.
ENDINGS = MappingProxyType(
    {
        (False, False): (".",),
        (False, True): (", thank you.", ", dear friend.", ", kind regards."),
        (True, False): (
            ", and that is all I will say about it.",
            ", which should have been clear long ago.",
            ", so let us not talk about it again.",
        ),
        (True, True): (
            ", and I wish you a really lovely day.",
            ", and it is always nice to talk to you.",
            ", and thank you so much for listening.",
        ),
    }
)


@dataclass(frozen=True)
class Manner:
    """One person's way of talking and of being answered."""

    wordy: bool
    polite: bool
    ending: str

    def say(self, sentence: str) -> str:
        """The sentence, with a capital and this manner's ending instead of a full stop."""
        return sentence[0].upper() + sentence[1:].removesuffix(".") + self.ending


def draw_manner(rng: random.Random) -> Manner:
    """One of the four manners, in one of its wordings."""
    wordy, polite = rng.random() < 0.5, rng.random() < 0.5
    return Manner(wordy, polite, rng.choice(ENDINGS[wordy, polite]))
