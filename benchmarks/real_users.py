"""A search and its comparison on the users of a data set: what a memory is worth on test words.

Runs `milpa search` (or goes on with a run) and `milpa compare` as a person would, and prints the
comparison with how long each took. It knows no more of Milpa than its commands.

    python -m benchmarks.real_users --data DATA --base BASE --out RUN [--users 8] [--trials 24]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--users", default="8")
    parser.add_argument("--trials", default="24")
    given = parser.parse_args(arguments)
    search = ["search", "--data", given.data, "--base", given.base, "--out", str(given.out)]
    search += ["--users", given.users, "--trials", given.trials]
    if (given.out / "experiment.json").is_file():
        search.append("--resume")
    searched = _seconds(search)
    compared = _seconds(["compare", "--run", str(given.out)])
    print((given.out / "compare.md").read_text(encoding="utf-8"))
    print(
        f"{len(os.sched_getaffinity(0))} cores: search {searched:.0f} s, compare {compared:.0f} s"
    )


def _seconds(words: Sequence[str]) -> float:
    """Wall-clock seconds of a command; ends this one if it fails."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "milpa", *words], check=True)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
