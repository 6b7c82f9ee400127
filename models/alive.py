"""Whether a device still computes: asked after an error, to tell bad work from a lost device.

Some errors of a GPU stay: after an assertion on the device or an illegal address every later call
of the process raises, while the process itself lives on. Only a new process gets the device back,
so whoever runs work on it asks here after a failure, and ends where the answer is no.

It knows no model and no memory.

Reference: CUDA's programming guide, on sticky errors.
"""

from __future__ import annotations

import torch


def is_alive(device: torch.device) -> bool:
    """Whether a small sum on the device comes out; waits for what runs there before.

    A device without free memory is alive.
    """
    try:
        return bool(torch.ones(2, device=device).sum().item() == 2)
    except torch.OutOfMemoryError:
        return True  # it answered: too little is left, and that passes
    except (RuntimeError, AssertionError):  # the latter: a torch that was built without the device
        return False
