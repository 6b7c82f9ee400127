"""Name -> personalizer."""

from __future__ import annotations

from collections.abc import Callable

from models.milp import Milp
from models.nothing import Nothing
from models.personalizer import Personalizer

PERSONALIZERS: dict[str, Callable[[], Personalizer]] = {"milp": Milp, "none": Nothing}


def personalizer(name: str) -> Personalizer:
    """The method of a name.

    Raises:
        ValueError: no such method; names those there are.
    """
    if name not in PERSONALIZERS:
        raise ValueError(f"expected one of {', '.join(sorted(PERSONALIZERS))}; got {name[:80]!r}")
    return PERSONALIZERS[name]()
