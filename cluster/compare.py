"""The comparison of a finished run on test words.

`milpa compare` alone reads test words: here a run's, in `finals` those of a comparison of methods.
Search, winner and report see none of them.

For every searched user the original base, the base that was searched on, the user's own published
memory and the memories of strangers answer the same test items, so that all differences are taken
within a user. The loss is over all test items; answers, which cost far more, over at most 32 of
them, evenly spaced in time; of items with options the likeliest is picked. Nothing is chosen here:
run it once, when a run is done.

Strangers are drawn by the seed from the other users who have a memory: first those whose winner
has the user's own configuration, so that only the text differs, then any others.

Each base is loaded once, one after the other, and users go through it in groups: one process, one
device, no Ray.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from cluster import comparison_text
from cluster.comparison import Compared, Comparison, Model, mean_of
from cluster.measuring import Subject, anchors_of, have_labels, measure
from cluster.private import write_private
from cluster.process import output_is_logged
from cluster.results import Measured, Results, UserResult, load
from cluster.strangers import Strangers
from models.base import Base
from models.catalog import attach_all, frame_all
from models.history import Histories, UserSaid
from models.personalizer import UserState
from models.registry import Registry

ANSWERED_ITEMS = 32
STRANGERS = 4
GROUP = 4  # users scored in the same batches

Tried = tuple[UserResult, Model, Sequence[UserState | None]]  # one model may be several memories


def compare(
    run: Path,
    seed: int = 0,
    strangers: int = STRANGERS,
    out: Path | None = None,
    items: int = ANSWERED_ITEMS,
    device: str = "auto",
    console: Console | None = None,
    users: int | None = None,
) -> Comparison:
    """Measures a run on its test words, prints it, and writes compare.json and compare.md.

    Args:
        run: the folder of a finished search.
        seed: draws strangers and bootstrap samples.
        strangers: how many strangers' memories each user's own is held against.
        out: the folder to write to; the run's own if not given.
        items: the most test items a user's models answer.
        device: as for `Base.load`.
        console: where to print; the standard output if not given.
        users: how many users are measured, drawn at random; all if not given. What they said is
            held in memory together.

    Raises:
        FileNotFoundError: no finished search here.
        ValueError: numbers out of range, a damaged run, or a base other than the run's.
    """
    for name, value in (("--strangers", strangers), ("--items", items), ("--users", users)):
        if value is not None and value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    results, console = load(run), console or Console()
    if not results.users:
        raise ValueError(f"{run}: expected at least one searched user, found none to compare")
    folder = run if out is None else out
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    comparison = _Run(run, results, seed, strangers, items, users).comparison(device, console)
    write_private(folder / "compare.json", json.dumps(comparison.to_json(), indent=1))
    write_private(folder / "compare.md", comparison_text.markdown(comparison))
    # NOTE: what a submitted job prints is a log of the cluster's, and logs name nobody.
    comparison_text.show(
        _by_digest(comparison, results) if output_is_logged() else comparison, console
    )
    console.print(f"Written to {folder / 'compare.md'} and {folder / 'compare.json'}.")
    return comparison


def _by_digest(comparison: Comparison, results: Results) -> Comparison:
    digests = {user.user_id: user.digest for user in results.users}
    users = tuple(replace(user, user_id=user.digest) for user in comparison.users)
    withdrawn = tuple(digests[user_id] for user_id in comparison.withdrawn)
    return replace(comparison, users=users, withdrawn=withdrawn)


def _drawn(users: Sequence[UserResult], count: int | None, seed: int) -> Sequence[UserResult]:
    """So many users in their order; all if no count is given, or there are fewer."""
    if count is None or count >= len(users):
        return users
    places = random.Random(f"{seed} users").sample(range(len(users)), count)
    return [users[place] for place in sorted(places)]


class _Run:
    """What a comparison reads of a run's folder, and the order in which it measures."""

    def __init__(
        self,
        folder: Path,
        results: Results,
        seed: int,
        strangers: int,
        items: int,
        users: int | None,
    ) -> None:
        self._results, self._seed, self._strangers, self._items = results, seed, strangers, items
        self._histories = Histories.open(folder / "data")
        self._registry = Registry(folder / "registry")
        self._merged = None if results.population is None else folder / "base"
        self._dtype: str = results.experiment.get("dtype", "auto")
        self._user_said: UserSaid = results.experiment.get("user_said", "response")
        self._published = [user for user in results.users if user.user_id in self._registry]
        self._users = _drawn(self._published, users, seed)
        self._subjects = {user.digest: self._subject(user) for user in self._users}
        self._labels = have_labels(self._subjects.values())

    def comparison(self, device: str, console: Console) -> Comparison:
        """Every user under every model."""
        measured: dict[str, dict[Model, Measured]] = {digest: {} for digest in self._subjects}
        if self._merged is not None:
            base = Base.load(self._results.base.original, device, self._dtype)
            for group in self._groups("original base", console):
                self._measure(base, [(user, "original", [None]) for user in group], measured)
        base = self._searched_base(device)
        strangers = Strangers(self._published, self._seed)
        drawn = {user.digest: strangers.of(user, self._strangers) for user in self._users}
        for group in self._groups("memories", console):
            self._measure(base, list(self._tried(base, group, drawn)), measured)
        return Comparison(
            original=self._results.base.original,
            base=base.name,
            data=str(self._results.experiment.get("data", "")),
            seed=self._seed,
            strangers=self._strangers,
            users=tuple(
                self._compared(user, drawn[user.digest], measured[user.digest])
                for user in self._users
            ),
            withdrawn=self._withdrawn(),
            anchors=self._anchors(),
            drawn_from=len(self._published) if len(self._users) < len(self._published) else None,
        )

    def _withdrawn(self) -> tuple[str, ...]:
        published = {user.digest for user in self._published}
        return tuple(u.user_id for u in self._results.users if u.digest not in published)

    def _subject(self, user: UserResult) -> Subject:
        return Subject.of(self._histories.load(user.user_id), self._user_said, self._items)

    def _searched_base(self, device: str) -> Base:
        base = Base.load(self._merged or self._results.base.original, device, self._dtype)
        if base.fingerprint != self._results.base.fingerprint:
            raise ValueError(
                f"expected the base that was searched on (fingerprint "
                f"{self._results.base.fingerprint[:12]}), got {base.name!r} with "
                f"{base.fingerprint[:12]}; put the base back as it was"
            )
        return base

    def _tried(
        self, base: Base, group: Sequence[UserResult], drawn: Mapping[str, Sequence[UserResult]]
    ) -> Iterator[Tried]:
        """The models of some users, each memory read once."""
        strangers = [stranger for user in group for stranger in drawn[user.digest]]
        states = {
            user.digest: self._registry.load(user.user_id, base) for user in (*group, *strangers)
        }
        for user in group:
            yield user, "base", [None]
            if states[user.digest] is not None:
                yield user, "own", [states[user.digest]]
            if others := [states[stranger.digest] for stranger in drawn[user.digest]]:
                yield user, "strangers", others

    def _measure(
        self, base: Base, tried: Sequence[Tried], measured: dict[str, dict[Model, Measured]]
    ) -> None:
        """Adds what was tried to `measured`, all of it in the same batches."""
        states = [state for _, _, states in tried for state in states]
        subjects = [self._subjects[user.digest] for user, _, states in tried for _ in states]
        ways = (attach_all(base), frame_all(base))
        found = iter(measure(base, *ways, states, subjects, self._labels))
        for user, model, of_model in tried:
            measured[user.digest][model] = mean_of([next(found).measured for _ in of_model])

    def _compared(
        self,
        user: UserResult,
        drawn: Sequence[UserResult],
        measured: Mapping[Model, Measured],
    ) -> Compared:
        subject = self._subjects[user.digest]
        return Compared(
            user_id=user.user_id,
            digest=user.digest,
            by_session=user.by_session,
            kind="milp" if "own" in measured else "base",
            items=len(subject.items),
            answered=len(subject.answered),
            strangers=tuple(stranger.digest for stranger in drawn),
            measured={"own": measured["base"], **measured},
        )

    def _anchors(self) -> dict[str, tuple[float, float]]:
        """What Persona-F1 and P-Cover are to be read against."""
        return anchors_of(list(self._subjects.values()), self._seed)

    def _groups(self, what: str, console: Console) -> Iterator[Sequence[UserResult]]:
        """Users, a few at a time; says how far it is where somebody watches."""
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task(f"Test words: {what}", total=len(self._users))
            for start in range(0, len(self._users), GROUP):
                yield self._users[start : start + GROUP]
                progress.advance(task, GROUP)
