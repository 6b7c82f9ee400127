"""What ends a comparison, or keeps it from beginning, on outcomes made without Ray."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cluster.contest import _check_measured, contest
from cluster.entrant import entrants
from cluster.folder import RunFolder
from cluster.judge import Endpoint
from cluster.process import BrokeOff
from cluster.tally import standing_of
from cluster.terms import Terms
from cluster.tuning import Best
from tests.cluster import tiny_contest
from tests.cluster.judges import refusal, serving


def run(terms: Terms, out: Path, judge: Endpoint | None = None) -> str:
    printed = io.StringIO()
    contest(terms, out, console=Console(file=printed, width=160), judge=judge)
    return printed.getvalue()


def _first(bare: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> dict[str, Best]:
    users = trials[0]["users"]
    return {digest: Best(0, users[digest]["configuration"]) for digest in bare["users"]}


def test_a_judge_that_refuses_leaves_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Everybody has a state, so that there are answers to judge.
    monkeypatch.setattr("cluster.tuning.best_of", _first)
    monkeypatch.setattr("cluster.finals.settled", lambda arena, states: dict(states))
    terms, out = tiny_contest.terms(tmp_path, ("none", "tplp"), trials=1, seeds=1), tmp_path / "out"
    arena = tiny_contest.begun(tmp_path, terms)
    tiny_contest.tried(arena)
    tiny_contest.tested(arena)
    arena.close()
    with (
        serving(lambda said: refusal(401, "invalid_api_key")) as served,
        pytest.raises(ValueError, match="refused the key"),
    ):
        run(terms, out, Endpoint(served.url, "rule"))
    assert served.asked
    assert "| tplp |" in (out / "compare.md").read_text()
    assert json.loads((out / "compare.json").read_text())["win_rates"] == {}
    with serving(lambda said: "A") as served:
        printed = run(terms, out, Endpoint(served.url, "rule"))
    assert "pairs of answers are judged; 0 replies were there from before" in printed
    assert printed.index("now the judge is asked") < printed.index("By a judge against none")
    assert "By a judge against none" in (out / "compare.md").read_text()
    why = r"tplp was left out \(broke off: its process died\); .* give another"
    with pytest.raises(ValueError, match=why):
        standing_of(terms, out, entrants(terms), "tplp", {"tplp": "its process died"})


def test_a_judge_without_a_client_is_refused_before_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms = tiny_contest.terms(tmp_path)
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ValueError, match=r"pip install 'milpa\[judge\]'"):
        run(terms, tmp_path / "out", Endpoint("http://127.0.0.1:9/v1", "rule"))
    assert not (tmp_path / "out").exists()


def test_a_searchs_folder_is_refused_and_stays(tmp_path: Path) -> None:
    terms, search = tiny_contest.terms(tmp_path), RunFolder(tmp_path / "search")
    search.begin(resume=False)
    search.store(terms.experiment(), {})
    before = tiny_contest.texts_of(search.path)
    with pytest.raises(FileExistsError, match="holds something else"):
        run(terms, search.path)
    assert tiny_contest.texts_of(search.path) == before


def test_a_base_that_could_not_be_measured_ends_it_with_the_reason() -> None:
    with pytest.raises(BrokeOff, match=r"measuring the base broke off \(KeyError in x\.py:1\)"):
        _check_measured({"": "KeyError in x.py:1", "rag": "its process died"})
    _check_measured({"rag": "its process died"})
