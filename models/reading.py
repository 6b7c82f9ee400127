"""Texts to tokens on threads that don't run the base.

A tokenizer must not be set up differently while another thread uses it, and while answers are
written the engine's thread decodes with the base's own. So whoever frames a request counts tokens
with a copy, one thread at a time.
"""

from __future__ import annotations

import copy
import threading
from typing import ClassVar
from weakref import WeakKeyDictionary

from torch import nn

from models.base import Base
from models.prompt import PlainPrompt, flatten


class Reading:
    """A base's prompt format, for any thread. Use `Reading.of(base)`: a base has one."""

    _made: ClassVar[WeakKeyDictionary[nn.Module, Reading]] = WeakKeyDictionary()
    _making: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, prompt: PlainPrompt) -> None:
        self._prompt = copy.deepcopy(prompt)
        self._lock = threading.Lock()

    @classmethod
    def of(cls, base: Base) -> Reading:
        """The reading of a base, made at first use."""
        with cls._making:
            if base.model not in cls._made:
                cls._made[base.model] = cls(base.prompt)
            return cls._made[base.model]

    def text(self, text: str) -> list[int]:
        """Tokens of bare words on one line."""
        with self._lock:
            return self._prompt.text(flatten(text))

    def prompt_tokens(self, query: str) -> int:
        """How many tokens a query's prompt has."""
        with self._lock:
            return len(self._prompt.prompt(query))
