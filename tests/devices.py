"""A device that fails, on machines that have none to break."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Failing(TorchDispatchMode):
    """Within it every operation of this thread raises, as after a sticky error of a GPU."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self._error = error or torch.AcceleratorError("a device-side assertion failed")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise self._error
