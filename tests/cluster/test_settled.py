"""What becomes of final trainings, on validation words: kept in part, or given up."""

from __future__ import annotations

from pathlib import Path

from cluster.station import done
from cluster.unit import Unit
from cluster.validation import settled
from models.catalog import personalizer
from models.personalizer import Configuration
from models.scoring import evaluation_items, losses
from models.strength import scaled
from search.space import MemoryConfig
from tests.cluster import tiny_contest


def test_a_lora_is_kept_at_a_strength_that_helps_and_left_out_where_none_does(
    tmp_path: Path,
) -> None:
    terms = tiny_contest.terms(tmp_path, ("none", "milp"), trials=1, seeds=1)
    arena = tiny_contest.begun(tmp_path, terms)
    done(arena, Unit("bare"))
    digest = arena.users[0].digest
    everywhere = MemoryConfig(tuple(range(arena.base.layer_count)), 8, 1e-2)
    wanted: dict[str, Configuration] = {digest: everywhere}
    state = arena.trainings.train(personalizer("milp"), wanted, 0).states[digest]
    states = {digest: state, arena.users[1].digest: scaled(state, -1.0)}  # the second unlearns
    kept = settled(arena, states)
    assert list(kept) == [digest]
    items = evaluation_items(arena.subjects.of(digest).validation)
    found = losses(arena.base, arena.attach, [None, kept[digest]], [items] * 2, arena.frame)
    assert found[1].nats < found[0].nats
    name = next(name for name in state.tensors if ".lora_B." in name)
    ratio = kept[digest].tensors[name].norm() / state.tensors[name].norm()
    assert float(ratio) in (0.25, 0.5, 0.75, 1.0)
