"""A comparison with an encoder of a name: who learns with it, who is served with it, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.entrant import entrants
from cluster.folder import RunFolder
from cluster.groundwork import prepared
from cluster.standing_text import markdown
from cluster.terms import Terms
from cluster.unit import Unit
from models import jointly, sharing
from models.catalog import PERSONALIZERS, personalizer
from models.encoder import BASE
from tests.cluster import tiny_contest
from tests.cluster.tiny_run import write_base
from tests.models.published_files import put_lamp
from tests.pasts import save_encoder


def terms(folder: Path, encoder: str) -> Terms:
    return Terms(
        str(put_lamp(folder / "lamp", items=12)), str(write_base(folder)), ("none", "pplug", "rag"),
        users=3, seeds=1, trials=1, items=2, min_items=8, injection_epochs=0, tuning_epochs=1,
        population="off", encoder=encoder,
    )  # fmt: skip


def test_methods_that_read_vectors_learn_with_the_named_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jointly, "FEWEST_STEPS", 10)
    source = save_encoder(tmp_path / "encoder")
    arena = tiny_contest.begun(tmp_path, terms(tmp_path, source))
    tiny_contest.tried(arena)
    standing = tiny_contest.tested(arena)
    assert not standing.left_out
    learned = [each for each in arena.units.every() if each["unit"]["kind"] == "shared"]
    (shared,) = (sharing.get(arena.folder.path / "shared", each["digest"]) for each in learned)
    assert str(shared.configuration["encoder"]).startswith(f"{source}#sha256=")
    tried = arena.units.read(Unit("trial", "pplug"))["users"].values()
    assert all(own["loss_nats"] for own in tried)  # each user's state was made and served with it
    assert f"texts as vectors by `{source}`" in markdown(standing)


def test_those_that_take_an_encoder_are_given_it() -> None:
    found = {name for name in PERSONALIZERS if _encoder(name, "some/encoder") == "some/encoder"}
    assert found == {"e2p", "malp", "pplug", "rag", "uelp", "uelp-cross"}
    assert _encoder("rag", BASE) == BASE


def _encoder(name: str, encoder: str) -> object:
    method = vars(personalizer(name, encoder))
    return method.get("_encoder", getattr(method.get("_reader"), "name", None))


def test_an_encoder_that_is_not_there_is_refused_before_anything(tmp_path: Path) -> None:
    of = terms(tmp_path, str(tmp_path / "nowhere"))
    run = RunFolder(tmp_path / "out")
    run.begin(resume=False)
    with pytest.raises(ValueError, match="expected an encoder's folder or hub name, or 'base'"):
        prepared(of, run, entrants(of))
    assert not run.data.exists()


def test_terms_of_before_there_were_encoders_are_those_of_the_base(tmp_path: Path) -> None:
    of = terms(tmp_path, BASE)
    stored = {name: value for name, value in of.to_json().items() if name != "encoder"}
    assert of.differences(stored) == []
    other = terms(tmp_path / "other", str(tmp_path))
    assert any(
        line.startswith("--encoder: the folder has 'base'") for line in other.differences(stored)
    )
