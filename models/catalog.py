"""Name -> personalizer, and a base as any of them runs it."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from models.base import Base
from models.combined import milp_with_retrieval, pplug_with_retrieval
from models.e2p import E2p
from models.encoder import BASE
from models.lora_all import LoraAll
from models.lpm import Lpm
from models.malp import Malp
from models.milp import Milp
from models.nothing import Nothing
from models.oppu import Oppu
from models.personalizer import Attach, Frame, Personalizer, attach_each, frame_each
from models.pplug import Pplug
from models.prompt_tuning import PromptTuning
from models.shared_prompt import SharedPrompt
from models.text import Rag, Tplp
from models.uelp import Uelp, UelpCross

PERSONALIZERS: dict[str, Callable[[], Personalizer]] = {
    "e2p": E2p,
    "lora-all": LoraAll,
    "lpm": Lpm,
    "malp": Malp,
    "milp": Milp,
    "milp+rag": milp_with_retrieval,
    "none": Nothing,
    "oppu": Oppu,
    "pplug": Pplug,
    "pplug+rag": pplug_with_retrieval,
    "prompt-tuning": PromptTuning,
    "prompt-tuning-shared": SharedPrompt,
    "rag": Rag,
    "tplp": Tplp,
    "uelp": Uelp,
    "uelp-cross": UelpCross,
}


def personalizer(name: str, encoder: str = BASE) -> Personalizer:
    """The method of a name.

    Args:
        name: one of `PERSONALIZERS`.
        encoder: whose vectors a method learns with that reads texts as vectors: `base` for the
            base's own hidden states, or a hub name or folder. States say which one they need.

    Raises:
        ValueError: no such method; names those there are.
    """
    if name not in PERSONALIZERS:
        raise ValueError(f"expected one of {', '.join(sorted(PERSONALIZERS))}; got {name[:80]!r}")
    make = PERSONALIZERS[name]
    reads = "encoder" in inspect.signature(make).parameters
    return make(encoder=encoder) if reads else make()  # type: ignore[call-arg]


def attach_all(base: Base) -> Attach:
    """A context in which each row runs under its state, whatever method made it."""
    return attach_each({name: make() for name, make in PERSONALIZERS.items()}, base)


def frame_all(base: Base) -> Frame:
    """A query with what the method of a state puts before it."""
    return frame_each({name: make() for name, make in PERSONALIZERS.items()}, base)
