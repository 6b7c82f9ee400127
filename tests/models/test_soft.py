"""Soft tokens: vectors in the place of embeddings, for every family, with a gradient."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from models.base import Base
from models.decoding import generate
from models.loss import row_nll
from models.milp import Milp
from models.parts import Parts, running
from models.personalizer import Framed, Personalizer, UserState, attach, attach_each, frame_each
from models.prompt import Row
from models.soft import SoftTokens, soft_ids, with_soft
from tests.states import a_state
from tests.tiny import ALL_FAMILIES, tiny_base


def vectors(base: Base, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, base.width, generator=generator, dtype=base.dtype)


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_the_embedding_of_a_token_as_a_soft_token_is_that_token(family: str) -> None:
    base = tiny_base(family, torch.float64)
    tokens = [5, 9, 40, 77]
    embedded = base.model.get_input_embeddings()(torch.tensor(tokens[:2]))
    with torch.no_grad():
        expected = base.hidden(torch.tensor([tokens, tokens]))
        soft = torch.tensor([[*soft_ids(2), *tokens[2:]], tokens])
        with SoftTokens.of(base).rows([embedded.detach(), None]):
            found = base.hidden(soft)
    assert_close(found, expected, rtol=0, atol=1e-12)


def test_each_row_has_vectors_of_its_own_and_they_take_a_gradient() -> None:
    base = tiny_base(dtype=torch.float64)
    own, others = vectors(base, 3, 1).requires_grad_(), vectors(base, 2, 2).requires_grad_()
    rows = [
        Row((*soft_ids(3), 5, 6, 7), 5),
        Row((8, 9, 10), 1),
        Row((*soft_ids(2), 5, 6), 3),
    ]
    with running(base, [Parts(soft=own), Parts(), Parts(soft=others)]):
        together = row_nll(base, rows)
    for row, soft, nll in zip(rows, (own, None, others), together, strict=True):
        with running(base, [Parts(soft=soft)]):
            assert_close(row_nll(base, [row])[0], nll, rtol=0, atol=1e-12)
    of_own, of_others = torch.autograd.grad(together[0], [own, others])
    assert (of_own != 0).any(1).all()
    assert (of_others == 0).all()


def test_soft_tokens_stand_behind_what_begins_a_prompt_and_cut_its_oldest_words() -> None:
    row = Row((0, 11, 12, 13, 21, 22), 4)
    assert with_soft(row, 0, [0], 9) is row
    assert with_soft(row, 2, [0], 9) == Row((0, -1, -2, 11, 12, 13, 21, 22), 6)
    assert with_soft(row, 2, [0], 6) == Row((0, -1, -2, 13, 21, 22), 4, 2)
    assert with_soft(row, 3, [0], 5) == Row((0, -1, -2, -3, 13), 5, 4)
    assert with_soft(Row((11, 21), 1), 1, [0], 9) == Row((-1, 11, 21), 2)
    with pytest.raises(ValueError, match="room for 4 soft tokens"):
        with_soft(row, 4, [0], 5)


class _Fixed:
    """A method whose soft tokens are a state's own tensor."""

    name = "fixed"

    def parts(self, base: Base, states: list[UserState], prompts: object) -> list[Parts]:
        return [Parts(soft=state.tensors["soft"]) for state in states]

    def frame(self, base: Base, state: UserState, query: str) -> Framed:
        return Framed(query, len(state.tensors["soft"]))


def test_methods_share_a_batch_and_answer_as_each_alone() -> None:
    base = tiny_base()
    fixed = cast(Personalizer, _Fixed())
    methods = {"milp": cast(Personalizer, Milp()), "fixed": fixed}
    soft = UserState("fixed", "ann", {}, {"soft": vectors(base, 3, 1)})
    states = [a_state("bob"), soft, None]
    framed = [frame_each(methods, base)(state, "Where is my dog?") for state in states]
    assert [one.soft_tokens for one in framed] == [0, 3, 0]
    prompts = []
    for one in framed:
        tokens = tuple(base.prompt.prompt(one.query))
        row = with_soft(Row(tokens, len(tokens)), one.soft_tokens, base.prompt.begin, base.context)
        prompts.append(row.tokens)
    together = generate(base, prompts, states, attach_each(methods, base), 8)
    alone = [
        generate(base, [prompt], [state], attach_each(methods, base), 8)[0]
        for prompt, state in zip(prompts, states, strict=True)
    ]
    assert together == alone
    assert len({tuple(tokens) for tokens in together}) == 3
    (same,) = generate(base, prompts[1:2], [soft], attach(fixed, base), 8)
    assert same == together[1]
