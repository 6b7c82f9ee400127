"""Sets of layers: which of them a search may give a LoRA, and which lie beside one another.

It knows neither ranks nor learning rates: a layer is a number, a set a sorted tuple. Where layers
are not searched, the count alone decides: that many, evenly spaced over all.

Reference: MiLP (arXiv 2404.03565), Figure 2 and Table 4.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Layers = tuple[int, ...]


@dataclass(frozen=True)
class LayerSets:
    """Every set of layers that may hold a LoRA; the empty one is none of them."""

    layer_count: int
    max_count: int
    search_layers: bool
    search_number: bool

    def size(self) -> int:
        """How many there are, exactly."""
        if self.search_layers:
            return sum(math.comb(self.layer_count, n) for n in range(1, self.max_count + 1))
        return self.max_count if self.search_number else 1

    def enumerate(self) -> Iterator[Layers]:
        """Each once, the smaller first."""
        every, counts = range(self.layer_count), range(1, self.max_count + 1)
        if self.search_layers:
            for count in counts:
                yield from itertools.combinations(every, count)
        else:
            yield from (spread(every, n) for n in (counts if self.search_number else counts[-1:]))

    def __contains__(self, layers: Layers) -> bool:
        if not layers or len(layers) > self.max_count or layers[-1] >= self.layer_count:
            return False
        if self.search_layers:
            return True
        right_count = self.search_number or len(layers) == self.max_count
        return right_count and layers == spread(range(self.layer_count), len(layers))

    def neighbours(self, layers: Layers) -> list[Layers]:
        """The sets with one layer more or fewer."""
        every = range(self.layer_count)
        if self.search_layers:
            near = [tuple(sorted({*layers} ^ {layer})) for layer in every]
        else:
            near = [spread(every, len(layers) + step) for step in (-1, 1)]
        return [other for other in near if other != layers and other in self]

    def exchanges(self, layers: Layers) -> list[Layers]:
        """The sets with another layer in the place of one; none where layers are not searched."""
        if not self.search_layers:
            return []
        others = [layer for layer in range(self.layer_count) if layer not in layers]
        return [tuple(sorted({*layers} - {old} | {new})) for old in layers for new in others]


def spread(layers: Sequence[int], count: int) -> tuple[int, ...]:
    """All of the sorted layers, or `count` of them, evenly spaced from the first to the last.

    A single one is the middle one. (The paper's Figure 2 puts two LoRAs in the first and the last.)
    """
    if len(layers) <= count:
        return tuple(layers)
    if count <= 1:
        return tuple(layers[len(layers) // 2 : len(layers) // 2 + count])
    gaps, last = count - 1, len(layers) - 1
    return tuple(layers[(2 * i * last + gaps) // (2 * gaps)] for i in range(count))
