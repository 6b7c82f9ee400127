"""A planted problem with two objectives that pull apart, and what tests build studies from.

Three of eight layers carry what there is to learn. More of them lower the loss; size costs ROUGE-L;
the right learning rate lies between 1e-3 and 3e-3. Nothing is noisy, so that the best front can be
found by trying everything.
"""

import math
from collections.abc import Sequence

from search.pareto import LOSS, ROUGE_L
from search.samplers import Observation
from search.space import MemoryConfig, SearchSpace

OBJECTIVES = (LOSS, ROUGE_L)
SPACE = SearchSpace(8, ranks=(8, 16, 64), learning_rates=(1e-4, 3.16e-4, 1e-3, 3.16e-3, 1e-2))
BASE = (4.0, 0.10)
CARRIERS = {1: 0.30, 4: 0.25, 6: 0.20}


def planted(config: MemoryConfig) -> tuple[float, float]:
    """Loss in nats and ROUGE-L of a configuration."""
    learned = sum(CARRIERS.get(layer, 0.01) for layer in config.layers)
    missed = abs(math.log10(config.learning_rate) + 2.75) * 0.5
    size = len(config.layers) * config.rank / (8 * 64)
    loss = BASE[0] - learned * (1 - missed) * (0.8 + 0.2 * min(1, config.rank / 32))
    return loss, BASE[1] + 0.2 * learned * (1 - missed) - 0.3 * size


def observed(configs: Sequence[MemoryConfig]) -> list[Observation]:
    """The configurations, come back."""
    return [Observation(config, planted(config)) for config in configs]
