"""The benchmarks whose published files are read as users' data, known by the files' names.

    LaMP        <part>_questions.json beside <part>_outputs.json
    PersonaMem  questions_<size>.csv beside shared_contexts_<size>.jsonl

A folder with two such files is that benchmark; any other source is read as `readers` tell it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models import archive, lamp, persona_mem
from models.history import DataError, Histories, UserSaid
from models.quiz import Quiz, write

Name = Literal["LaMP", "PersonaMem"]
_NAMES: tuple[tuple[Name, tuple[str, str], tuple[str, str]], ...] = (
    ("LaMP", ("", "_questions.json"), ("", "_outputs.json")),
    ("PersonaMem", ("questions_", ".csv"), ("shared_contexts_", ".jsonl")),
)


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's two files: its questions, and what belongs to them."""

    name: Name
    questions: Path
    others: Path

    def quizzes(self, lost: Counter[str]) -> list[Quiz]:
        """All users of it; `lost` counts what is left out.

        Raises:
            DataError: a file that is not in the published format.
            OSError: unreadable.
        """
        if self.name == "LaMP":
            return lamp.read(self.questions, self.others)
        return persona_mem.read(self.questions, self.others, lost)

    def check(self, user_said: UserSaid) -> None:
        """Refuses data whose users' words would be taken for the model's.

        Raises:
            DataError: they would.
        """
        if self.name == "PersonaMem" and user_said != "query":
            raise DataError(
                f"{self.questions.parent}: expected that the users said the queries, as in all of "
                f"PersonaMem, got {user_said!r}; give --user-said query"
            )


def find(source: str | Path) -> Benchmark | None:
    """The benchmark that a folder holds; None for any other source.

    Raises:
        DataError: it holds several.
    """
    folder = Path(source)
    found = [
        Benchmark(name, file, other)
        for name, (start, end), other_name in _NAMES
        for file in (sorted(folder.glob(f"{start}*{end}")) if folder.is_dir() else ())
        if (other := folder / file.name[len(start) : -len(end)].join(other_name)).is_file()
    ]
    if len(found) > 1:
        listed = ", ".join(each.questions.name for each in found)
        raise DataError(
            f"{folder}: expected one file of questions, got {listed}; put one of them, and the "
            "file that belongs to it, in a folder of their own"
        )
    return found[0] if found else None


def histories(source: str | Path, folder: Path, user_said: UserSaid) -> Histories:
    """`Histories.read` of any source, a benchmark's published files among them.

    Args:
        source: a file, a folder, or the name of a data set.
        folder: where they are written, sorted.
        user_said: which words are taken for the users' own.

    Raises:
        DataError: bad data, named with its place.
        OSError: missing or unreadable.
    """
    benchmark = find(source)
    if benchmark is None:
        return Histories.read(source, folder)
    benchmark.check(user_said)
    lost: Counter[str] = Counter()
    quizzes = benchmark.quizzes(lost)
    with archive.scratch(folder.with_name(f"quizzes-{folder.name}")) as aside:
        write(quizzes, aside / "data")
        return Histories.read(aside / "data", folder, lost)
