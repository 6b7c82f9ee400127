"""The main job from nothing, in minutes: invented users, a base, a search, and answers over HTTP.

Every step is a `milpa` command, shown as one would type it and run as a process of its own, so this
script sees no other package.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from examples import interview

_MARK = ".made-by-the-demo"
_READY_SECONDS = 180

console = Console(highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo and returns the exit code of the first command that failed, or 0."""
    given = _parser().parse_args(arguments)
    began = time.monotonic()
    out: Path = given.out
    try:
        _empty(out)
    except FileExistsError as error:
        console.print(str(error), style="red", markup=False)
        return 2
    try:
        _run(out, given.users, given.population, given.seed)
    except subprocess.CalledProcessError as error:
        return error.returncode
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    console.print(f"\nDone in {minutes} min {seconds} s.")
    console.print(f"The report: [bold]{(out / 'run' / 'report.html').resolve()}")
    console.print(f"Ask more:   .venv/bin/milpa serve --run {out / 'run'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="where everything goes")
    parser.add_argument("--users", type=int, default=4, help="how many users to search")
    parser.add_argument("--population", type=int, default=400, help="people the base learns from")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _run(out: Path, users: int, population: int, seed: int) -> None:
    _title(1, f"Invent {users} users with facts, and {population} other people")
    size = ("--users", str(users), "--population", str(population), "--seed", str(seed))
    _milpa("examples", "--out", str(out / "data"), *size)
    data = out / "data" / "users"
    _introduce(interview.histories(data))

    _title(2, "Pretrain a small base on the other people: it learns to talk, and knows no user")
    people = out / "data" / "population"
    _milpa("pretrain", "--data", str(people), "--out", str(out / "base"), "--seed", str(seed))

    _title(3, "Search each user's memory, and publish the winners")
    where = ("--data", str(data), "--base", str(out / "base"), "--out", str(out / "run"))
    own = ("--preset", "demo", "--users", str(users), "--user-said", "query", "--seed", str(seed))
    _milpa("search", *where, *own)
    results = json.loads((out / "run" / "results.json").read_text(encoding="utf-8"))
    console.print(_recalled(results))

    _title(4, "Serve them all from the one base, and ask")
    pair = [user["user_id"] for user in _winners_first(results)[:2]]
    with _server(out) as address:
        console.print(interview.answers(address, interview.histories(data), pair))


def _title(number: int, text: str) -> None:
    console.print()
    console.rule(f"[bold]{number}. {text}", align="left")


def _empty(out: Path) -> None:
    """Makes the folder anew; only what an earlier demo made is removed."""
    if out.exists() and any(out.iterdir()):
        if not (out / _MARK).is_file():
            raise FileExistsError(f"{out} holds something else than a demo; give another --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    (out / _MARK).touch()


def _milpa(*words: str) -> None:
    """Runs a command in the open.

    Raises:
        subprocess.CalledProcessError: it failed, and has said why.
    """
    console.print(f"[dim]$ milpa {' '.join(words)}", soft_wrap=True)
    subprocess.run([sys.executable, "-m", "milpa", *words], check=True)


def _introduce(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Shows the beginning of one user's history, and how long all are."""
    user, history = next(iter(histories.items()))
    for record in history[:4]:
        if record["query"] is not None:
            _line(f"{user}: {record['query']}", "")
        said = user if record["query"] is None else "assistant"
        _line(f"{said}: {record['response']}", "" if said == user else "dim")
    sizes = sorted(len(history) for history in histories.values())
    console.print(f"  ... and so on: {sizes[0]} to {sizes[-1]} interactions each.")


def _line(text: str, style: str) -> None:
    console.print(f"  {text}", style=style, markup=False, no_wrap=True, overflow="ellipsis")


def _winners_first(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Searched users, those with a memory of their own before those whose winner is the base."""
    return sorted(results["users"], key=lambda user: user["kind"] == "base")


def _recalled(results: Mapping[str, Any]) -> Table:
    """Recall of facts on validation questions, all users together, beside chance."""
    table = Table(title="Facts recalled (validation questions)", title_justify="left")
    table.add_column("questions")
    for heading in ("asked", "chance", "base", "strangers' memories", "own memory"):
        table.add_column(heading, justify="right")
    for kind in ("all", "asked", "unasked", "inferred"):
        base, own = (_pooled(results, model, kind) for model in ("anchor", "winner"))
        if base[1]:
            strangers = _strangers(results) if kind == "all" else None
            shares = (base[2] / base[1], base[0] / base[1], strangers, own[0] / own[1])
            shown = ("" if share is None else f"{share:.0%}" for share in shares)
            table.add_row(kind, f"{base[1]:.0f}", *shown)
    return table


def _pooled(results: Mapping[str, Any], model: str, kind: str) -> tuple[float, float, float]:
    """Hits, questions and hits expected by chance, added over users."""
    counts = [user[model]["recall"].get(kind, (0, 0, 0)) for user in results["users"]]
    return tuple(map(sum, zip(*counts, strict=True)))  # type: ignore[return-value]  # of three


def _strangers(results: Mapping[str, Any]) -> float | None:
    """Mean recall of all users' facts by others' memories; None where it wasn't measured."""
    tried = (results["gain"] or {}).get("recall") or {}
    cells = [
        share
        for user, memories in tried.items()
        for memory, share in memories.items()
        if memory != user and share is not None
    ]
    return sum(cells) / len(cells) if cells else None


@contextmanager
def _server(out: Path) -> Iterator[str]:
    """A server of the run on a free port of this machine, for as long as the context lasts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ("serve", "--run", str(out / "run"), "--port", str(port))
    console.print(f"[dim]$ milpa {' '.join(words)}", soft_wrap=True)
    log = out / "serve.log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "milpa", *words]
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        with console.status("starting"):
            _wait(server, f"http://127.0.0.1:{port}", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            server.kill()


def _wait(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Until the server is healthy.

    Raises:
        subprocess.CalledProcessError: it ended, or took too long; its log is shown.
    """
    end = time.monotonic() + _READY_SECONDS
    while server.poll() is None and time.monotonic() < end:
        try:
            with interview.direct.open(f"{address}/healthz", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.3)
    console.print(log.read_text(errors="replace"), markup=False)
    raise subprocess.CalledProcessError(server.poll() or 1, server.args)


if __name__ == "__main__":
    sys.exit(main())
