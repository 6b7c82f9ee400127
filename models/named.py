"""A module's tensors under names of a shared part: taken out of it, and put back."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


def tensors_of(module: nn.Module, name: str) -> dict[str, Tensor]:
    """Detached copies of a module's tensors on the CPU, as `<name>.<tensor>`."""
    return {
        f"{name}.{part}": tensor.detach().cpu().clone()
        for part, tensor in module.state_dict().items()
    }


def load(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Fill a module from tensors named `<name>.<tensor>`; it takes no gradient from then on.

    Raises:
        ValueError: a tensor is missing, too many, or has another shape.
    """
    own = {
        full.removeprefix(f"{name}."): tensor
        for full, tensor in tensors.items()
        if full.startswith(f"{name}.")
    }
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        raise ValueError(f"expected the tensors of a {name}: {error}") from error
    module.requires_grad_(False)
