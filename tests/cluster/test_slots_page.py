"""What LPM's slots attend to: the numbers by the network itself, and the page that shows them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cluster import slots_page
from cluster.attention import NEWEST, ReadsSlots, attention_of
from cluster.entrant import Entrant, entrants
from cluster.forget import forget
from cluster.slots_page import told_of
from cluster.unit import Unit, Units
from cluster.users import Choice
from models.catalog import PERSONALIZERS
from models.history import Histories, Interaction, split
from models.lpm import SLOTS, Lpm
from models.options import Options
from models.personalizer import Shared, UserState
from models.slots import SlotNetwork
from tests.cluster import tiny_contest
from tests.tiny import tiny_base

OPTIONS = Options(
    (("slots", 6), ("width", 16), ("vectors", 3), ("network_rate", 1e-3), ("learning_rate", 1e-2))
)
LPM = Entrant("lpm", "lpm", 2)
HOSTILE = "<script>alert('bread')</script> & <b>what</b> of it?"


def a_slots_state(seed: int = 0) -> UserState:
    """Slots of unit spread, so that attention differs, under a network as it is drawn."""
    base = tiny_base()
    network = SlotNetwork.initialise(base, OPTIONS, seed)
    shared = Shared("lpm", OPTIONS.to_json(), network.tensors())
    drawn = torch.randn(6, 16, generator=torch.Generator().manual_seed(seed))
    return UserState("lpm", "ann", OPTIONS.to_json(), {SLOTS: drawn}, shared=shared)


def items(count: int) -> list[Interaction]:
    asked = ("bread", "dogs", "soup", "rain")
    return [
        Interaction(
            "ann", float(i), None if i % 5 == 0 else f"what of {asked[i % 4]} {i}?", f"r{i}"
        )
        for i in range(count)
    ]


def test_shares_are_the_networks_own_of_the_newest_items() -> None:
    base, state, train = tiny_base(), a_slots_state(), items(NEWEST + 7)
    method = Lpm()
    assert isinstance(method, ReadsSlots)
    shares = attention_of(method, base, state, train)
    assert len(shares) == NEWEST
    assert {len(item) for item in shares} == {6}
    for item in shares:
        assert sum(item) == pytest.approx(1, abs=1e-4)
    masses_Nn = method.masses(base, state, train[-NEWEST:])
    torch.testing.assert_close(torch.tensor(shares), masses_Nn.T, atol=1e-5, rtol=0)
    assert len({tuple(item) for item in shares}) > NEWEST / 2  # what is read depends on the item
    others = [name for name in PERSONALIZERS if isinstance(PERSONALIZERS[name](), ReadsSlots)]
    assert others == ["lpm"]


def test_slots_are_told_by_the_items_that_exceed_their_mean_most() -> None:
    shares = [[0.5, 0.5, 0.0], [0.5, 0.1, 0.4], [0.5, 0.2, 0.3]]
    first, second, third = told_of(shares, ("x", "y", "z"))
    assert [told.slot for told in (first, second, third)] == [1, 2, 0]
    assert [name for name, _ in first.items] == ["x", "z", "y"]
    assert [times for _, times in second.items] == pytest.approx([1.2, 0.9, 0.0])


def a_comparison(folder: Path) -> Path:
    """A comparison with an outcome of a row whose states have slots, for two of three users."""
    arena = tiny_contest.begun(folder, tiny_contest.terms(folder))
    base, state = arena.base, a_slots_state()
    shares = {
        user.digest: attention_of(Lpm(), base, state, arena.subjects.of(user.digest).train)
        for user in arena.users[:2]
    }
    arena.units.write(Unit("final", "lpm"), {"attention": shares})
    arena.close()
    return arena.folder.path


def test_the_page_draws_every_user_and_quotes_where_that_is_wanted(tmp_path: Path) -> None:
    run = a_comparison(tmp_path)
    users = Choice.load(run).searched
    page = slots_page.write(run, [LPM], examples=True)
    assert page == run / "slots.html"
    assert page.stat().st_mode & 0o777 == 0o600
    text = page.read_text()
    assert text.count('data-figure="') == 2
    assert f'id="slots-lpm-{users[0].digest}"' in text
    assert users[2].digest not in text
    train = split(Histories.open(run / "data").load(users[0].user_id)).train
    assert str(train[-1].query) in text
    assert tiny_contest.CODE not in text
    slots_page.write(run, [LPM], examples=False)
    text = page.read_text()
    assert "today?" not in text
    assert f"item {len(train)}" in text
    assert "Users&#39; texts were left out" in text or "Users' texts were left out" in text


def test_a_figure_holds_the_shares_as_multiples_of_an_even_one(tmp_path: Path) -> None:
    run = a_comparison(tmp_path)
    page = slots_page.write(run, [LPM], examples=False)
    assert page is not None
    digest = Choice.load(run).searched[0].digest
    start = f'<script type="application/json" id="slots-lpm-{digest}">'
    figure = json.loads(page.read_text().partition(start)[2].partition("</script>")[0])
    shares = Units(run).read(Unit("final", "lpm"))["attention"][digest]
    cells = torch.tensor(figure["data"][0]["z"])
    torch.testing.assert_close(cells, 6 * torch.tensor(shares), atol=1e-4, rtol=0)


def test_what_users_write_is_text_and_nothing_else(tmp_path: Path) -> None:
    file = tiny_contest.write_data(tmp_path)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    told = [{**line, "query": HOSTILE} for line in lines]
    file.write_text("".join(json.dumps(line) + "\n" for line in told))
    tiny_contest.write_base(tmp_path)
    run = a_comparison(tmp_path)
    page = slots_page.write(run, [LPM], examples=True)
    assert page is not None
    text = page.read_text()
    assert "&lt;script&gt;alert" in text
    assert "<script>alert" not in text
    assert "<b>what" not in text


def test_without_slots_there_is_no_page(tmp_path: Path) -> None:
    terms = tiny_contest.terms(tmp_path)
    arena = tiny_contest.begun(tmp_path, terms)
    arena.close()
    run = arena.folder.path
    (run / "slots.html").write_text("of an earlier state")
    assert slots_page.write(run, entrants(terms), examples=True) is None
    assert not (run / "slots.html").exists()


def test_a_forgotten_users_slots_and_the_page_are_gone(tmp_path: Path) -> None:
    run = a_comparison(tmp_path)
    slots_page.write(run, [LPM], examples=True)
    gone, other = Choice.load(run).searched[:2]
    forget(run, gone.user_id)
    assert not (run / "slots.html").exists()
    assert Units(run).read(Unit("final", "lpm"))["attention"].keys() == {other.digest}
    page = slots_page.write(run, [LPM], examples=True)
    assert page is not None
    text = page.read_text()
    assert other.digest in text
    assert gone.digest not in text
