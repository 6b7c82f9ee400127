"""The command line as a person meets it: help, refusals with exit code 2, and small commands."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import milpa
from cluster import report
from cluster.experiment import Experiment
from cluster.folder import RunFolder
from cluster.process import BrokeOff
from models.history import Histories
from models.lines import QUOTES
from models.personalizer import UserState
from models.published import BaseIdentity
from models.registry import Registry
from tests.cluster import tiny_run
from tests.tiny import tiny_tokenizer

COMMANDS = [
    "search",
    "serve",
    "submit",
    "compare",
    "report",
    "export",
    "withdraw",
    "forget",
    "pretrain",
    "examples",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("milpa")
    tiny_run.write_data(folder)
    tiny_run.write_base(folder)
    return folder


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path, code: int = 2) -> str:
    """The message of a command that ends with this exit code: 2 where it is refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["milpa", *map(str, words)])
        before = os.umask(0o022)
        with pytest.raises(SystemExit) as ended:
            milpa.main()
        os.umask(before)
    assert ended.value.code == code
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return " ".join(message.split())


def search(place: Path, **others: object) -> list[str]:
    given = {"data": place / "data.jsonl", "base": place / "base", "out": place / "run", **others}
    flags = [str(part) for name, value in given.items() for part in (f"--{name}", value)]
    return ["search", *flags]


def test_help_names_every_command_and_loads_none_of_their_packages() -> None:
    shown = CliRunner().invoke(milpa.app, ["--help"]).output
    assert all(f" {command} " in shown for command in COMMANDS)
    question = "import milpa, sys; print(not {'ray', 'torch', 'transformers'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True)
    assert answer.stdout.strip() == "True", answer.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(milpa.app, [command, "--help"])
    assert result.exit_code == 0
    assert command in result.output


def test_work_that_breaks_off_says_why_without_a_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks_off(*_given: object) -> None:
        raise BrokeOff("the database was away; --resume goes on")

    monkeypatch.setattr(report, "write", breaks_off)
    said = refused(capsys, "report", "--run", tmp_path, code=1)
    assert said == "milpa: the database was away; --resume goes on"


def test_a_comparison_by_command_is_the_comparison() -> None:
    from cluster.compare import ANSWERED_ITEMS, compare

    said, meant = (inspect.signature(f).parameters for f in (milpa.compare, compare))
    for name in ("seed", "items"):
        assert said[name].default == meant[name].default
    assert said["strangers"].default is None  # as many as `compare` has, and none with --data
    assert said["items"].default == ANSWERED_ITEMS == Experiment("data", "base").items


def test_a_comparison_of_methods_by_command_has_its_terms() -> None:
    from cluster.terms import Terms

    said = inspect.signature(milpa.compare).parameters
    for name, setting in Terms.__dataclass_fields__.items():
        assert name in said
        assert said[name].default in (None, setting.default)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "expected --run RUN, or --data, --base, --methods and --out together"),
        (["--data", "d", "--base", "b"], "--data, --base, --methods and --out together"),
        (["--run", "r", "--data", "d", "--seeds", "3"], "--data, --seeds: has no meaning with"),
        (["--run", "r", "--judge-model", "m"], "--judge-model: has no meaning with --run"),
        (["--data", "d", "--base", "b", "--methods", "magic", "--out", "o"], "got 'magic'"),
        (
            ["--data", "d", "--base", "b", "--methods", "all", "--out", "o", "--strangers", "2"],
            "--strangers: has no meaning with --data",
        ),
        (
            ["--data", "d", "--base", "b", "--methods", "all", "--out", "o", "--trials", "0"],
            "--trials: expected at least 1, got 0",
        ),
        (
            [
                "--data",
                "d",
                "--base",
                "b",
                "--methods",
                "all",
                "--out",
                "o",
                "--judge",
                "",
                "--judge-model",
                "m",
            ],
            "--judge: expected http://HOST/v1",
        ),
    ],
)
def test_a_comparison_of_nothing_or_of_both_is_refused(
    capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert says in refused(capsys, "compare", *words)


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("data", "/no/such/data", "/no/such/data"),
        ("base", "/no/such/base", "expected a base's folder or hub name, got '/no/such/base'"),
        ("base", __file__, "a file: give its folder"),
        ("population", "nobody.jsonl", "--population: expected auto, off, or a file that is"),
        ("trials", 0, "--trials: expected at least 1, got 0"),
        ("ranks", 0, "--ranks, --learning-rates: expected ranks above 0"),
        ("sampler", "magic", "'magic' is not one of 'map-saas'"),
        ("preset", "huge", "'huge' is not one of 'scale', 'demo', 'paper'"),
        ("min-items", 99, "lower --min-items or give more data"),
        ("storage", "mysql://x", "expected sqlite:///FILE or postgresql://"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(
    place: Path, capsys: pytest.CaptureFixture[str], flag: str, value: object, says: str
) -> None:
    message = refused(capsys, *search(place, **{flag: value}))
    assert says in message.replace("│ ", "").replace(" │", "")
    assert not (place / "run").exists()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "data.jsonl:2"),
        ('{"user_id": "a", "time": 1, "query": "q"}', "data.jsonl:2"),
        ('{"user_id": "a", "time": "x", "query": "q", "response": "r"}', "data.jsonl:2"),
        ('{"user_id": "a", "time": 2, "query": "q", "response": " "}', "data.jsonl:2"),
    ],
    ids=["not JSON", "a missing field", "mixed times", "an empty response"],
)
def test_a_bad_line_is_named_by_file_and_number(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, says: str
) -> None:
    good = json.dumps({"user_id": "a", "time": 0, "query": "q", "response": "r"})
    (tmp_path / "data.jsonl").write_text(f"{good}\n{line}\n")
    words = search(place, data=tmp_path / "data.jsonl", out=tmp_path / "run")
    assert says in refused(capsys, *words)
    assert not (tmp_path / "run").exists()


def test_a_submitted_jobs_output_names_the_place_and_quotes_nobody(
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")  # as Ray marks a job's process
    monkeypatch.setenv(QUOTES, "yes")
    (tmp_path / "data.jsonl").write_text(
        '{"user_id": "ann", "time": 0, "response": ["my secret"]}\n'
    )
    said = refused(capsys, *search(place, data=tmp_path / "data.jsonl", out=tmp_path / "run"))
    assert "data.jsonl:1: expected 'response' as text" in said
    assert "secret" not in said
    (tmp_path / "data.jsonl").write_text("my secret\n")
    said = refused(capsys, *search(place, data=tmp_path / "data.jsonl", out=tmp_path / "run"))
    assert "data.jsonl:1: expected JSON" in said
    assert "secret" not in said


def test_what_is_written_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        command = [sys.executable, "-m", "milpa", "examples", "--out", str(tmp_path / "made")]
        subprocess.run([*command, "--users", "1", "--population", "1"], check=True)
    finally:
        os.umask(before)
    made = list((tmp_path / "made").rglob("*"))
    assert made
    assert not any(path.stat().st_mode & 0o077 for path in made)


def test_a_base_that_is_no_causal_model_is_refused_with_those_that_work(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    tiny_tokenizer().save_pretrained(tmp_path)
    message = refused(capsys, *search(place, base=tmp_path))
    assert "bert" in message
    assert "llama" in message


def test_a_base_without_a_tokenizer_is_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_bytes((place / "base" / "config.json").read_bytes())
    assert "expected a tokenizer" in refused(capsys, *search(place, base=tmp_path))


def test_a_folder_that_exists_is_refused_and_kept(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert "holds something else" in refused(capsys, *search(place, out=tmp_path))
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_going_on_needs_a_folder_that_holds_a_run(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["search", "--data", "x", "--base", "y", "--resume"]
    assert "give it with --out" in refused(capsys, *words)
    assert "found none" in refused(capsys, *search(place, out=tmp_path), "--resume")


def test_other_settings_than_the_runs_are_named(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cluster.experiment import experiment_from

    folder = RunFolder(tmp_path / "run")
    folder.begin(resume=False)
    paths = {"data": str(place / "data.jsonl"), "base": str(place / "base")}
    folder.store(experiment_from(paths), {})
    words = search(place, out=folder.path, trials=9)
    assert "--trials: the run has 24, got 9" in refused(capsys, *words, "--resume")


@pytest.mark.parametrize(
    "words",
    [
        ["report", "--run", "{}"],
        ["compare", "--run", "{}"],
        ["forget", "{}", "ann"],
        ["withdraw", "{}", "ann"],
        ["export", "{}", "ann", "{}/out"],
        ["serve", "--run", "{}"],
        ["serve", "--registry", "{}"],
    ],
    ids=lambda words: words[0],
)
def test_a_folder_without_a_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    message = refused(capsys, *(word.format(tmp_path) for word in words))
    assert "expected" in message.lower()
    assert not list(tmp_path.iterdir())


def test_a_memory_is_withdrawn_and_an_unknown_user_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.begin(resume=False)
    identity = BaseIdentity("base", "0" * 64, "plain/1")
    Registry(folder.registry).publish(UserState("milp", "ann", {}, {}), identity, {}, "why")
    assert CliRunner().invoke(milpa.app, ["withdraw", str(folder.path), "ann"]).exit_code == 0
    assert "ann" not in Registry(folder.registry)
    assert "'bob'" in refused(capsys, "withdraw", folder.path, "bob")


def test_users_of_a_file_and_of_the_command_are_forgotten_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = RunFolder(tmp_path / "run"), tmp_path / "users.txt"
    run.begin(resume=False)
    Histories.read(tiny_run.write_data(tmp_path, ("ann", "Zo\u00eb B", "cleo")), run.data)
    file.write_text("Zo\u00eb B\n\nnobody\n", encoding="utf-8")
    words = ["forget", str(run.path), "ann", "--users", str(file)]
    assert "got 'nobody', whom it does not hold; nobody was removed" in refused(capsys, *words)
    assert len(Histories.open(run.data).user_ids) == 3
    file.write_text("Zo\u00eb B\r\n", encoding="utf-8")
    assert CliRunner().invoke(milpa.app, words).exit_code == 0
    assert Histories.open(run.data).user_ids == ("cleo",)
    assert "at least one user" in refused(capsys, "forget", run.path)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["examples", "--out", "{}", "--users", "-1"], "--users: expected at least 1, got -1"),
        (["examples", "--out", __file__], "is no folder; choose another name"),
        (["pretrain", "--data", "x", "--out", __file__], "expected a new or empty folder"),
        (["search", "--data", "x", "--base", "y", "--out", "/proc/x"], "can't make /proc/x"),
        (["report", "--run", "{}/nothing"], "expected the folder of a finished search; check"),
    ],
)
def test_places_and_numbers_that_cannot_be_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert says.lower() in refused(capsys, *(word.format(tmp_path) for word in words)).lower()


def test_example_users_are_written(tmp_path: Path) -> None:
    words = ["examples", "--out", str(tmp_path), "--users", "1", "--population", "1"]
    assert CliRunner().invoke(milpa.app, words).exit_code == 0
    assert (tmp_path / "users" / "interactions.jsonl").stat().st_size > 0
