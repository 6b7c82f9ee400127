"""The main method: what its two stages read, how long they are, and what comes out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from models.history import Interaction
from models.loss import row_losses
from models.milp import Milp, injection_rows, newest, pair_rows, stages_of
from models.personalizer import Budget, Task, UserState, attach, fit
from models.prompt import Row
from search.space import BASE_CONFIG, MemoryConfig
from tests.tiny import tiny_base, tiny_interactions

CONFIG = MemoryConfig((0, 2), 8, 5e-3)


def task(user: str = "ann", count: int = 40, **changes: object) -> Task:
    items = tiny_interactions(user, count)
    cut = count * 7 // 10
    made = Task(f"{user}/x", user, tuple(items[:cut]), tuple(items[cut : cut + 5]), CONFIG, 1)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_each_of_the_users_texts_is_a_row_and_a_long_one_several() -> None:
    base = tiny_base()
    long = "one two three four " * 100
    rows = injection_rows(base, ["one two", long, "three\nfour"])
    first, *parts, last = rows
    begin, end = base.prompt.begin, base.prompt.post("x")[-1]
    assert first.tokens == (*begin, *base.prompt.post("one two"))
    assert last.tokens == (*begin, *base.prompt.post("three four"))
    assert {len(row.tokens) for row in parts[:-1]} == {128}
    whole = [token for row in parts for token in row.tokens]
    assert whole == [*begin, *base.prompt.post(long)]
    assert {row.predict_from for row in rows} == {1}
    assert [row.tokens[-1] for row in (first, parts[-1], last)] == [end] * 3
    assert injection_rows(base, []) == ()


@pytest.mark.parametrize("user_said", ["response", "query", "both"])
def test_tuning_goes_on_reading_what_no_answer_says(user_said: str) -> None:
    base, pairs = tiny_base(), task().train
    train = (*pairs[:3], Interaction("ann", 0.5, None, "just a post of mine"), *pairs[3:])
    wanted = task(train=train, user_said=user_said)
    tuned = stages_of(base, wanted)[0][1].rows
    queries = [pair.query or "" for pair in pairs] if user_said != "response" else []
    texts = [*queries[:3], "just a post of mine", *queries[3:]]
    assert tuned == (*pair_rows(base, pairs), *injection_rows(base, texts))
    for budget in (Budget(rehearse=False), Budget(injection_epochs=0)):
        stages, _ = stages_of(base, replace(wanted, budget=budget))
        assert stages[-1].rows == pair_rows(base, pairs)


@pytest.mark.parametrize(
    ("user_said", "inside", "outside"),
    [("response", "fine", "question"), ("query", "question", "fine")],
)
def test_injection_reads_the_users_own_words(user_said: str, inside: str, outside: str) -> None:
    base = tiny_base()
    stages, _ = stages_of(base, task(user_said=user_said))
    words = base.prompt.decode([t for row in stages[0].rows for t in row.tokens])
    assert inside in words
    assert outside not in words
    assert stages[0].name == "injection"


def test_posts_are_injected_and_never_tuned() -> None:
    base = tiny_base()
    post = Interaction("ann", 99.0, None, "just a post of mine")
    with_post = task()
    with_post = replace(with_post, train=(*with_post.train, post))
    stages, _ = stages_of(base, with_post)
    words = base.prompt.decode([t for row in stages[0].rows for t in row.tokens])
    assert "just a post of mine" in words
    assert stages[1].rows[: len(task().train)] == pair_rows(base, task().train)


def test_stages_are_switchable_and_stretched_to_the_minimum_of_steps() -> None:
    base = tiny_base()
    only = Budget(injection_epochs=0, tuning_epochs=1, minimum_steps=20)
    stages, _ = stages_of(base, task(budget=only))
    assert [stage.name for stage in stages] == ["tuning"]
    assert stages[0].steps >= 20
    assert stages[0].epoch_steps * (stages[0].epochs - 1) < 20
    injection = Budget(tuning_epochs=0)
    assert [s.name for s in stages_of(base, task(budget=injection))[0]] == ["injection"]
    with pytest.raises(ValueError, match="words of the user"):
        stages_of(base, task(budget=Budget(injection_epochs=0, tuning_epochs=0)))


def test_the_newest_tokens_are_kept_and_the_rest_counted() -> None:
    rows = [Row(tuple(range(n)), 1) for n in (10, 20, 30)]
    assert newest(rows, 55) == ((rows[1], rows[2]), 10)
    assert newest(rows, 5) == ((rows[2],), 30)
    assert newest(rows, None) == (tuple(rows), 0)
    _, counts = stages_of(tiny_base(), task(budget=Budget(epoch_tokens=100)))
    assert counts["tokens_beyond_epoch"] > 0


def test_a_memory_lowers_the_validation_loss_and_carries_it_in_its_state() -> None:
    base = tiny_base()
    milp = Milp()
    wanted = task(budget=Budget(tuning_epochs=8, patience_epochs=8))
    done = fit(milp, base, [wanted])[0]
    rows = pair_rows(base, wanted.validation)
    assert done.state is not None
    attached = attach(milp, base)

    def loss(state: UserState | None) -> float:
        losses = row_losses(base, rows, [state] * len(rows), attached)
        return sum(nll for nll, _ in losses) / sum(count for _, count in losses)

    assert_close(loss(done.state), done.loss_nats, rtol=0, atol=1e-5)
    assert loss(done.state) < loss(None) - 0.5
    assert set(done.state.tensors) == {
        f"{name}.lora_{letter}.weight"
        for layer in CONFIG.layers
        for name in base.matrix_shapes(layer)
        for letter in "AB"
    }
    assert MemoryConfig.from_json(done.state.configuration) == CONFIG


def test_users_together_equal_each_alone() -> None:
    base = tiny_base(dtype=torch.float64)
    tasks = [
        task("ann", 40),
        task("bob", 25, configuration=MemoryConfig((1,), 16, 1e-3)),
        task("cat", 60, configuration=MemoryConfig((0, 1, 2, 3), 8, 2e-3)),
    ]
    together = fit(Milp(), base, tasks)
    for got, one in zip(together, tasks, strict=True):
        alone = fit(Milp(), tiny_base(dtype=torch.float64), [one])[0]
        assert got.steps == alone.steps
        assert got.state is not None
        assert alone.state is not None
        for name, tensor in got.state.tensors.items():
            assert_close(tensor, alone.state.tensors[name], rtol=0, atol=1e-9)


def test_the_empty_configuration_is_the_base() -> None:
    base = tiny_base()
    done = fit(Milp(), base, [task(configuration=BASE_CONFIG)])[0]
    assert done.state is not None
    assert done.state.is_base


def test_a_stopped_task_is_never_reported() -> None:
    fitting = Milp().start(tiny_base())
    fitting.add(task("ann"))
    fitting.add(task("bob"))
    fitting.step()
    fitting.stop("ann/x")
    keys = set()
    while fitting.running:
        reports, finished = fitting.step()
        keys |= {report.key for report in reports} | {done.key for done in finished}
    assert keys == {"bob/x"}
