"""The most bytes held at once, counted by hand."""

from __future__ import annotations

import torch

from models.peak import peak

CPU = torch.device("cpu")


def test_what_is_let_go_no_longer_counts() -> None:
    with peak(CPU) as found:
        first = torch.zeros(1000)
        second = first + 1  # 8000 bytes are held
        del first, second
        third = torch.zeros(500)
        fourth = third + 1  # 4000
    assert found.bytes == 8000
    assert float(fourth[0]) == 1


def test_what_was_there_before_and_views_of_it_take_nothing() -> None:
    weight = torch.zeros(100, 10)
    with peak(CPU) as found:
        product = torch.ones(10) @ weight.t()[:, :50]
    assert found.bytes == 10 * 4 + 50 * 4
    assert product.shape == (50,)


def test_what_waits_for_the_backward_pass_counts_and_so_do_gradients() -> None:
    weight = torch.ones(1000, requires_grad=True)
    with peak(CPU) as found:
        kept = weight.exp()  # exp keeps its result
        loss = kept.sum()
        del kept
        loss.backward()
    # The result, the loss, and in the backward pass the gradient of either, the last a product.
    assert 2 * 4000 <= found.bytes <= 3 * 4000 + 100
    with torch.no_grad(), peak(CPU) as found:
        weight.exp().sum()
    assert found.bytes == 4000 + 4


def test_a_tensor_outlives_the_count() -> None:
    with peak(CPU):
        kept = torch.zeros(1000)
    with peak(CPU) as found:
        del kept
        torch.zeros(10)
    assert found.bytes == 40
