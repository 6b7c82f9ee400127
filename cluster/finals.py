"""Units on the test part: an entrant trained with what it chose, and the bases without a memory.

This is where a comparison reads the test part, through `measuring.Subject`; it is asked for when
all trials of all entrants are done. Nothing is chosen by it. A user whose best trial was no gain
isn't trained: the base's own numbers stand for that user. So they do where the training failed, and
where it is no gain on validation words after all.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace

from cluster.apart import together_or_apart
from cluster.arena import Arena, Own
from cluster.attention import ReadsSlots, attention_of
from cluster.burden import extra_tokens, pace_ratios, parameters, stored_bytes
from cluster.entrant import Entrant, configuration_of
from cluster.measuring import Found, Subject, anchors_of, have_labels, measure
from cluster.trainings import Trained
from cluster.tuning import chosen
from cluster.unit import BASE, Unit
from cluster.validation import settled
from cluster.verdicts import keep
from models.catalog import personalizer
from models.history import Histories
from models.personalizer import UserState
from models.published import WINNER_IS_BASE, BaseIdentity
from models.registry import Registry
from models.scoring import answer_limit

PACED_USERS = 3
FAILED = "the training failed"

Subjects = Mapping[str, Subject]


def untrained(arena: Arena, unit: Unit) -> Own:
    """A base's own scores, and what Persona-F1 and P-Cover are to be read against."""
    subjects = _tested(arena)
    digests = list(subjects)
    found = _found(arena, dict.fromkeys(digests), subjects, digests)
    users = {
        digest: {
            "measured": asdict(own.measured),
            "items": len(subjects[digest].items),
            "answered": len(subjects[digest].answered),
            "with_options": len(subjects[digest].choosing),
        }
        for digest, own in zip(digests, found, strict=True)
    }
    if unit.entrant == BASE:
        said = zip(digests, found, strict=True)
        keep(arena.folder.path, unit, {digest: own.answers for digest, own in said})
    return {"users": users, "anchors": anchors_of(list(subjects.values()), arena.terms.seed)}


def final(arena: Arena, unit: Unit) -> Own:
    """An entrant under a seed: trained with each user's best configuration, then scored once."""
    entrant = arena.entrant(unit)
    method = personalizer(entrant.method, arena.terms.encoder)
    wanted = {
        digest: configuration_of(method, best.configuration)
        for digest, best in chosen(arena.units, entrant).items()
        if best is not None
    }
    trained = arena.trainings.train(method, wanted, unit.number)
    states = trained.states
    trained = replace(trained, states=settled(arena, states))
    digests = list(trained.states)
    subjects = _tested(arena)
    scored = together_or_apart(lambda some: _found(arena, trained.states, subjects, some), digests)
    found = dict(zip(digests, scored, strict=True))
    users = {
        digest: {"no_gain": True}
        if digest in states and digest not in trained.states
        else _own(arena, trained, subjects, found, digest)
        for digest in wanted
    }
    content: Own = {
        "users": users,
        "refused": trained.reason,
        "train_seconds": trained.seconds,
        "trained": len(states),
    }
    if unit.number == 0:
        good = {d: trained.states[d] for d, own in users.items() if "measured" in own}
        failed = [digest for digest, own in users.items() if "failed" in own]
        content["stored_bytes"] = _published(arena, entrant, good, failed)
        content["pace"] = _pace(arena, good, subjects)
        if isinstance(method, ReadsSlots):
            content["attention"] = {
                digest: attention_of(method, arena.base, state, subjects[digest].train)
                for digest, state in good.items()
            }
        said = {d: own.answers for d in good if isinstance(own := found[d], Found)}
        keep(arena.folder.path, unit, said)
    return content


def _tested(arena: Arena) -> dict[str, Subject]:
    """By digest, everybody who is compared: whether options are labels is told by all together."""
    histories, terms = Histories.open(arena.folder.data), arena.terms
    return {
        user.digest: Subject.of(histories.load(user.user_id), terms.user_said, terms.items)
        for user in arena.users
    }


def _found(
    arena: Arena,
    states: Mapping[str, UserState | None],
    subjects: Subjects,
    digests: Sequence[str],
) -> list[Found]:
    of_users = [states[digest] for digest in digests]
    own, labels = [subjects[digest] for digest in digests], have_labels(subjects.values())
    return measure(arena.base, arena.attach, arena.frame, of_users, own, labels)


def _own(
    arena: Arena,
    trained: Trained,
    subjects: Subjects,
    found: Mapping[str, Found | ValueError],
    digest: str,
) -> Own:
    """One user's numbers; of one who can't be trained or scored, that alone."""
    own = found.get(digest)
    if not isinstance(own, Found) or not math.isfinite(own.measured.loss_nats):
        return {"failed": True}
    state, subject = trained.states[digest], subjects[digest]
    limit, kept = answer_limit(arena.base, subject.train), parameters(state)
    return {
        "measured": asdict(own.measured),
        "stored_parameters": kept,
        "trained_parameters": kept if trained.steps[digest] else 0,
        "extra_tokens": extra_tokens(arena.base, arena.frame, state, subject.items, limit),
        "lost": {name: count for name, count in trained.lost[digest].items() if count},
    }


def _published(
    arena: Arena, entrant: Entrant, states: Mapping[str, UserState], failed: Collection[str]
) -> dict[str, int]:
    """Publishes every user, in a registry of the entrant's own; by digest, the bytes of the files.

    Whoever is answered by the base is published as such, with the reason.
    """
    registry = Registry(arena.folder.path / "registries" / entrant.slug)
    identity, sizes = BaseIdentity.of(arena.base), {}
    for user in arena.users:
        state, reason = states.get(user.digest), None
        if state is None:
            reason = FAILED if user.digest in failed else WINNER_IS_BASE
            state = UserState(entrant.method, user.user_id, {}, {})
        sizes[user.digest] = stored_bytes(registry, state, identity, reason)
    return sizes


def _pace(
    arena: Arena, states: Mapping[str, UserState], subjects: Subjects
) -> tuple[float, float] | None:
    """Time to the first token and tokens a second, to the base's; None where none has a state."""
    asked = [(state, subjects[digest].items[0].query or "") for digest, state in states.items()][
        :PACED_USERS
    ]
    return pace_ratios(arena.base, arena.attach, arena.frame, asked) if asked else None
