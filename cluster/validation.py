"""What is done on the validation part of a comparison's users.

That is the base's own losses, an entrant's trials, and what becomes of a final training.

The loss of a state is taken as it is on the test part later, with whatever the method puts before a
query, so that methods that train and methods that only read are measured alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cluster.apart import together_or_apart
from cluster.arena import Arena, Own
from cluster.entrant import is_searched
from cluster.tuning import proposed
from cluster.unit import Unit, told
from models.catalog import personalizer
from models.personalizer import UserState
from models.rouge import mean_rouge_l
from models.scoring import answers, evaluation_items, losses
from models.strength import is_lora, moderated
from search.space import SearchSpace

_UNKNOWN: Own = {"loss_nats": None, "rouge_l": None}


def bare(arena: Arena, unit: Unit) -> Own:
    """The base's validation losses, and ROUGE-L of its answers."""
    digests = [user.digest for user in arena.users]
    found = _validate(arena, dict.fromkeys(digests), with_answers=True)
    return {"users": dict(zip(digests, found, strict=True))}


def trial(arena: Arena, unit: Unit) -> Own:
    """An entrant's trial of all users: each one's configuration and validation loss."""
    entrant, base = arena.entrant(unit), arena.base
    method = personalizer(entrant.method, arena.terms.encoder)
    space, _ = SearchSpace.for_base(base.layer_count, base.smallest_dimension)
    known = arena.units.read(Unit("bare"))
    earlier = told(arena.units, entrant.label, unit.number) if is_searched(method) else []
    wanted = proposed(
        entrant, method, unit.number, space, arena.users, known, earlier, arena.terms.seed
    )
    trained = arena.trainings.train(method, wanted, 0)
    found = _validated(arena, trained.states, known["users"], with_answers=is_searched(method))
    users = {
        digest: {
            "configuration": dict(configuration.to_json()),
            **found.get(digest, _UNKNOWN),
        }
        for digest, configuration in wanted.items()
    }
    return {"users": users, "refused": trained.reason, "train_seconds": trained.seconds}


def settled(arena: Arena, states: Mapping[str, UserState]) -> dict[str, UserState]:
    """States as a search publishes its winners, whatever the method; by digest.

    A LoRA is kept at the strength that the user's validation words are sure of
    (`models/strength.py`). A state that serves these words no better than the base does, trained
    anew as it is, is left out: the base answers that user.
    """
    kept = dict(states)
    moved = together_or_apart(
        lambda some: [_at_strength(arena, digest, states[digest]) for digest in some], list(states)
    )
    kept |= {d: s for d, s in zip(states, moved, strict=True) if not isinstance(s, ValueError)}
    bare_of = arena.units.read(Unit("bare"))["users"]
    found = _validated(arena, kept, bare_of, with_answers=False)

    def is_better(digest: str) -> bool:
        loss = found.get(digest, _UNKNOWN)["loss_nats"]
        return loss is None or bool(loss < bare_of[digest]["loss_nats"])  # unknown: fails later

    return {digest: state for digest, state in kept.items() if is_better(digest)}


def _at_strength(arena: Arena, digest: str, state: UserState) -> UserState:
    if not is_lora(state):
        return state
    items = evaluation_items(arena.subjects.of(digest).validation)
    return moderated(arena.base, arena.attach, state, items, arena.frame)[0]


def _validated(
    arena: Arena,
    states: Mapping[str, UserState],
    bare_of: Mapping[str, Own],
    with_answers: bool,
) -> dict[str, Own]:
    """By digest; a state that adds nothing has the base's numbers, one that can't run none."""
    found = {digest: dict(bare_of[digest]) for digest, state in states.items() if state.is_base}
    others = [digest for digest in states if digest not in found]

    def work(some: Sequence[str]) -> list[Own]:
        return _validate(arena, {digest: states[digest] for digest in some}, with_answers)

    for digest, own in zip(others, together_or_apart(work, others), strict=True):
        if not isinstance(own, ValueError):
            found[digest] = own
    return found


def _validate(
    arena: Arena, states: Mapping[str, UserState | None], with_answers: bool
) -> list[Own]:
    """Loss on the users' validation items, and ROUGE-L of answers if asked."""
    users = [arena.subjects.of(digest) for digest in states]
    run = (arena.base, arena.attach, list(states.values()))
    items = [evaluation_items(user.validation) for user in users]
    nats = [loss.nats for loss in losses(*run, items, arena.frame)]
    rouge: list[float | None] = [None] * len(users)
    if with_answers:
        asked, limits = [user.items for user in users], [user.answer_tokens for user in users]
        texts = answers(*run, asked, limits, arena.frame)
        expected = [[item.response for item in items] for items in asked]
        rouge = [mean_rouge_l(*pair)[0] for pair in zip(expected, texts, strict=True)]
    return [
        {"loss_nats": loss if math.isfinite(loss) else None, "rouge_l": overlap}
        for loss, overlap in zip(nats, rouge, strict=True)
    ]
