"""A device that computes, and devices that don't."""

from __future__ import annotations

import torch

from models.alive import is_alive
from tests.devices import Failing


def test_a_processor_is_alive() -> None:
    assert is_alive(torch.device("cpu"))


def test_a_device_that_is_not_there_is_not() -> None:
    assert not is_alive(torch.device("cuda", 63))


def test_a_device_whose_every_operation_raises_is_not() -> None:
    with Failing():
        assert not is_alive(torch.device("cpu"))
    assert is_alive(torch.device("cpu"))


def test_a_device_that_is_full_is_alive() -> None:
    with Failing(torch.OutOfMemoryError("nothing is free")):
        assert is_alive(torch.device("cpu"))
