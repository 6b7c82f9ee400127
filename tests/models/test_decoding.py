"""A running batch answers every row as it would alone, whoever joins or leaves."""

from __future__ import annotations

import pytest
import torch

from models.base import Base
from models.decoding import Decoder, Sampling, generate
from models.milp import Milp
from models.personalizer import Attach, UserState, attach
from tests.models.test_bank import random_memory
from tests.tiny import ALL_FAMILIES, tiny_base

PROMPTS = [list(range(5, 12)), list(range(30, 70)), [9], list(range(100, 119)), [44, 3, 8]]


def states_of(base: Base) -> list[UserState | None]:
    first, second = random_memory(base, (0, 2), 4, 1), random_memory(base, (1,), 4, 2)
    ann = UserState("milp", "ann", {}, first.tensors())
    bob = UserState("milp", "bob", {}, second.tensors())
    return [ann, None, bob, ann, bob]


def reference(base: Base, prompt: list[int], state: UserState | None, attach: Attach) -> list[int]:
    """Twenty greedy tokens, without any cache: the whole sequence again for each token."""
    tokens = list(prompt)
    for _ in range(20):
        with torch.no_grad(), attach([state]):
            logits = base.logits(base.hidden(torch.tensor([tokens])))
        token = int(logits[0, -1].argmax())
        if base.prompt.ends_answer(token):
            break
        tokens.append(token)
    return tokens[len(prompt) :]


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_mixed_batch_with_cache_equals_each_row_alone_without(family: str) -> None:
    base = tiny_base(family, torch.float64)
    states, attached = states_of(base), attach(Milp(), base)
    answers = generate(base, PROMPTS, states, attached, 20)
    expected = [reference(base, p, s, attached) for p, s in zip(PROMPTS, states, strict=True)]
    assert answers == expected
    assert len({tuple(answer) for answer in answers}) > 1
    assert answers == generate(base, PROMPTS, states, attached, 20, rows=2)


def test_rows_that_join_and_leave_change_no_other() -> None:
    base = tiny_base(dtype=torch.float64)
    states, attached = states_of(base), attach(Milp(), base)
    decoder = Decoder(base, attached)
    taken: dict[int, list[int]] = {}

    def step() -> None:
        for number, token in decoder.step():
            taken.setdefault(number, []).append(token)

    numbers = decoder.join([PROMPTS[2]], [states[2]], [Sampling()])
    for _ in range(4):
        step()
    numbers += decoder.join(PROMPTS[:2], states[:2], [Sampling()] * 2)
    for _ in range(3):
        step()
    decoder.leave([numbers[1]])
    numbers += decoder.join([PROMPTS[3]], [states[3]], [Sampling()])
    for _ in range(12):
        step()
    assert len(decoder) == 3
    for number, i in zip(numbers, (2, 0, 1, 3), strict=True):
        alone = Decoder(base, attached)
        alone.join([PROMPTS[i]], [states[i]], [Sampling()])
        expected = [alone.step()[0][1] for _ in taken[number]]
        assert taken[number] == expected
        assert len(expected) >= 2


def test_sampling_is_each_rows_own() -> None:
    base = tiny_base()
    attached = attach(Milp(), base)
    warm = Sampling(temperature=1.0, top_p=0.9, seed=3)
    alone = generate(base, [PROMPTS[0]], [None], attached, 15, warm)
    decoder = Decoder(base, attached)
    samplings = [Sampling(temperature=1.0, seed=8), warm, Sampling()]
    numbers = decoder.join([PROMPTS[1], PROMPTS[0], PROMPTS[0]], [None] * 3, samplings)
    steps = [dict(decoder.step()) for _ in range(len(alone[0]))]
    assert [step[numbers[1]] for step in steps] == alone[0]
    assert [step[numbers[2]] for step in steps] != alone[0]


def test_rows_that_pause_go_on_where_they_were() -> None:
    base = tiny_base(dtype=torch.float64)
    states, attached = states_of(base), attach(Milp(), base)
    warm = Sampling(temperature=1.0, seed=3)
    samplings = [Sampling(), warm, Sampling(), warm, Sampling()]

    def taken(pauses: bool) -> list[list[int]]:
        decoder = Decoder(base, attached)
        numbers = decoder.join(PROMPTS, states, samplings)
        answers: dict[int, list[int]] = {number: [] for number in numbers}
        for time in range(12):
            if pauses and time == 3:
                decoder.pause([numbers[1], numbers[2], numbers[4]])
                assert len(decoder) == 2
            if pauses and time == 6:
                decoder.resume([numbers[2], numbers[1]])
                decoder.leave([numbers[4]])
            for number, token in decoder.step():
                answers[number].append(token)
        with pytest.raises(KeyError):
            decoder.resume([numbers[4]])
        return list(answers.values())

    whole, paused = taken(False), taken(True)
    assert [len(answer) for answer in paused] == [12, 9, 9, 12, 3]
    assert all(whole[i][: len(answer)] == answer for i, answer in enumerate(paused))


@pytest.mark.parametrize("top_p", [1e-6, 1e-46, 1e-300])  # the last two are 0 as a float32
def test_top_p_of_almost_nothing_is_greedy(top_p: float) -> None:
    base = tiny_base()
    attached = attach(Milp(), base)
    narrow = Sampling(temperature=2.0, top_p=top_p, seed=1)
    greedy = generate(base, PROMPTS, [None] * 5, attached, 10)
    assert generate(base, PROMPTS, [None] * 5, attached, 10, narrow) == greedy


def test_an_answer_ends_at_its_limit_and_at_the_end_of_the_context() -> None:
    base = tiny_base(dtype=torch.float64)
    attached = attach(Milp(), base)
    long = [list(range(10, 10 + base.context - 4)), PROMPTS[0]]
    answers = generate(base, long, [None, None], attached, [50, 3])
    assert len(answers[0]) <= 4
    assert len(answers[1]) <= 3


def test_refuses_prompts_that_leave_no_room() -> None:
    base = tiny_base()
    decoder = Decoder(base, attach(Milp(), base))
    for prompt in ([], list(range(base.context))):
        with pytest.raises(ValueError, match=r"1 to 127 tokens"):
            decoder.join([prompt], [None], [Sampling()])
