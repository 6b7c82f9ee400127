"""Work for many users at once, or for each apart where one user's error would be everybody's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from models.storage import DamagedState

Item = TypeVar("Item")
Found = TypeVar("Found")


def together_or_apart(
    work: Callable[[Sequence[Item]], Sequence[Found]], items: Sequence[Item]
) -> list[Found | ValueError]:
    """What `work` makes of each item; in its place the error of one that can't be worked on.

    Raises:
        DamagedState: what is stored is not what was written. That says nothing of any item.
    """
    if not items:
        return []
    try:
        return list(work(items))
    except DamagedState:
        raise
    except ValueError as error:
        if len(items) == 1:
            return [error]
    return [found for item in items for found in together_or_apart(work, [item])]


def common_reason(errors: Sequence[ValueError]) -> str | None:
    """What several users' errors say where they all say the same: then they are nobody's words."""
    said = {str(error) for error in errors}
    return said.pop()[:300] if len(errors) > 1 and len(said) == 1 else None
