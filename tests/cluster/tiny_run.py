"""A search small enough for a test: users with a few words, a random base, and its command."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil

from cluster.trial import task_name
from search.space import MemoryConfig
from tests.tiny import tiny_model, tiny_tokenizer

ROOT = Path(__file__).resolve().parents[2]
USERS = ("ann/../etc", "Zoë \u4f60")
TRIALS = 4
SLOTS = 2


def write_data(folder: Path, users: Sequence[str] = USERS, pairs: int = 32) -> Path:
    """Histories in sessions of four pairs; who likes what differs between users."""
    draw = random.Random(0)
    lines = [
        {
            "user_id": user,
            "time": i,
            "session": f"{u}-{i // 4}",
            "query": f"what about {draw.choice(['bread', 'dogs', 'soup'])} today?",
            "response": f"I like {'abcdefgh'[u % 8]} {draw.choice(['bread', 'carrots'])} much",
        }
        for u, user in enumerate(users)
        for i in range(pairs)
    ]
    file = folder / "data.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


def write_base(folder: Path) -> Path:
    """A random base of four layers on disk."""
    tiny_model().save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    return folder / "base"


def command(data: Path, base: Path, out: Path, **others: object) -> list[str]:
    """The words of `milpa search` on tiny settings."""
    given = {
        "trials": TRIALS,
        "slots": SLOTS,
        "sampler": "random",
        "injection-epochs": 1,
        "tuning-epochs": 1,
        "winner-epochs": 1,
        "items": 2,
        **others,
    }
    flags = [str(part) for name, value in given.items() for part in (f"--{name}", value)]
    where = ["--data", str(data), "--base", str(base), "--out", str(out)]
    return [sys.executable, "-m", "milpa", "search", *where, "--ranks", "4", "--ranks", "8", *flags]


class Driver:
    """A search in a process of its own, its output in a file."""

    def __init__(self, words: Sequence[str], log: Path) -> None:
        self.log = log
        with log.open("a") as output:
            self.process = subprocess.Popen(
                words, stdout=output, stderr=output, cwd=ROOT, env=one_thread()
            )

    def until(self, reached: Callable[[], object], seconds: float = 200.0) -> None:
        """Waits for something to be true while the search goes on."""
        end = time.monotonic() + seconds
        while not reached():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.1)

    def finish(self, seconds: float = 250.0) -> str:
        """The whole output of a search that ends well."""
        self.process.wait(seconds)
        text = self.log.read_text()
        assert self.process.returncode == 0, text
        return text

    def kill(self) -> None:
        """Kills the driver as nothing else can: it can't tidy up."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def workers(self) -> list[psutil.Process]:
        """Ray's worker processes of this search, without Ray's own agents."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            title = title_of(process)
            if title.startswith("ray::") and "Agent" not in title:
                found.append(process)
        return found


def is_packer(process: psutil.Process) -> bool:
    """Whether a worker is a packer: it calls itself by its task while it has one."""
    return title_of(process).startswith(("ray::Packer", "ray::packer-", "ray::milpa/"))


def is_trial(process: psutil.Process) -> bool:
    """Whether a worker is a trial's process."""
    return title_of(process).startswith(("ray::Trial", "ray::ResourceTrainable"))


def is_controller(process: psutil.Process) -> bool:
    """Whether a worker runs a shard."""
    return title_of(process).startswith("ray::Controller")


def title_of(process: psutil.Process) -> str:
    """What a process calls itself; empty when it is gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def trials_of(run: Path) -> list[dict[str, Any]]:
    """Every stored trial as the database has it, read without Optuna."""
    file = run / "studies.db"
    if not file.is_file():
        return []
    question = """
        SELECT study_name, number, state, datetime_start, datetime_complete,
          (SELECT group_concat(value) FROM trial_values v WHERE v.trial_id = t.trial_id) AS found,
          (SELECT group_concat(param_name || '=' || param_value) FROM trial_params p
            WHERE p.trial_id = t.trial_id) AS configuration
        FROM trials t JOIN studies s ON t.study_id = s.study_id ORDER BY study_name, number
    """
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)) as connection:
        connection.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in connection.execute(question)]
        except sqlite3.OperationalError:  # not made yet
            return []


def completed(run: Path) -> Mapping[tuple[str, int], dict[str, Any]]:
    """Trials that were told, by study and number."""
    return {
        (trial["study_name"], trial["number"]): trial
        for trial in trials_of(run)
        if trial["state"] == "COMPLETE"
    }


def name_of(trial: Mapping[str, Any]) -> str:
    """The name that a stored trial's task has."""
    values = dict(part.split("=") for part in trial["configuration"].split(","))
    bits = int(float(values["layers"]))
    layers = tuple(layer for layer in range(bits.bit_length()) if bits >> layer & 1)
    rank, rate = int(float(values.get("rank", 0))), float(values.get("learning_rate", 0))
    return task_name(trial["study_name"], MemoryConfig(layers, rank, rate).key)


def names_in_log(run: Path, word: str) -> list[str]:
    """Tasks that began, or ended, in the packers' logs, in order."""
    return [line.split()[2] for line in _log_lines(run) if line.endswith(word)]


def last_words(run: Path) -> dict[str, str]:
    """What was last told of each task in the packers' logs."""
    return {line.split()[2]: line.split()[-1] for line in _log_lines(run) if "milpa/" in line}


def _log_lines(run: Path) -> list[str]:
    return [line for file in run.glob("packer-*.log") for line in file.read_text().splitlines()]


def one_thread() -> dict[str, str]:
    """The environment of a search beside other tests."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}
