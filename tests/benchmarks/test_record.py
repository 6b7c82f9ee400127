"""Recording a problem on a tiny base, stopping and going on, and searching on the table."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import record as recording
from benchmarks.recorded_problem import Record, Recorded, Table
from models.base import Base
from models.catalog import personalizer
from models.history import Histories, split, user_digest
from models.personalizer import Task, attach, fit
from models.scoring import answer_limit, evaluation_items, score
from search.pareto import LOSS, ROUGE_L, front
from search.samplers import Observation, SamplerSettings, make_sampler
from search.space import BASE_CONFIG, MemoryConfig
from tests.tiny import save_tiny_base, tiny_interactions

RATE = 1e-2
REPEATED = 3
USERS = ("ann", "bob", "zoë")
SPACE_SIZE = 2 * (2**4 - 1)  # two ranks on any of four layers


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, three users' interactions, and a finished recording that was stopped on the way."""
    folder = tmp_path_factory.mktemp("recording")
    save_tiny_base(folder / "base")
    fields = ("user_id", "time", "query", "response", "session")
    lines = [{f: getattr(i, f) for f in fields} for u in USERS for i in tiny_interactions(u, 40)]
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    patch = pytest.MonkeyPatch()
    patch.setattr(recording, "REPEATED", REPEATED)
    out, base = folder / "out", Base.load(folder / "base", "cpu")
    begun = recording.record(base, str(folder / "data.jsonl"), out, 1, RATE, slots=3)
    first = list(itertools.islice(begun, 4))
    begun.close()
    with (out / "records.jsonl").open("a") as file:
        file.write('{"user": "cut o')
    assert recording.kept(out) == first
    words = ["--data", folder / "data.jsonl", "--base", folder / "base", "--out", out]
    recording.main([*map(str, words), "--users", "1", "--rate", str(RATE), "--slots", "3"])
    patch.undo()
    return folder


@pytest.fixture(scope="module")
def table(place: Path) -> Table:
    return Table.load(place / "out" / "table.csv.gz")


def test_every_configuration_is_recorded_once_and_some_three_times(table: Table) -> None:
    keys = [record.key for record in table.records]
    assert len({*keys}) == len(keys) == (1 + SPACE_SIZE + 2 * REPEATED)
    repeats = [record.repeat for record in table.records]
    assert [repeats.count(r) for r in range(4)] == [1 + SPACE_SIZE, REPEATED, REPEATED, 0]
    assert table.noise()[0] > 0


def test_a_record_is_what_a_trial_alone_gives(place: Path, table: Table) -> None:
    """Packed with others, before or after the stop, it is the same training."""
    base = Base.load(place / "base", "cpu")
    key = (place / "out" / "key").read_bytes()
    user_id = next(user for user in USERS if user_digest(key, user) == table.users[0])
    parts = split(Histories.open(place / "out" / "data").load(user_id))
    limit = answer_limit(base, parts.train)
    person = recording._Person(table.users[0], user_id, parts, limit)
    config, repeat = recording.trainings(base, RATE)[7]
    task: Task = recording._Wanted(person, config, repeat).task
    method = personalizer("milp")
    (alone,) = fit(method, base, [task])
    items = evaluation_items(parts.validation)
    (scores,) = score(base, attach(method, base), [alone.state], [items], [limit])
    (found,) = (
        r for r in table.records
        if (r.user, r.configuration(RATE), r.repeat) == (table.users[0], config, repeat)
    )  # fmt: skip
    assert found.loss == pytest.approx(scores.loss_nats, abs=5e-3)
    assert found.rouge_l == pytest.approx(scores.rouge_l, abs=5e-3)
    assert found.steps == alone.steps
    assert min(*found.injection, *found.tuning) == pytest.approx(alone.loss_nats, abs=1e-3)


def test_nothing_is_recorded_twice(place: Path, table: Table) -> None:
    base = Base.load(place / "base", "cpu")
    patch = pytest.MonkeyPatch()
    patch.setattr(recording, "REPEATED", REPEATED)
    data = str(place / "data.jsonl")
    assert list(recording.record(base, data, place / "out", 1, RATE, slots=3)) == []
    patch.undo()
    assert len(recording.kept(place / "out")) == len(table.records)


def test_a_folder_holds_one_learning_rate(place: Path) -> None:
    base, data = Base.load(place / "base", "cpu"), str(place / "data.jsonl")
    with pytest.raises(ValueError, match=r"expected the learning rate 0\.01, got 0\.02"):
        next(recording.record(base, data, place / "out", 1, 0.02, slots=3))


def test_a_drawn_order_is_the_same_each_time_and_begins_with_the_base(place: Path) -> None:
    base = Base.load(place / "base", "cpu")
    (person,) = recording._people(base, str(place / "data.jsonl"), place / "out", 1)
    every = [recording._Wanted(person, c, r) for c, r in recording.trainings(base, RATE)]
    drawn = recording._shuffled(every)
    assert drawn == recording._shuffled(every)
    assert drawn[0].configuration == BASE_CONFIG
    assert drawn != every
    assert sorted(one.key for one in drawn) == sorted(one.key for one in every)


def test_the_table_that_comes_along_is_a_whole_problem_with_its_noise() -> None:
    file = Path(recording.__file__).parent / "recorded-chatter.csv.gz"
    table = Table.load(file)
    (user,) = table.users
    problem = Recorded(table, user)
    assert problem.space.size() == 5 * (2**8 - 1)
    repeats = [record for record in table.records if record.repeat]
    assert len(repeats) == recording.REPEATED * (recording.TIMES - 1)
    assert all(record.injection and record.tuning for record in table.records if record.layers)
    assert file.stat().st_size < 1e6


def test_users_with_longer_training_parts_are_passed_over(place: Path) -> None:
    base, data = Base.load(place / "base", "cpu"), str(place / "data.jsonl")
    every = recording._people(base, data, place / "out", len(USERS))
    lengths = sorted(recording._words(person.parts.train) for person in every)
    assert recording._people(base, data, place / "out", len(USERS), lengths[-1]) == every
    too_few = f"expected 1 users of at most {lengths[0] - 1} words"
    with pytest.raises(ValueError, match=too_few):
        recording._people(base, data, place / "out", 1, lengths[0] - 1)


def test_the_table_names_nobody(place: Path, table: Table) -> None:
    text = "\n".join(record.line() for record in table.records)
    assert not any(user in text for user in USERS)
    assert all(len(user) == 16 for user in table.users)


def test_a_table_survives_being_written(tmp_path: Path, table: Table) -> None:
    table.save(tmp_path / "a.gz")
    again = Table.load(tmp_path / "a.gz")
    again.save(tmp_path / "b.gz")
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert [record.key for record in again.records] == [record.key for record in table.records]


def test_samplers_search_on_it(table: Table) -> None:
    problem = Recorded(table, table.users[0])
    assert problem.space.size() == SPACE_SIZE
    done = [Observation(BASE_CONFIG, problem.base)]
    sampler = make_sampler(SamplerSettings("random", 0))
    while found := sampler.suggest(problem.space, (LOSS, ROUGE_L), done, [], 4, 0):
        done += [Observation(p.config, problem.observe(p.config)) for p in found]
    values = problem.true([o.config for o in done[1:]])
    best = values[front((LOSS, ROUGE_L), values.tolist())]
    assert sorted(best.tolist()) == sorted(problem.front.tolist())
    worst, (loss, rouge_l) = (values[:, 0].max(), values[:, 1].min()), problem.base
    assert problem.corner == (min(worst[0], loss), max(worst[1], rouge_l))


def test_a_training_that_failed_is_infinitely_bad_and_no_corner(table: Table) -> None:
    user, worst = table.users[0], 21
    records = [
        Record(*r.key, np.inf, 0.0, 3, (), ()) if r.user == user and i == worst else r
        for i, r in enumerate(table.records)
    ]
    broken = Table(RATE, tuple(records))
    problem = Recorded(broken, user)
    config = records[worst].configuration(RATE)
    assert problem.observe(config) == (np.inf, 0.0)
    assert np.isfinite(problem.corner).all()
    assert np.isfinite(problem.front).all()
    assert Record.from_line(records[worst].line()) == records[worst]


def test_half_a_recording_is_no_problem(table: Table) -> None:
    some = tuple(r for r in table.records if r.configuration(RATE) != MemoryConfig((1,), 8, RATE))
    with pytest.raises(ValueError, match=f"expected the base and {SPACE_SIZE}.*got 29"):
        Recorded(Table(RATE, some), table.users[0])
