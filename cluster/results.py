"""What a search found out: the content of `RUN/results.json`, written once when the search ends.

It knows no Ray, no model and no page: `cluster/run.py` fills it, `cluster/report.py` draws it,
`cluster/compare.py` reads from it who was searched. All numbers in it were measured on users'
validation words, never on their test words.

The file names users and quotes them, so it is written aside, renamed, and readable by its owner
alone. `Results.without` is what `milpa forget` needs: the same run as if it had never held a user.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cluster.chosen import Chosen
from cluster.inside import Inside
from cluster.private import pieces, write_private
from search.space import MemoryConfig

if TYPE_CHECKING:
    from models.scoring import Scores

FILE_NAME = "results.json"

Entries = Mapping[str, Mapping[str, float]]
"""For each user, what each memory that was tried gave on their words, by the memory's owner."""


class Recall(NamedTuple):
    """How many facts an answer should have held, how many it did, how many chance would give."""

    hits: int
    asked: int
    chance_sum: float


@dataclass(frozen=True)
class Measured:
    """One model on one user's held-out items. ROUGE and F1 are fractions in [0, 1].

    What is of answers is None where none were written, and `chosen` where no item has options.
    """

    loss_nats: float
    token_count: int
    rouge_1: float | None = None
    rouge_l: float | None = None
    rouge_l_error: float | None = None
    persona_f1: float | None = None
    p_cover: float | None = None
    recall: Mapping[str, Recall] = field(default_factory=dict)
    chosen: Chosen | None = None

    @classmethod
    def of(cls, scores: Scores) -> Measured:
        """The numbers of `scores`, without its texts."""
        return cls(
            loss_nats=scores.loss_nats,
            token_count=scores.token_count,
            rouge_1=scores.rouge_1,
            rouge_l=scores.rouge_l,
            rouge_l_error=scores.rouge_l_error,
            persona_f1=scores.persona_f1,
            p_cover=scores.p_cover,
            recall={kind: Recall(*counts) for kind, counts in scores.recall.items()},
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Measured:
        """The inverse of `dataclasses.asdict` after a way through JSON."""
        recall = {kind: Recall(*counts) for kind, counts in value["recall"].items()}
        chosen = value.get("chosen")  # units of earlier versions have none
        chosen = None if chosen is None else Chosen.from_json(chosen)
        return cls(**{**value, "recall": recall, "chosen": chosen})


@dataclass(frozen=True)
class Example:
    """One validation question with its true answer and two greedy ones."""

    query: str
    reference: str
    base: str
    winner: str


@dataclass(frozen=True)
class UserResult:
    """One searched user: who, on how much, what won, and how good it is beside the base.

    `strength` is the share of the trained memory that is kept; 0 for the base. `inside` quotes the
    user as `examples` do; the base has none.
    """

    user_id: str
    digest: str
    by_session: bool
    pairs: int
    kind: Literal["milp", "base"]
    reason: str | None
    configuration: MemoryConfig
    parameters: int
    strength: float
    anchor: Measured
    winner: Measured
    examples: tuple[Example, ...] = ()
    inside: Inside | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> UserResult:
        """The inverse of `to_json`."""
        inside = value["inside"]
        parts = {
            "configuration": MemoryConfig.from_json(value["configuration"]),
            "anchor": Measured.from_json(value["anchor"]),
            "winner": Measured.from_json(value["winner"]),
            "examples": tuple(Example(**example) for example in value["examples"]),
            "inside": None if inside is None else Inside.from_json(inside),
        }
        return cls(**{**value, **parts})

    def without_quotes(self) -> UserResult:
        """The same without a word of the user's."""
        return replace(self, examples=(), inside=None)

    def to_json(self) -> dict[str, object]:
        """The user as JSON values."""
        return {**asdict(self), "configuration": self.configuration.to_json()}


@dataclass(frozen=True)
class LeftOut:
    """A user who was not searched, and why."""

    user_id: str
    pairs: int
    reason: str


@dataclass(frozen=True)
class BaseResult:
    """The base that was searched on; `original` is the name of the base as given by the user."""

    name: str
    fingerprint: str
    layer_count: int
    original: str


@dataclass(frozen=True)
class Gain:
    """What memories gave on users' held-out words; all are digests.

    Only what was tried: nothing grows with the square of the number of users.
    """

    loss: Entries
    recall: Entries | None = None

    @property
    def users(self) -> tuple[str, ...]:
        """On whose words memories were tried."""
        return tuple(self.loss)

    def without(self, gone: Container[str]) -> Gain:
        """The same without some users' words, and without those users' memories on others'."""
        recall = None if self.recall is None else _without(self.recall, gone)
        return Gain(_without(self.loss, gone), recall)


@dataclass(frozen=True)
class Results:
    """A whole run. `experiment` is the content of RUN/experiment.json, unchanged."""

    experiment: Mapping[str, Any]
    base: BaseResult
    population: Mapping[str, Any] | None
    users: tuple[UserResult, ...]
    left_out: tuple[LeftOut, ...]
    gain: Gain | None
    seconds: Mapping[str, float]
    occupancy: float | None = None  # see `run.occupancy`

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Results:
        """The inverse of `to_json`."""
        gain = value["gain"]
        parts = {
            "base": BaseResult(**value["base"]),
            "users": tuple(UserResult.from_json(user) for user in value["users"]),
            "left_out": tuple(LeftOut(**user) for user in value["left_out"]),
            "gain": None if gain is None else Gain(**gain),
        }
        return cls(**{**value, **parts})

    def to_json(self) -> dict[str, object]:
        """The run as JSON values."""
        return {
            "experiment": dict(self.experiment),
            "base": asdict(self.base),
            "population": None if self.population is None else dict(self.population),
            "users": [user.to_json() for user in self.users],
            "left_out": [asdict(user) for user in self.left_out],
            "gain": None if self.gain is None else asdict(self.gain),
            "seconds": dict(self.seconds),
            "occupancy": self.occupancy,
        }

    def without(self, *user_ids: str) -> Results:
        """The run as if it had never held these users."""
        gone = frozenset(user_ids)
        digests = {user.digest for user in self.users if user.user_id in gone}
        return replace(
            self,
            users=tuple(user for user in self.users if user.user_id not in gone),
            left_out=tuple(user for user in self.left_out if user.user_id not in gone),
            gain=None if self.gain is None else self.gain.without(digests),
        )


def save(results: Results, run: Path) -> Path:
    """Writes RUN/results.json and returns its path."""
    path, users = run / FILE_NAME, (user.to_json() for user in results.users)
    write_private(path, pieces({**replace(results, users=()).to_json(), "users": users}))
    return path


def load(run: Path) -> Results:
    """Reads RUN/results.json.

    Raises:
        FileNotFoundError: the search of this run has not ended.
        ValueError: the file is not what `save` writes.
    """
    path = run / FILE_NAME
    if not path.is_file():
        begun = (run / "key").is_file()
        what = f"finish it: `milpa search ... --out {run} --resume`" if begun else "check the path"
        if (run / "units").is_dir():
            what = "this is a comparison of methods, read its compare.md"
        raise FileNotFoundError(
            f"{path}: no results here. Expected the folder of a finished search; {what}."
        )
    try:
        return Results.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected the results of a search, got something else "
            f"({type(error).__name__}: {error}). Write it again with `milpa search --resume`."
        ) from error


def _without(entries: Entries, gone: Container[str]) -> Entries:
    return {
        user: {owner: value for owner, value in tried.items() if owner not in gone}
        for user, tried in entries.items()
        if user not in gone
    }
