"""The paper's ablations on the same users and seeds: what space and stages are worth.

    python -m benchmarks.ablations --data DATA --base BASE --out FOLDER [--users 8] [--trials 24]
        [--seed 0] [--ranks 8 16 ...] [--rank 32] [--presets search-number stages-tuning ...]
        [any other flag of `milpa search`]

Runs `milpa search` and `milpa compare` with each preset of `cluster/ablations.py`, each in a folder
of its own, and goes on where it was stopped. Where a population is learned, it is learned once: all
others search on the base that the whole space was searched on. Prints one table: validation and
test, with differences to the whole space (search-all, which is stages-both as well) in 95 %
intervals over users; then parameters with and without a search as ratios (MiLP, Tables 4, 5, 7).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ablation_table import Outcome, document
from cluster.ablations import ABLATIONS, FIXED_RANK
from cluster.folder import RunFolder
from cluster.results import Measured, load

WHOLE = "search-all"
PRESETS = (WHOLE, *(name for name in ABLATIONS if name not in (WHOLE, "stages-both")))
ABLATED = {field for changes in ABLATIONS.values() for field in changes}


@dataclass(frozen=True)
class Plan:
    """What all searches have in common; `others` are more flags of theirs."""

    data: str
    base: str
    out: Path
    ranks: tuple[int, ...]
    rank: int
    common: tuple[str, ...]

    def folder(self, preset: str) -> Path:
        """Where a preset's run lies."""
        return self.out / preset

    def search(self, preset: str) -> list[str]:
        """The words of `milpa search` for a preset."""
        fixed = "ranks" in ABLATIONS[preset]  # type: ignore[index]
        ranks = (self.rank,) if fixed else self.ranks
        words = ["search", "--data", self.data, "--out", str(self.folder(preset))]
        words += ["--preset", preset, *self._base(preset), *self.common]
        words += [word for rank in ranks for word in ("--ranks", str(rank))]
        begun = (self.folder(preset) / "key").is_file()
        return [*words, "--resume"] if begun else words

    def _base(self, preset: str) -> list[str]:
        if preset == WHOLE:
            return ["--base", self.base]
        searched = RunFolder(self.folder(WHOLE)).searched_base()
        return ["--base", searched, "--population", "off"]


def main(arguments: Sequence[str] | None = None) -> None:
    given, others = _given(arguments)
    seed = str(given.seed)
    common = ("--users", given.users, "--trials", given.trials, "--seed", seed, *others)
    plan = Plan(given.data, given.base, given.out, tuple(given.ranks), given.rank, common)
    plan.out.mkdir(mode=0o700, parents=True, exist_ok=True)
    presets = [preset for preset in PRESETS if preset in (WHOLE, *given.presets)]
    for preset in presets:
        if not (plan.folder(preset) / "compare.json").is_file():
            _milpa(plan.search(preset))
            _milpa(["compare", "--run", str(plan.folder(preset)), "--seed", seed])
    outcomes = [outcome(preset, plan.folder(preset)) for preset in presets]
    text = document(outcomes, given.seed, given.rank)
    (plan.out / "ablations.md").write_text(text, encoding="utf-8")
    print(text)


def outcome(preset: str, run: Path) -> Outcome:
    """What a run came to, on validation and on test words."""
    results = load(run)
    compared = json.loads((run / "compare.json").read_text(encoding="utf-8"))
    test: Mapping[str, Measured] = {
        user["user_id"]: Measured.from_json(user["measured"]["own"]) for user in compared["users"]
    }
    return Outcome(preset, results.base.layer_count, results.users, test)


def _given(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """What was given, and more flags for every search."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--users", default="8")
    parser.add_argument("--trials", default="24")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, nargs="+", default=[], help="where size is searched")
    parser.add_argument("--rank", type=int, default=FIXED_RANK, help="where it is not")
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=PRESETS)
    given, others = parser.parse_known_args(arguments)
    ablated = {f"--{name.replace('_', '-')}" for name in ABLATED} | {"--preset"}
    if wrong := sorted(ablated & {word.partition("=")[0] for word in others}):
        parser.error(f"expected flags that no ablation sets, got {', '.join(wrong)}")
    return given, others


def _milpa(words: Sequence[str]) -> None:
    """Runs a command of Milpa; ends this one if it fails."""
    subprocess.run([sys.executable, "-m", "milpa", *words], check=True)


if __name__ == "__main__":
    main()
