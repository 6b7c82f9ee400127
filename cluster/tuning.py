"""What an entrant tries next for each user, and which of its trials is a user's best.

One rule holds for all entrants. Every trial is one training at the same budget; the best is the one
of the lowest validation loss; one that isn't below the base's own loss is no gain, and the user is
answered by the base, as in a search. The main method's sampler sees ROUGE-L of validation answers
beside the loss, as in a search, but ROUGE-L decides nothing here. Where users share a part, it is
one part for all of them: the trial that is best on average is everybody's.

A method with options of its own tries the same few for every user, drawn from its space. The main
method proposes for each user from that user's own trials: an initial design, at most half, then a
Gaussian process. Users go on side by side, so none begins with what was best for another.

Everything here is a function of what was told: going on asks the same again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from cluster.entrant import Entrant, is_searched
from cluster.experiment import seed_of
from cluster.unit import Unit, Units, told
from cluster.users import Searched
from models.catalog import personalizer
from models.options import drawn
from models.personalizer import Configuration, Personalizer
from search.pareto import LOSS, ROUGE_L, reference_point
from search.samplers import (
    FEWEST_OBSERVATIONS,
    Observation,
    SamplerSettings,
    initial_count,
    make_sampler,
)
from search.space import BASE_CONFIG, MemoryConfig, SearchSpace

SAMPLER = "gp"

Content = Mapping[str, Any]
"""The outcome of a unit: what is known of each user stands under `users`, by digest."""


class Best(NamedTuple):
    """A user's best trial."""

    number: int
    configuration: Mapping[str, Any]


def trial_count(entrant: Entrant) -> int:
    """How many trials an entrant has: fewer where its space holds no more."""
    method = personalizer(entrant.method)
    if is_searched(method):
        return entrant.trials
    return min(entrant.trials, math.prod(len(values) for values in method.space.values()))


def proposed(
    entrant: Entrant,
    method: Personalizer,
    number: int,
    space: SearchSpace,
    users: Sequence[Searched],
    bare: Content,
    earlier: Sequence[Content],
    seed: int,
) -> dict[str, Configuration]:
    """What each user tries in the trial of a number; one whose space has run out is left out.

    Args:
        entrant: whose trial it is.
        method: the entrant's.
        number: of the trial, from 0.
        space: of layers, ranks and learning rates on this base.
        users: all of them.
        bare: the base's own outcome.
        earlier: the outcomes of the entrant's earlier trials, where it is searched.
        seed: the comparison's.
    """
    if not is_searched(method):
        every = drawn(method.space, entrant.trials, seed_of(seed, "options"))
        return {user.digest: every[number] for user in users}
    initial = max(1, initial_count(entrant.trials))
    sampler = make_sampler(SamplerSettings(SAMPLER, initial))
    found: dict[str, Configuration] = {}
    for user in users:
        anchor = _observation(BASE_CONFIG, bare["users"][user.digest])
        trials = [
            _observation(MemoryConfig.from_json(own["configuration"]), own)
            for content in earlier
            if (own := content["users"].get(user.digest)) is not None
        ]
        reference = _reference(anchor, trials, initial)
        completed = [anchor, *trials]
        proposals = sampler.suggest(
            space, (LOSS, ROUGE_L), completed, [], 1, user.seed, reference=reference
        )
        if proposals:
            found[user.digest] = proposals[0].config
    return found


def chosen(units: Units, entrant: Entrant) -> dict[str, Best | None]:
    """By digest, the trial that an entrant's user is trained with again; None for the base.

    All of the entrant's trials are done.
    """
    bare, trials = units.read(Unit("bare")), told(units, entrant.label)
    if not shares(units, entrant):
        return best_of(bare, trials)
    number = _best_for_all(bare, trials)
    alone = best_of(bare, trials[number : number + 1])
    return {
        digest: None if best is None else Best(number, best.configuration)
        for digest, best in alone.items()
    }


def shares(units: Units, entrant: Entrant) -> bool:
    """Whether an entrant has learned something that its users share."""
    done = (each["unit"] for each in units.every())
    return any((unit["kind"], unit["entrant"]) == ("shared", entrant.method) for unit in done)


def best_of(bare: Content, trials: Sequence[Content]) -> dict[str, Best | None]:
    """Each user's best trial; None where none is better than the base."""
    found: dict[str, Best | None] = {}
    for digest, base in bare["users"].items():
        least, best = base["loss_nats"], None
        for number, content in enumerate(trials):
            own = content["users"].get(digest)
            loss = None if own is None else own["loss_nats"]
            if loss is not None and loss < least:
                least, best = loss, Best(number, own["configuration"])
        found[digest] = best
    return found


def _best_for_all(bare: Content, trials: Sequence[Content]) -> int:
    """The trial with the lowest mean loss, where whoever is better off with the base has that."""

    def mean_loss(content: Content) -> float:
        users = content["users"]
        return fmean(
            min(base["loss_nats"], math.inf if own is None else own)
            for digest, base in bare["users"].items()
            for own in [users.get(digest, {}).get("loss_nats")]
        )

    return min(range(len(trials)), key=lambda number: mean_loss(trials[number]))


def refusal(trials: Sequence[Content]) -> str | None:
    """Why an entrant can't take part: none of its trials gave any user a loss; else None."""
    if any(own["loss_nats"] is not None for each in trials for own in each["users"].values()):
        return None
    reasons = [each["refused"] for each in trials if each.get("refused")]
    return str(reasons[0]) if reasons else "no training of any user ended well"


def _observation(configuration: MemoryConfig, own: Content) -> Observation:
    values = (own["loss_nats"], own["rouge_l"])
    return Observation(configuration, None if None in values else values)


def _reference(
    anchor: Observation, trials: Sequence[Observation], initial: int
) -> tuple[float, ...] | None:
    """The user's reference point, of the initial design and the base; it never moves after."""
    for count in range(initial, len(trials) + 1):
        known = [trial for trial in trials[:count] if trial.is_usable]
        rows = [trial.values for trial in known if trial.values is not None]
        if len(rows) >= FEWEST_OBSERVATIONS:
            return reference_point((LOSS, ROUGE_L), rows, anchor.values)
    return None
