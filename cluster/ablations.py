"""The paper's ablations as presets: what each changes of the default experiment, and nothing else.

The search space (MiLP, Table 4): which of the number of layers, the size (rank) and the layers
themselves are searched. What is not searched is fixed:

    layers off    every layer is marked; the number alone says how many of them, evenly spaced
    number off    the budget is its largest, min(32, L)
    size off      rank 32, that of the paper's memory without a search (Table 7)

The components (Table 5): memory injection alone, instruction tuning alone, both; and both one after
the other, without rehearsal of what was injected (`models/milp.py`), as the paper has them.

NOTE: on a base of at most 32 layers a budget of the largest number binds nothing, so
`search-layers` and `search-number-layers` hold the same configurations (and so do
`search-size-layers` and `search-all`): they differ in what random points are like and in what the
surrogate sees.

The learning rate stays searched in all of them, as in the default: fixed at one value it would
favour whichever space that value happens to suit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

FIXED_RANK = 32

AblationName = Literal[
    "search-number",
    "search-size",
    "search-layers",
    "search-number-size",
    "search-number-layers",
    "search-size-layers",
    "search-all",
    "stages-injection",
    "stages-tuning",
    "stages-both",
    "stages-apart",
]

_NO_NUMBER: Mapping[str, Any] = {"search_number": False}
_NO_LAYERS: Mapping[str, Any] = {"search_layers": False}
_NO_SIZE: Mapping[str, Any] = {"ranks": (FIXED_RANK,)}

ABLATIONS: Mapping[AblationName, Mapping[str, Any]] = {
    "search-number": {**_NO_LAYERS, **_NO_SIZE},
    "search-size": {**_NO_LAYERS, **_NO_NUMBER},
    "search-layers": {**_NO_NUMBER, **_NO_SIZE},
    "search-number-size": _NO_LAYERS,
    "search-number-layers": _NO_SIZE,
    "search-size-layers": _NO_NUMBER,
    "search-all": {},
    "stages-injection": {"tuning_epochs": 0},
    "stages-tuning": {"injection_epochs": 0},
    "stages-both": {},
    "stages-apart": {"rehearse": False},
}
"""Fields of an `Experiment` that differ from the default's."""
