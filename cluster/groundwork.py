"""A comparison before anything is trained: its folder, its data, its users, and refusals.

It knows no Ray. What can't work is refused here, with nothing done and nothing lost.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import torch

from cluster.effort import Effort
from cluster.entrant import Entrant
from cluster.folder import RunFolder
from cluster.progress import Progress
from cluster.terms import Terms
from cluster.unit import Units
from cluster.users import Choice, choose
from models import quizzes
from models.base import check
from models.encoder import BASE, HubEncoder
from models.history import Histories, split


@dataclass(frozen=True)
class Contest:
    """A comparison whose data is read and whose users are drawn."""

    terms: Terms
    folder: RunFolder
    histories: Histories
    choice: Choice
    rows: tuple[Entrant, ...]

    @property
    def units(self) -> Units:
        """What is done of it."""
        return Units(self.folder.path)

    def check_judged(self) -> None:
        """Refuses a judge where there is nothing to judge.

        Raises:
            ValueError: every test item has options, so that no answer is written.
        """
        histories = (self.histories.load(user.user_id) for user in self.choice.searched)
        items = (item for history in histories for item in split(history).test)
        if all(item.query is None or item.choices is not None for item in items):
            raise ValueError(
                "--judge: expected test items that are answered in words, got items with options "
                "alone; leave it out"
            )

    def say(self, progress: Progress) -> None:
        """What was read, and what it costs."""
        users, effort = len(self.choice.searched), Effort.of(self.terms, self.rows)
        others = len(self.histories.user_ids) - users
        progress.note(
            f"{len(self.histories)} interactions; {users} users are compared, others to learn "
            f"from: {others}; in {self.folder.path}"
        )
        for name, count in self.histories.counts.items():
            if count:
                progress.note(f"{count} {name.replace('_', ' ')} in the data")
        for line in effort.lines():
            progress.note(line)


def prepared(terms: Terms, folder: RunFolder, rows: tuple[Entrant, ...]) -> Contest:
    """Reads the data into the folder and draws the users; what is there already stays.

    Raises:
        ValueError, OSError: a base or data that can't be read, too few users who can be split
            between sessions, or other terms than before.
    """
    folder.check_settings(terms)
    folder.remove_temporary()
    check(terms.base, terms.dtype)
    if terms.encoder != BASE:
        HubEncoder(terms.encoder, torch.device("cpu"))  # refused here, and not in every training
    if folder.settings.is_file():
        histories, choice = Histories.open(folder.data), Choice.load(folder.path)
    else:  # new, or killed before it was settled what stands there
        shutil.rmtree(folder.population, ignore_errors=True)
        histories = quizzes.histories(terms.data, folder.data, terms.user_said)
        choice = choose(histories, terms.experiment(), folder.key(), terms.skip)
        _check_users(terms, choice)
        choice.save(folder.path)
    return Contest(terms, folder, histories, choice, rows)


def _check_users(terms: Terms, choice: Choice) -> None:
    between = sum(user.by_session for user in choice.searched)
    if between < terms.users:
        skipped = f" beside the {terms.skip} of --skip" if terms.skip else ""
        raise ValueError(
            f"--users: expected {terms.users} users with {terms.min_items} items or more whose "
            f"history can be split between sessions, got {between}{skipped}: give fewer, or a "
            "lower --min-items"
        )
