"""One user's trials: ask, tell, front, winner; kept in a database that survives any kill.

The storage is the truth. What is asked is stored as waiting before anybody hears of it; what is
told becomes complete, failed or stopped in one transaction, with all that was measured. So a run
that died goes on with `pending()`, in order, and asks for new proposals after.

A *stopped* trial was not worth finishing (see `stopping`). It has no values: what it had reached
stands in what was measured alone. Like a failed one it is forbidden from then on.

The first trial is the *anchor*: the base itself, which a winner has to beat. `completed()` is in
the order of asking (trial numbers), not of coming back: samplers see the same sequence after a
resume. The reference point is set once and never moves.

A study is read at opening and has one writer; others may read. Its name is the user's digest.
"""

import json
import logging
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import TrialState

from search import header, pareto
from search.pareto import LOSS, ROUGE_L, Objective
from search.patience import PatientStorage
from search.samplers import Known, Observation, Proposal
from search.space import BASE_CONFIG, MemoryConfig, SearchSpace
from search.storage import STATES, Trial, created, from_stored, template

REFERENCE = "reference_point"
PORTFOLIO = "portfolio"
SOURCES = "portfolio_sources"  # the studies that it was made from, by their ids
_NOTE = "note/"
_METRIC_NAMES = "study:metric_names"  # where Optuna's plots and its dashboard look

_logger = logging.getLogger(__name__)


class Study:
    """One user's trials and objectives."""

    def __init__(self, storage: PatientStorage, name: str) -> None:
        """The stored study of this name.

        Raises:
            KeyError: there is none.
            ValueError: it is damaged, or of another version.
        """
        self.name = name
        self._storage = storage
        self._id = storage.get_study_id_from_name(name)
        try:
            attributes = storage.get_study_user_attrs(self._id)
            self.space, self.objectives = header.read(attributes[header.NAME])
            self.portfolio = tuple(map(MemoryConfig.from_json, attributes.get(PORTFOLIO, ())))
            reference = attributes.get(REFERENCE)
            self.reference: tuple[float, ...] | None = tuple(reference) if reference else None
            stored = map(from_stored, storage.get_all_trials(self._id, deepcopy=False))
            self._trials = {trial.number: trial for trial in stored}
        except (StorageInternalError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"can't read the study {name}: {error!r}") from error

    @classmethod
    def open(
        cls,
        storage: PatientStorage,
        name: str,
        space: SearchSpace,
        objectives: Sequence[Objective] = (LOSS, ROUGE_L),
        base: str = "",
    ) -> Self:
        """The study of this name, made where there is none.

        Args:
            base: what the memories are trained on; told when the study is made, and not compared.

        Raises:
            ValueError: it is of another space, other objectives or another version, or damaged.
        """
        wanted = header.of(space, objectives)
        try:
            study_id = storage.get_study_id_from_name(name)
        except KeyError:
            study_id = created(storage, name, [o.maximise for o in objectives])
        stored = storage.get_study_user_attrs(study_id).get(header.NAME)
        if stored is None:  # new, or its maker was killed before this line
            names = [objective.name for objective in objectives]
            storage.set_study_system_attr(study_id, _METRIC_NAMES, names)
            if base:
                storage.set_study_user_attr(study_id, header.BASE, base)
            storage.set_study_user_attr(study_id, header.NAME, wanted)
        else:
            header.check(name, stored, wanted)
        return cls(storage, name)

    def delete(self) -> None:
        """Removes the study and all its trials from the storage."""
        self._storage.delete_study(self._id)
        self._trials.clear()

    # What is known.

    @property
    def trials(self) -> list[Trial]:
        """All trials, in the order they were asked."""
        return [self._trials[number] for number in sorted(self._trials)]

    @property
    def anchor(self) -> Trial | None:
        """The base's own trial, once it was asked."""
        return self._trials.get(0)

    @property
    def is_new(self) -> bool:
        """Whether no memory was asked yet, and nothing advised."""
        return len(self._trials) <= 1 and not self.portfolio

    def pending(self) -> list[Trial]:
        """Asked and not told, in the order they were asked."""
        return [trial for trial in self.trials if trial.state == "pending"]

    def completed(self) -> list[Observation]:
        """What came back, in the order it was asked; the anchor, failures and stopped ones too."""
        return [Observation(t.config, t.values) for t in self.trials if t.state != "pending"]

    def known(self) -> Known:
        """What the next proposal is made from."""
        return Known(len(self._trials), tuple(trial.number for trial in self.pending()))

    def front(self, without: Container[int] = ()) -> list[Trial]:
        """The completed trials that no other dominates, passing over these and the anchor."""
        trials = [trial for trial in self._memories() if trial.number not in without]
        rows = [trial.values or () for trial in trials]
        return [trials[i] for i in pareto.front(self.objectives, rows)]

    def winner(self, without: Container[int] = ()) -> Trial:
        """The trial to publish by `pareto.winner`; the anchor where nothing beats the base.

        The anchor's `measured` must hold `item_count`, the validation items of ROUGE-L, and a
        trial's `rouge_l_error` its standard error over them. Those in `without` are passed over.

        Raises:
            ValueError: the anchor has not come back.
        """
        anchor = self.anchor
        if anchor is None or anchor.values is None:
            raise ValueError(f"expected the anchor of study {self.name} to have come back")
        front = self.front(without)
        best = pareto.winner(
            [trial.candidate(self.objectives) for trial in front],
            base_loss=anchor.candidate(self.objectives).loss_nats,
            item_count=int(anchor.measured["item_count"]),
        )
        return anchor if best is None else front[best]

    def notes(self) -> Mapping[str, Any]:
        """What was noted, read anew; see `note`."""
        stored = self._storage.get_study_user_attrs(self._id).items()
        return {key.removeprefix(_NOTE): v for key, v in stored if key.startswith(_NOTE)}

    # What is written.

    def note(self, name: str, value: Any) -> None:
        """Keeps something beside the trials, as JSON; noted again, it takes the old one's place."""
        self._storage.set_study_user_attr(self._id, _NOTE + name, value)

    def ask_anchor(self, seed: int) -> Trial:
        """The base's own trial, stored as pending; the same one however often it is asked."""
        return self.anchor or self._store([(Proposal(BASE_CONFIG, "anchor"), seed, 0)])[0]

    def ask_all(
        self, wanted: Sequence[tuple[Proposal, int, int]], known: Known | None = None
    ) -> list[Trial]:
        """New trials in their order, stored in one transaction before they are returned.

        Args:
            wanted: proposals, each with its trial's seed and its trainable parameters.
            known: what all of them were made from, where that is not what is known now.

        Raises:
            ValueError: the anchor was not asked yet, a configuration was asked before, or is no
                member of the space; then none is stored.
        """
        if self.anchor is None:
            raise ValueError(f"expected the anchor of study {self.name} to be asked first")
        asked = {trial.config for trial in self._trials.values()}
        for proposal, _, _ in wanted:
            if proposal.config not in self.space:
                raise ValueError(f"expected a member of the space, got {proposal.config.key}")
            if proposal.config in asked:
                raise ValueError(f"{proposal.config.key} was asked before in study {self.name}")
            asked.add(proposal.config)
        return self._store(wanted, known or self.known())

    def tell(
        self, number: int, values: Sequence[float], measured: Mapping[str, Any] | None = None
    ) -> Trial:
        """A pending trial, complete. Values that are no finite numbers make it a failed one.

        Telling again changes nothing; other values than before are logged and left out.

        Args:
            number: of the trial.
            values: one for each objective, in natural units; `measured`: what else, as JSON.

        Raises:
            KeyError: there is no such trial.
            ValueError: not one value for each objective.
        """
        given = tuple(float(value) for value in values)
        pareto.oriented(self.objectives, [given])
        if not all(map(math.isfinite, given)):
            pairs = zip(self.objectives, given, strict=True)
            return self.fail(number, ", ".join(f"{o.name} is {value}" for o, value in pairs))
        attributes = {"measured": dict(measured or {})}
        return self._finish(number, TrialState.COMPLETE, given, attributes)

    def fail(self, number: int, reason: str) -> Trial:
        """A pending trial, failed: its configuration is forbidden from now on."""
        return self._finish(number, TrialState.FAIL, None, {"reason": reason})

    def stop(self, number: int, reason: str, measured: Mapping[str, Any] | None = None) -> Trial:
        """A pending trial, stopped before its end: no values, and forbidden from now on."""
        attributes = {"reason": reason, "measured": dict(measured or {})}
        return self._finish(number, TrialState.PRUNED, None, attributes)

    def settle_reference(self, initial: int) -> tuple[float, ...] | None:
        """The reference point, set for good at the first call after the initial design.

        None until `initial` memories were asked, and the anchor and two memories have come back.
        """
        rows = [trial.values or () for trial in self._memories()]
        asked, anchor = len(self._trials) - 1, self.anchor
        if self.reference or asked < initial or len(rows) < 2 or not (anchor and anchor.values):
            return self.reference
        found = pareto.reference_point(self.objectives, rows, anchor.values)
        self._storage.set_study_user_attr(self._id, REFERENCE, list(found))
        self.reference = found
        return found

    def settle_portfolio(self, configs: Sequence[MemoryConfig], ids: Sequence[int] = ()) -> None:
        """Keeps what studies of these ids advise; nothing changes once a memory was asked."""
        if self.is_new and configs:
            if ids:  # a name would outlive a user who is forgotten
                self._storage.set_study_user_attr(self._id, SOURCES, list(ids))
            self._storage.set_study_user_attr(self._id, PORTFOLIO, [c.to_json() for c in configs])
            self.portfolio = tuple(configs)

    def _memories(self) -> list[Trial]:
        return [t for t in self.trials if t.values is not None and t.config != BASE_CONFIG]

    def _store(
        self, wanted: Sequence[tuple[Proposal, int, int]], known: Known | None = None
    ) -> list[Trial]:
        waiting = [template(self.space, *one, known) for one in wanted]
        found = self._storage.ask(self._id, waiting) if waiting else []
        trials = [
            replace(from_stored(one), id=trial_id, number=number)
            for one, (trial_id, number) in zip(waiting, found, strict=True)
        ]
        self._trials |= {trial.number: trial for trial in trials}
        return trials

    def _finish(
        self,
        number: int,
        state: TrialState,
        values: tuple[float, ...] | None,
        attributes: Mapping[str, Any],
    ) -> Trial:
        trial = self._trials[number]
        if trial.state != "pending":
            if trial.values != values:
                _logger.warning(
                    "study %s, trial %d: told %s after it was %s with %s; the first stands",
                    *(self.name, number, values or attributes, trial.state, trial.values),
                )
            return trial
        try:
            self._storage.end(trial.id, state, values, attributes)
        except UpdateFinishedTrialError:  # told by a process that was thought dead
            self._trials[number] = from_stored(self._storage.get_trial(trial.id))
            return self._finish(number, state, values, attributes)
        kept = json.loads(json.dumps(dict(attributes)))  # as it will be read
        self._trials[number] = replace(trial, state=STATES[state], values=values, **kept)
        return self._trials[number]
