"""A memory's configuration: the layers that hold a LoRA, their rank, their learning rate.

It knows neither a base nor which values are searched (that is `space`). A configuration is kept in
*canonical form*, so that two that mean the same are equal, and its key names one trial.

Reference: MiLP (arXiv 2404.03565), equation 6.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Self

_LONGEST_LAYER_LIST = 40  # characters of a key; a longer list is told by its digest


@dataclass(frozen=True, order=True)
class MemoryConfig:
    """One memory's configuration in canonical form: two that mean the same are equal.

    Raises:
        ValueError: a negative layer, or layers without a rank and a learning rate above zero.
    """

    layers: tuple[int, ...]  # sorted; () is the base itself
    rank: int
    learning_rate: float

    def __post_init__(self) -> None:
        layers = tuple(sorted({int(layer) for layer in self.layers}))
        if layers and layers[0] < 0:
            raise ValueError(f"expected layers from 0 upwards, got {layers[0]}")
        if layers and self.rank < 1:
            raise ValueError(f"expected a rank of at least 1, got {self.rank}")
        if layers and not 0 < self.learning_rate < math.inf:
            raise ValueError(f"expected a learning rate above 0, got {self.learning_rate}")
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "rank", int(self.rank) if layers else 0)
        object.__setattr__(self, "learning_rate", float(self.learning_rate) if layers else 0.0)

    @property
    def key(self) -> str:
        """A short stable name, safe in file and Ray names: "L0.3.7-r16-lr0.0005", or "base"."""
        if not self.layers:
            return "base"
        listed = ".".join(map(str, self.layers))
        if len(listed) > _LONGEST_LAYER_LIST:
            listed = f"{len(self.layers)}h{hashlib.sha256(listed.encode()).hexdigest()[:12]}"
        return f"L{listed}-r{self.rank}-lr{self.learning_rate!r}"

    def parameter_count(self, per_rank: Sequence[int]) -> int:
        """Trainable parameters; `per_rank[i]` is the sum of layer i's (in + out) features."""
        return self.rank * sum(per_rank[layer] for layer in self.layers)

    def to_json(self) -> dict[str, object]:
        """Plain values for JSON; `from_json` is the inverse."""
        return {**asdict(self), "layers": list(self.layers)}

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> Self:
        """The configuration that `to_json` wrote.

        Raises:
            ValueError: a field is missing or of another type.
        """
        layers, rank = values.get("layers"), values.get("rank")
        rate = values.get("learning_rate")
        if (
            not isinstance(layers, list | tuple)
            or not all(isinstance(layer, int) for layer in layers)
            or not isinstance(rank, int)
            or not isinstance(rate, int | float)
        ):
            raise ValueError(
                f"expected layers (integers), rank and learning_rate, got {dict(values)!r:.200}"
            )
        return cls(tuple(layers), rank, float(rate))


BASE_CONFIG = MemoryConfig((), 0, 0.0)
