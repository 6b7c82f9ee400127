"""The workbench on a tiny random base: real training, real scores, a real registry."""

from __future__ import annotations

import json

import pytest
import torch

from cluster.experiment import Experiment
from cluster.failures import reason_of
from cluster.folder import RunFolder
from cluster.results import UserResult
from cluster.trial import Event
from cluster.workbench import BenchSettings, Workbench
from models.history import Histories, split, user_digest
from models.peak import peak
from models.published import WINNER_IS_BASE
from models.registry import Registry
from search.space import BASE_CONFIG, MemoryConfig
from tests.cluster import tiny_run

CONFIG = MemoryConfig((1, 3), 4, 1e-2)
WEAK = MemoryConfig((0,), 4, 1e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    place = tmp_path_factory.mktemp("bench")
    data = tiny_run.write_data(place)
    tiny_run.write_base(place)
    folder = RunFolder(place / "run")
    folder.begin(resume=False)
    Histories.read(data, folder.data)
    return folder


@pytest.fixture(scope="module")
def bench(folder: RunFolder) -> Workbench:
    experiment = Experiment(
        "data",
        "base",
        injection_epochs=1,
        tuning_epochs=1,
        winner_epochs=2,
        items=2,
        dtype="float32",
    )
    base = str(folder.path.parent / "base")
    return Workbench(BenchSettings(folder.path, base, experiment, "cpu"))


@pytest.fixture(scope="module")
def in_4_bits(folder: RunFolder) -> Workbench:
    experiment = Experiment("data", "base", injection_epochs=0, items=2, dtype="4bit")
    base = str(folder.path.parent / "base")
    return Workbench(BenchSettings(folder.path, base, experiment, "cpu"))


@pytest.fixture(scope="module")
def digests(folder: RunFolder) -> list[str]:
    return [user_digest(folder.key(), user) for user in tiny_run.USERS]


def worked(bench: Workbench) -> dict[str, list[Event]]:
    """All events by task, until nothing is left to do."""
    found: dict[str, list[Event]] = {}
    while bench.busy():
        events = bench.train()
        events += bench.score(bench.ready()) if bench.ready() else []
        for name, event in events:
            found.setdefault(name, []).append(event)
    return found


def test_trials_of_several_users_give_checkpoints_and_objectives(
    bench: Workbench, digests: list[str]
) -> None:
    for i, digest in enumerate(digests):
        bench.add(f"trial-{i}", digest, CONFIG, seed=i)
    found = worked(bench)
    assert set(found) == {"trial-0", "trial-1"}
    for events in found.values():
        assert {event["stage"] for event in events[:-1]} == {"injection", "tuning"}
        assert not any(event["done"] for event in events[:-1])
        end = events[-1]
        assert end["done"]
        assert end["item_count"] == 2
        assert end["steps"] >= 20
        assert end["loss_nats"] > 0
        assert 0 <= end["rouge_l"] <= 1


def test_a_trial_runs_on_a_base_in_the_experiments_numbers(
    bench: Workbench, in_4_bits: Workbench, digests: list[str]
) -> None:
    losses = []
    for one in (bench, in_4_bits):
        one.add("numbers", digests[0], CONFIG, seed=0)
        losses.append(worked(one)["numbers"][-1]["loss_nats"])
    assert 1e-4 < abs(losses[0] - losses[1]) < 1


def test_recomputed_layers_train_the_same_and_keep_less(
    folder: RunFolder, bench: Workbench, digests: list[str]
) -> None:
    experiment = Experiment(
        "data", "base", injection_epochs=1, tuning_epochs=1, items=2, dtype="float32",
        recompute=True,
    )  # fmt: skip
    base = str(folder.path.parent / "base")
    lean = Workbench(BenchSettings(folder.path, base, experiment, "cpu"))
    kept, losses = [], []
    for one in (bench, lean):
        one.add("trial", digests[0], CONFIG, seed=3)
        with peak(torch.device("cpu")) as found:
            one.train()
        kept.append(found.bytes)
        losses.append(worked(one)["trial"][-1]["loss_nats"])
    assert kept[1] < 0.9 * kept[0]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


def test_a_trial_gives_the_same_alone_and_beside_others(
    bench: Workbench, digests: list[str]
) -> None:
    bench.add("alone", digests[0], CONFIG, seed=5)
    alone = worked(bench)["alone"][-1]
    bench.add("packed", digests[0], CONFIG, seed=5)
    bench.add("other", digests[1], WEAK, seed=6)
    packed = worked(bench)["packed"][-1]
    assert packed["loss_nats"] == pytest.approx(alone["loss_nats"], abs=1e-4)
    assert packed["steps"] == alone["steps"]


def test_the_base_is_scored_without_training(bench: Workbench, digests: list[str]) -> None:
    bench.add("anchor", digests[0], BASE_CONFIG, seed=0)
    (end,) = worked(bench)["anchor"]
    assert (end["done"], end["steps"]) == (True, 0)


def test_a_stopped_task_says_nothing_more(bench: Workbench, digests: list[str]) -> None:
    bench.add("stopped", digests[0], CONFIG, seed=0)
    bench.add("anchor", digests[1], BASE_CONFIG, seed=0)
    bench.train()
    bench.stop("stopped")
    bench.stop("anchor")
    bench.stop("nobody's")
    assert not bench.busy()
    assert worked(bench) == {}


def test_steps_and_the_memories_in_them_are_counted(bench: Workbench, digests: list[str]) -> None:
    steps, memories = bench.trained()
    bench.add("alone", digests[0], CONFIG, seed=0)
    bench.train()
    bench.add("beside", digests[1], CONFIG, seed=0)
    bench.add("anchor", digests[1], BASE_CONFIG, seed=0)  # which trains nothing
    bench.train()
    assert bench.trained() == (steps + 2, memories + 3)
    for name in ("alone", "beside", "anchor"):
        bench.stop(name)
    bench.train()
    assert bench.trained() == (steps + 2, memories + 3)


def test_giving_up_names_what_trained_and_leaves_a_working_bench(
    bench: Workbench, digests: list[str]
) -> None:
    bench.add("given up", digests[0], CONFIG, seed=0)
    assert bench.give_up() == ["given up"]
    bench.add("anchor", digests[0], BASE_CONFIG, seed=0)
    assert worked(bench)["anchor"][-1]["done"]


def test_an_unknown_user_fails_without_being_named(bench: Workbench) -> None:
    with pytest.raises(KeyError) as caught:
        bench.add("trial", "0123456789abcdef", CONFIG, seed=0)
    assert reason_of(caught.value).startswith("KeyError in subjects.py")
    assert not bench.busy()


def test_a_winner_is_published_with_its_result(
    bench: Workbench, folder: RunFolder, digests: list[str]
) -> None:
    bench.add_winner("winner", digests[0], CONFIG, 0, None)
    end = worked(bench)["winner"][-1]
    assert end["kind"] == "milp"
    published = Registry(folder.registry).current(tiny_run.USERS[0])
    assert published.kind == "milp"
    stored = json.loads((folder.winners / f"{digests[0]}.json").read_text())
    result = UserResult.from_json(stored)
    assert result.user_id == tiny_run.USERS[0]
    assert result.winner.loss_nats < result.anchor.loss_nats
    assert result.configuration == CONFIG
    assert result.parameters == 4 * 2 * 3 * (32 + 48)
    history = Histories.open(folder.data).load(tiny_run.USERS[0])
    validation = {item.response for item in split(history).validation}
    assert {example.reference for example in result.examples} <= validation
    assert result.inside is not None
    gain = result.anchor.loss_nats - result.winner.loss_nats
    assert result.inside.gain_nats == pytest.approx(gain, abs=1e-4)
    assert result.inside.places == result.winner.token_count
    risen = result.inside.risen
    assert all(
        token.text and token.text in " ".join(validation) + "<|endoftext|>" for token in risen
    )
    assert sum(result.inside.share(token) or 0 for token in risen) > 0


def test_a_winner_that_does_not_beat_the_base_is_the_base(
    bench: Workbench, folder: RunFolder, digests: list[str]
) -> None:
    bench.add_winner("base", digests[1], BASE_CONFIG, 0, None)
    assert worked(bench)["base"][-1]["kind"] == "base"
    assert Registry(folder.registry).current(tiny_run.USERS[1]).reason == WINNER_IS_BASE
    stored = json.loads((folder.winners / f"{digests[1]}.json").read_text())
    assert stored["inside"] is None
    bench.add_winner("base", digests[1], BASE_CONFIG, 0, "full training failed: why")
    worked(bench)
    assert "full training" in str(Registry(folder.registry).current(tiny_run.USERS[1]).reason)


def test_gain_holds_each_memory_against_the_others(
    bench: Workbench, folder: RunFolder, digests: list[str]
) -> None:
    for i, digest in enumerate(digests):
        bench.add_winner(f"w{i}", digest, CONFIG, i, None)
    worked(bench)
    drawn = {digest: [digests[1 - i]] for i, digest in enumerate(digests)}
    matrix = bench.gain(drawn)
    assert matrix.users == tuple(digests)
    for digest in digests:
        result = json.loads((folder.winners / f"{digest}.json").read_text())
        assert set(matrix.loss[digest]) == set(digests)
        assert matrix.loss[digest][digest] == pytest.approx(result["winner"]["loss_nats"], abs=1e-4)
        # Users measured in other calls change nothing of it.
        alone = bench.gain({digest: drawn[digest]})
        assert alone.loss[digest] == pytest.approx(matrix.loss[digest], abs=1e-4)


def test_whose_memory_was_taken_back_is_left_out_of_the_gain(
    bench: Workbench, folder: RunFolder, digests: list[str]
) -> None:
    for i, digest in enumerate(digests):
        bench.add_winner(f"w{i}", digest, CONFIG, i, None)
    worked(bench)
    registry = Registry(folder.registry)
    drawn = {digest: [digests[1 - i]] for i, digest in enumerate(digests)}
    for left, user in ((digests[:1], tiny_run.USERS[1]), ([], tiny_run.USERS[0])):
        while user in registry:
            registry.withdraw(user)
        loss = bench.gain(drawn).loss
        assert list(loss) == left
        assert all(list(tried) == [digest] for digest, tried in loss.items())


def test_a_bench_knows_whether_its_device_works(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench.is_alive()
    nowhere = torch.device("meta")  # it takes calls, and no number ever comes out of it
    monkeypatch.setattr(type(bench._base), "device", property(lambda _: nowhere))
    assert not bench.is_alive()


def test_users_left_out_are_answered_by_the_base(bench: Workbench, folder: RunFolder) -> None:
    bench.publish_left_out({"few/..": "3 items"})
    published = Registry(folder.registry).current("few/..")
    assert (published.kind, published.reason) == ("base", "3 items")


def test_a_base_is_described_by_its_feed_forward_layers(bench: Workbench) -> None:
    found = bench.describe()
    assert found["layer_count"] == 4
    assert found["smallest_dimension"] == 32
    assert found["per_rank"] == (3 * (32 + 48),) * 4
