"""A run before anything is trained: its folder, its data, its users, and refusals.

It knows no Ray. What can't work is refused here, with nothing done and nothing lost; a folder that
was made in vain is removed again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cluster.experiment import Experiment
from cluster.folder import RunFolder
from cluster.progress import Progress
from cluster.users import FILE_NAME, Choice, choose
from models import quizzes
from models.base import check
from models.history import Histories, user_digest
from search.samplers import check_sampler
from search.storage import open_storage

_LISTED = 10


@dataclass(frozen=True)
class Prepared:
    """A run whose data is read and whose users are drawn.

    `storage` is the studies' address; `examples` says whether the report quotes users.
    """

    experiment: Experiment
    folder: RunFolder
    histories: Histories
    choice: Choice
    storage: str
    examples: bool

    def say(self, progress: Progress) -> None:
        """What was read, and what that means for users."""
        histories, choice = self.histories, self.choice
        users = len(histories.user_ids)
        progress.note(f"{len(histories)} interactions of {users} users, run in {self.folder.path}")
        for name, count in histories.counts.items():
            if count:
                progress.note(f"{count} {name.replace('_', ' ')} in the data")
        marked = sum(not user.by_session for user in choice.searched)
        split = f", {marked} of them not split between sessions" if marked else ""
        progress.note(f"{len(choice.searched)} users are searched{split}")
        for user in choice.left_out[:_LISTED]:
            name = progress.name(user.user_id, user_digest(self.folder.key(), user.user_id))
            progress.note(f"left out: {name}: {user.reason}")
        if len(choice.left_out) > _LISTED:
            progress.note(f"left out: {len(choice.left_out) - _LISTED} more")


@contextmanager
def held(folder: RunFolder, resume: bool) -> Iterator[None]:
    """The folder, made or opened, and held by this driver alone."""
    folder.begin(resume)
    with folder.lock():
        try:
            yield
        except (ValueError, OSError):
            if not resume and not folder.settings.is_file() and not folder.base.is_dir():
                shutil.rmtree(folder.path)
            raise


def prepared(
    experiment: Experiment, folder: RunFolder, resume: bool, storage: str | None, examples: bool
) -> Prepared:
    """Reads the data into the run's folder and draws the users; what is there already stays.

    Raises:
        ValueError, OSError: a base or data that can't be read, no usable user, or other settings
            than before.
    """
    if resume:
        folder.check_settings(experiment)
        folder.remove_temporary()
    check(experiment.base, experiment.dtype)
    check_sampler(experiment.sampler)
    address = _storage(folder, storage)
    if (folder.path / FILE_NAME).is_file():
        histories, choice = Histories.open(folder.data), Choice.load(folder.path)
    else:
        histories = quizzes.histories(experiment.data, folder.data, experiment.user_said)
        choice = choose(histories, experiment, folder.key())
        experiment.check_total(len(choice.searched))
        choice.save(folder.path)
    return Prepared(experiment, folder, histories, choice, address, examples)


def _storage(folder: RunFolder, given: str | None) -> str:
    """The studies' address, once it has answered."""
    known = folder.storage() if folder.settings.is_file() else None
    if known and given and given != known:
        raise ValueError("--storage: expected the one that the run was begun with, got another")
    address = known or given or folder.default_storage
    open_storage(address)
    return address
