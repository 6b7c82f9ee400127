"""The page of a run: whole, closed to the network, and deaf to what users' texts say."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cluster import report
from cluster.courses import course, courses
from cluster.plots import Figure
from cluster.results import Results, save
from search.pareto import front, hypervolume_trace
from search.samplers import PORTFOLIO, Proposal
from search.space import SearchSpace
from search.storage import open_storage, sqlite_url
from search.study import Study
from tests.cluster.made_results import CONFIGURATIONS, DIGESTS, HOSTILE, LAYERS, results
from tests.search.begun import ask_one

SPACE = SearchSpace(LAYERS, ranks=(8, 32), learning_rates=(5.62e-4, 1e-3))


class Page(HTMLParser):
    """What a browser would make of the page: elements, scripts' texts, and the words between."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.words = ""
        self._script: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self._script = dict(attrs).get("id") or f"code-{len(self.scripts)}"
            self.scripts[self._script] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts[self._script] += data
        else:
            self.words += data

    def code(self) -> list[str]:
        return [text for name, text in self.scripts.items() if name.startswith("code-")]

    def figure(self, name: str) -> Figure:
        figure: Figure = json.loads(self.scripts[name])
        return figure


def address(run: Path) -> str:
    return sqlite_url(run / "studies.db")


def a_study(run: Path, digest: str, place: int) -> Study:
    """A study with anchor, winner, one more trial, one failed, one stopped and one pending."""
    study = Study.open(open_storage(address(run)), digest, SPACE)
    study.ask_anchor(0)
    study.tell(0, [3.0 + place, 0.1], {"item_count": 10})
    others = [c for c in SPACE.enumerate() if c not in CONFIGURATIONS][:4]
    asked = [*filter(lambda c: c.layers, CONFIGURATIONS[place : place + 1]), *others]
    for number, configuration in enumerate(asked, start=1):
        source = PORTFOLIO if number == 1 else "sobol"
        ask_one(study, Proposal(configuration, source), seed=number)
    for number in range(1, len(asked) - 2):
        study.tell(number, [2.6 + place + 0.1 * number, 0.2 + 0.05 * number])
    study.fail(len(asked) - 2, "not a number")
    study.stop(len(asked) - 1, "dominated at tuning 2", {"curve": [["tuning", 1, 8, 2.0]]})
    study.settle_reference(2)
    return study


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of three users; the third's study is gone."""
    folder = tmp_path_factory.mktemp("run")
    save(results(), folder)
    for place in (0, 1):
        a_study(folder, DIGESTS[place], place)
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    path = report.write(run)
    assert path == run / "report.html"
    assert path.stat().st_mode & 0o777 == 0o600
    return Page(path.read_text(encoding="utf-8"))


def test_a_course_is_the_study(run: Path) -> None:
    study = Study(open_storage(address(run)), DIGESTS[0])
    found = course(study, results().users[0])
    told = [trial for trial in study.trials if trial.values is not None]
    assert [trial.configuration for trial in found.trials] == [trial.config for trial in told]
    marked = {trial.configuration for trial in found.trials if trial.on_front}
    assert marked == {trial.config for trial in study.front()}
    assert (found.failed, found.stopped, found.advised) == (1, 1, 1)
    assert found.reference == study.reference
    assert found.hypervolume is not None
    rows = [trial.values for trial in told if trial.values is not None]
    trace = hypervolume_trace(study.objectives, rows, found.reference or ())
    assert list(found.hypervolume) == trace
    assert trace[-1] > 0
    assert len(front(study.objectives, rows)) >= 1


def test_a_short_search_is_drawn_from_a_reference_point_of_its_own(tmp_path: Path) -> None:
    study = Study.open(open_storage(address(tmp_path)), DIGESTS[0], SPACE)
    study.ask_anchor(0)
    study.tell(0, [3.0, 0.1], {"item_count": 10})
    assert course(study, results().users[0]).hypervolume is None
    ask_one(study, Proposal(CONFIGURATIONS[0], "sobol"), seed=1)
    study.tell(1, [2.5, 0.3])
    found = course(study, results().users[0])
    assert found.is_late
    assert found.reference == (2.5, 0.3)  # of a single trial: nadir and best are one
    assert found.hypervolume == (0.0, 0.0)


def test_users_without_a_study_are_left_out(run: Path) -> None:
    found = courses(address(run), results().users)
    assert set(found) == set(DIGESTS[:2])


def test_a_stopped_trial_is_counted_apart_and_drawn_nowhere(page: Page) -> None:
    assert "trials completed, 2 stopped early, 2 failed" in page.words
    assert "1 stopped early, which no figure shows, 1 failed" in page.words
    figure = page.figure(f"front-{DIGESTS[0]}")
    assert not any(2.0 in (trace.get("x") or ()) for trace in figure["data"])


def test_every_user_stands_in_the_page_with_base_and_winner(page: Page) -> None:
    for shown in ("ann", HOSTILE, "a/../b", "3.000", "2.500", "-0.500", "+10.0", "; 12 min"):
        assert shown in page.words
    assert "not split by session" in page.words
    assert "2 begun from what was best for earlier users" in page.words
    assert "no configuration was better than the base" in page.words
    assert "expected at least 30 pairs, got 3" in page.words
    assert "optimistic" in page.words
    assert "no longer in the storage" in page.words


def test_every_figure_that_is_drawn_is_there_and_the_other_way_round(page: Page) -> None:
    drawn = {name for _, attributes in page.elements if (name := attributes.get("data-figure"))}
    figures = {name for name in page.scripts if not name.startswith("code-")}
    assert drawn == figures
    assert {f"front-{DIGESTS[0]}", f"hypervolume-{DIGESTS[1]}", "figure-gain"} <= figures
    assert page.figure("figure-layers")["data"][0]["z"][0] == [0, 0, None, 0, None, None]
    changes = page.figure("figure-gain")["data"][0]["z"]
    assert changes[0] == pytest.approx([-0.5, -0.1, 0.1])


def test_no_text_of_a_user_becomes_markup(page: Page) -> None:
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"img", "i", "iframe", "object", "embed", "form"}
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)
    assert len(page.code()) == 2
    assert "alert('text')" in page.words
    assert "alert('id')" in page.words
    assert "{{ 7 * 7 }}" in page.words
    for name, text in page.scripts.items():
        assert name.startswith("code-") or "<" not in text


def test_the_policy_lets_our_own_scripts_run_and_nothing_be_fetched(page: Page) -> None:
    policies = [
        attributes["content"] or ""
        for tag, attributes in page.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1
    rules = dict(rule.strip().split(" ", 1) for rule in policies[0].split(";"))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in rules["script-src"]
    assert not re.search(r"https?:|\*", policies[0])
    digests = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in page.code()
    ]
    assert rules["script-src"].split() == digests


def test_the_page_points_nowhere_outside_of_itself(page: Page) -> None:
    targets = [
        value
        for _, attributes in page.elements
        for key, value in attributes.items()
        if key in ("src", "href", "action", "srcset")
    ]
    assert targets
    assert all(target and target.startswith(("#", "data:")) for target in targets)


def test_without_examples_no_word_of_a_user_is_left(run: Path, tmp_path: Path) -> None:
    made = results()
    save(made, tmp_path)
    text = report.page(made, {}, examples=False)
    assert "what ann said" in report.page(made, {})
    assert "what ann said" not in text
    assert "alert(&#39;text" not in text
    assert "Answers on validation" not in text
    assert "What the memory changed" in report.page(made, {})
    assert "What the memory changed" not in text
    assert "leaning of" not in text


def test_what_a_memory_changed_stands_with_its_user(page: Page) -> None:
    assert "On the 10 tokens of the validation responses the memory gains 0.800 nats" in page.words
    # 4 x 1.5 of the 10 x 0.8 nats in all.
    for shown in ("␣token of what ann said", "+1.500", "75.0 %", "⏎", "leaning of", "+25.000 %"):
        assert shown in page.words
    assert page.words.count("What the memory changed") == 2  # the third's winner is the base


def test_the_heat_map_of_ranks_counts_users(page: Page) -> None:
    cells = page.figure("figure-layer-ranks")
    assert cells["layout"]["yaxis"]["ticktext"] == ["8", "32"]
    assert cells["data"][0]["z"] == [[1, 1, None, 1, None, None], [None, None, 1, None, None, None]]


def test_how_full_the_packs_were_is_shown(page: Page) -> None:
    assert "85.0 %, mean over steps" in page.words


def test_a_password_of_the_database_is_not_shown(page: Page) -> None:
    assert "hunter2" not in page.words
    assert "postgresql://db.example/milpa" in page.words


def test_a_page_of_many_users_draws_some_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "DRAWN_USERS", 2)
    page = Page(report.page(results(), {}))
    details = [a for tag, a in page.elements if tag == "details" and a.get("class") == "user"]
    assert [a["id"] for a in details] == [f"user-{digest}" for digest in DIGESTS[:2]]
    assert "The first 2 of 3 users are drawn in full" in page.words
    assert "a/../b" in page.words


def test_tables_of_many_users_list_some_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    every = Page(report.page(results(), {}))
    monkeypatch.setattr(report, "TABLED_USERS", 2)
    page = Page(report.page(results(), {}))
    rows = [[a for tag, a in p.elements if tag == "tr" and "data-user" in a] for p in (every, page)]
    assert [len(each) for each in rows] == [3, 2]
    assert "The first 2 of 3 users are listed" in page.words
    assert "users are listed" not in every.words
    assert "mean of 3" in page.words


@pytest.mark.parametrize("count", [0, 1])
def test_a_page_of_hardly_anybody_stands(count: int) -> None:
    page = Page(report.page(results(count), {}))
    assert f"each of {count} users" in page.words
    assert "expected at least 30 pairs, got 3" in page.words


def test_data_without_facts_shows_no_recall() -> None:
    made = results()
    plain = tuple(
        replace(
            user,
            anchor=replace(user.anchor, recall={}),
            winner=replace(user.winner, recall={}),
        )
        for user in made.users
    )
    without: Results = replace(made, users=plain, gain=None)
    assert "facts recalled" in Page(report.page(made, {})).words
    assert "facts recalled" not in Page(report.page(without, {})).words


def test_studies_may_lie_elsewhere(run: Path, tmp_path: Path) -> None:
    save(results(), tmp_path)
    (tmp_path / "experiment.json").write_text(json.dumps({"storage": address(run)}))
    path = report.write(tmp_path)
    assert f"front-{DIGESTS[0]}" in Page(path.read_text(encoding="utf-8")).scripts
    assert f"front-{DIGESTS[0]}" not in Page(report.page(results(), {})).scripts


def test_a_run_that_has_not_ended_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").touch()
    with pytest.raises(FileNotFoundError, match="--resume"):
        report.write(tmp_path)
