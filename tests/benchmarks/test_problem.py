"""The made-up problem: its front is exact, users are related as set, nothing is given away."""

import numpy as np
import pytest

from benchmarks.problem import BASE, NOISE, OBJECTIVES, SIGNS, MadeUpProblem
from search.pareto import front, hypervolume, oriented
from search.space import BASE_CONFIG, MemoryConfig, SearchSpace

GENERATOR = np.random.default_rng(0)
DRAWN = [SearchSpace(16).sample(GENERATOR) for _ in range(300)]


def ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values, axis=0), axis=0)


@pytest.mark.parametrize("user", [0, 1])
def test_the_front_is_that_of_all_configurations(user: int) -> None:
    problem = MadeUpProblem(8, user, 0.5)
    every = problem.true(list(problem.space.enumerate())) * SIGNS
    for point in problem.front * SIGNS:
        assert not ((every >= point).all(1) & (every > point + 1e-12).any(1)).any()
        assert np.isclose(every, point, atol=1e-12).all(1).any()
    below = (every[:, None] <= problem.front * SIGNS + 1e-12).all(2)
    assert below.any(1).all()  # nothing lies beyond it


@pytest.mark.parametrize("layer_count", [16, 32, 40])
def test_no_configuration_beats_the_front(layer_count: int) -> None:
    """Not one found by climbing from where random ones are best, either."""
    problem = MadeUpProblem(layer_count, 0, 0.5)
    generator = np.random.default_rng(1)
    configs = [problem.space.sample(generator) for _ in range(200)]
    for _ in range(5):
        values = problem.true(configs)
        top = [configs[i] for i in front(OBJECTIVES, values.tolist())]
        configs = [*top, *(near for one in top for near in problem.space.neighbours(one))]
    whole = hypervolume(OBJECTIVES, problem.front.tolist(), problem.corner)
    reached = hypervolume(OBJECTIVES, problem.true(configs).tolist(), problem.corner)
    assert 0.6 * whole < reached <= whole * (1 + 1e-9)


def test_the_objectives_conflict() -> None:
    """The best loss costs ROUGE-L, and both ends beat the base."""
    for user in range(5):
        best = MadeUpProblem(16, user, 0.8).front
        by_loss = best[best[:, 0].argsort()]
        assert len(best) > 5
        assert (np.diff(by_loss[:, 1]) > 0).all()
        assert by_loss[0, 0] < BASE[0]
        assert by_loss[-1, 1] > BASE[1]


def test_layers_matter_unequally_and_neighbours_are_alike() -> None:
    """Alone, a layer gives what its neighbour gives rather than what one far off gives."""
    singles = [MemoryConfig((layer,), 32, 1e-3) for layer in range(16)]
    losses = [MadeUpProblem(16, u, 0.0).true(singles)[:, 0] for u in range(20)]
    gains = BASE[0] - np.array(losses)
    assert (gains.max(1) > 2 * np.median(gains, axis=1)).all()
    centred = gains - gains.mean(1, keepdims=True)

    def alike(step: int) -> float:
        pairs = [(i, i + step) for i in range(16 - step) if i // 8 == (i + step) // 8]
        return float(np.mean([(centred[:, i] * centred[:, j]).mean() for i, j in pairs]))

    assert alike(1) > alike(3)


def test_the_best_capacity_grows_with_the_history() -> None:
    """All else equal: the size of the memory with the lowest loss, over twenty users."""
    sizes, best = [], []
    generator = np.random.default_rng(0)
    configs = [SearchSpace(8).sample(generator) for _ in range(500)]
    for user in range(20):
        problem = MadeUpProblem(8, user, 1.0)
        found = configs[int(problem.true(configs)[:, 0].argmin())]
        sizes.append(problem.size)
        best.append(len(found.layers) * found.rank)
    assert np.corrcoef(np.log(sizes), np.log(best))[0, 1] > 0.7


def test_users_are_as_related_as_set() -> None:
    def likeness(related: float) -> float:
        values = [MadeUpProblem(16, u, related).true(DRAWN)[:, 1] for u in range(6)]
        return float(np.corrcoef(ranks(np.array(values).T).T)[np.triu_indices(6, 1)].mean())

    alike = [likeness(related) for related in (0.0, 0.5, 0.8, 1.0)]
    assert alike == sorted(alike)
    assert alike[3] > alike[0] + 0.2


def test_how_related_users_are_does_not_make_the_problem_easier() -> None:
    """Each hidden number has the same distribution at every degree."""
    shares = [
        np.mean([MadeUpProblem(8, u, related).front[:, 0].min() for u in range(40)])
        for related in (0.0, 0.9)
    ]
    assert abs(shares[0] - shares[1]) < 0.15


def test_no_column_of_a_surrogate_decides_an_objective() -> None:
    """Among memories of one size, count, rank and learning rate, all of it is still open."""
    problem, generator = MadeUpProblem(16, 0, 0.8), np.random.default_rng(0)
    drawn = [tuple(generator.choice(16, 6, replace=False)) for _ in range(100)]
    alike = [MemoryConfig(layers, 32, 1e-3) for layers in drawn]
    features = problem.space.features(alike, derived=True)[:, 16:]
    assert (features == features[0]).all()
    spread = problem.true(alike).std(0)
    whole = problem.true(DRAWN).std(0)
    assert (spread > 0.2 * whole).all()


def test_an_observation_is_the_truth_with_noise_and_the_same_every_time() -> None:
    config = DRAWN[0]
    problem = MadeUpProblem(16, 0, 0.8)
    seen = np.array([problem.observe(config, repeat) for repeat in range(400)])
    assert problem.observe(config) == tuple(seen[0])
    np.testing.assert_allclose(seen.std(0), NOISE, rtol=0.15)
    np.testing.assert_allclose(seen.mean(0), problem.true([config])[0], atol=0.003)
    assert problem.observe(BASE_CONFIG) == BASE == problem.base


def test_the_corner_leaves_most_random_memories_something_and_the_base_nothing() -> None:
    problem = MadeUpProblem(16, 3, 0.8)
    corner = oriented(OBJECTIVES, [problem.corner])[0]
    values = oriented(OBJECTIVES, problem.true(DRAWN).tolist())
    assert not (oriented(OBJECTIVES, [BASE])[0] > corner).all()
    assert (values > corner).all(1).mean() > 0.3


def test_what_makes_no_problem_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 8 layers, related from 0 to 1, got 12, 2"):
        MadeUpProblem(12, 0, 2)
