"""What counts as a word, wherever an answer is compared with a text.

Words are runs of letters, digits and combining marks, in lower case; characters of scripts written
without spaces (Han, kana) are words of their own. On ASCII text this is exactly the splitting of
the ROUGE package, which drops every other script.

The stop words in `stopwords.txt` are the function words of Porter's English list, with
contractions split as `words` splits them.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from pathlib import Path

_UNSPACED = (
    (0x3040, 0x30FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


class _Separated(dict[int, str]):
    """Code point -> what it becomes before splitting at spaces; filled as characters are met."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if _unspaced(character):
            self[code] = f" {character} "
        else:
            self[code] = character if unicodedata.category(character)[0] in "LMN" else " "
        return self[code]


_SEPARATED = _Separated()


def words(text: str) -> list[str]:
    """The words of a text in order, in lower case, without punctuation."""
    return unicodedata.normalize("NFC", text).lower().translate(_SEPARATED).split()


@cache
def stop_words() -> frozenset[str]:
    """English function words."""
    return frozenset(Path(__file__).with_name("stopwords.txt").read_text(encoding="utf-8").split())


def holds(text: str, value: str) -> bool:
    """Whether `value` (one word or several) stands in the text as whole words, in any case.

    Punctuation inside a value counts (`C++` is not `C`); any run of spaces equals any other.
    """
    return bool(value.strip()) and _whole(_folded(value)).search(_folded(text)) is not None


@cache
def _whole(value: str) -> re.Pattern[str]:
    """A pattern that finds a folded value between word boundaries."""
    before = r"(?<!\w)" if _bounded(value[0]) else ""
    after = r"(?!\w)" if _bounded(value[-1]) else ""
    return re.compile(before + re.escape(value) + after)


def _bounded(character: str) -> bool:
    return character.isalnum() and not _unspaced(character)


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().replace("\u2019", "'").split())


def _unspaced(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in _UNSPACED)
