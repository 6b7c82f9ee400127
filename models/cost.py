"""What a pack costs in bytes, and how many padded tokens of it run at once.

Three things lie on the device: the base; each memory with its gradients and AdamW's two moments;
and what a batch keeps until its backward pass is over. The last is the largest, and a formula of it
would have to follow each family's code, the dtype, the quantisation and every switch of the
trainer. So it is measured, on the device, with the code that trains: a few short batches tell how
the peak grows with each of

    padded tokens, layers above the pack's lowest, layers that hold a memory, their rank,
    predicted tokens, weights of the memories.

The peak is the highest of several moments of a step, each linear in these. So it is convex, and the
straight line between two measured ends lies on the safe side. The head, which takes tokens a chunk
at a time, is measured by itself, below a chunk's size and above it, and added.

It knows no trainer: who asks decides what to do with the room.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]
import torch

from models.bank import Bank, Memory
from models.base import Base
from models.head import token_nll
from models.loss import row_nll
from models.peak import peak
from models.prompt import Row
from search.space import RANKS, MemoryConfig

STATE_BYTES = 16  # of a weight in float32: itself, gradient, two moments
_ROWS = 8  # of a measured batch
_TOKENS = 64  # in each of its rows
_FEW, _MANY = 64, 16384  # tokens within a chunk of the head, and beyond one
_USABLE = 0.9  # of what is free: an allocator can't fill every gap


@dataclass(frozen=True)
class Costs:
    """Bytes by what they grow with. `per_rank[i]` is the sum of layer i's (in + out) features."""

    base: int
    token: float
    layer: float  # a token and a layer from the pack's lowest upwards
    adapted: float  # a token and a layer that holds its memory
    rank: float  # a token, such a layer and one of its ranks
    logits: float  # a token in the first chunk of those that the loss is taken on
    predicted: float  # any such token
    head: float  # the first chunk's logits
    weight: float  # a weight of a memory in training, in all
    per_rank: tuple[int, ...]

    @classmethod
    def measure(cls, base: Base) -> Costs:
        """The costs of training on a base, on its device; takes a few short steps."""
        count = base.layer_count
        every, others = tuple(range(count)), max(1, count - 1)
        high = max(2, min(RANKS[-1], base.smallest_dimension // 2))
        low = max(1, high // 8)
        whole = MemoryConfig(every, high, 1.0)
        _peak(base, [whole], _ROWS)  # a device's first use takes more
        top = _slope(base, MemoryConfig((count - 1,), low, 1.0))
        bottom = _slope(base, MemoryConfig((0,), low, 1.0))
        narrow = _slope(base, MemoryConfig(every, low, 1.0))
        wide = _slope(base, whole)
        logits, predicted, head = _head_costs(base)
        layer = (bottom - top) / others
        of_low = (narrow - bottom) / others
        rank = (wide - narrow) / count / (high - low)
        return cls(
            base=sum(t.nbytes for t in (*base.model.parameters(), *base.model.buffers())),
            token=top - layer - of_low,
            layer=layer,
            adapted=of_low - rank * low,
            rank=rank,
            logits=logits,
            predicted=predicted,
            head=head,
            weight=STATE_BYTES + _weight_slope(base, whole),
            per_rank=base.per_rank,
        )

    def padded_tokens(self, room_bytes: float, configurations: Sequence[MemoryConfig]) -> int:
        """How many padded tokens of a pack fit, if all are of the dearest memory and predicted."""
        lowest = _lowest(configurations)
        dearest = max(self.token_bytes(c, lowest) for c in configurations)
        within_chunk = room_bytes / (dearest + self.logits)
        beyond = (room_bytes - self.head) / (dearest + self.predicted)
        return max(1, int(within_chunk), int(beyond))

    def head_bytes(self, predicted: int) -> float:
        """What the loss of so many tokens keeps beside the layers."""
        return min(predicted * self.logits, self.head + predicted * self.predicted)

    def token_bytes(self, configuration: MemoryConfig, lowest: int) -> float:
        """What one padded token keeps under a memory, in a pack whose lowest layer that is."""
        adapted = self.adapted + self.rank * configuration.rank
        above = len(self.per_rank) - lowest
        return self.token + self.layer * above + adapted * len(configuration.layers)


def room_bytes(device: torch.device) -> float:
    """What may be filled on a device, beside what lies there."""
    if device.type != "cuda":
        return float(psutil.virtual_memory().available) * _USABLE
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (torch.cuda.mem_get_info(device)[0] + cached) * _USABLE


def _lowest(configurations: Sequence[MemoryConfig]) -> int:
    return min(configuration.layers[0] for configuration in configurations)


def _slope(base: Base, configuration: MemoryConfig) -> float:
    """Bytes of one more padded token that nobody predicts."""
    more = _peak(base, [configuration], 2 * _ROWS)
    return (more - _peak(base, [configuration], _ROWS)) / (_ROWS * _width(base))


def _weight_slope(base: Base, configuration: MemoryConfig) -> float:
    """Bytes that a step takes for one more weight, beside its state.

    None where the copies of a memory's rows, fewer of each with more memories, weigh more.
    """
    weights = configuration.parameter_count(base.per_rank)
    more = _peak(base, [configuration] * 4, _ROWS)
    return max(0.0, (more - _peak(base, [configuration] * 2, _ROWS)) / (2 * weights))


def _peak(base: Base, configurations: Sequence[MemoryConfig], count: int) -> int:
    """Most bytes of one step over rows that are dealt to fresh memories in turn."""
    memories = [Memory.initialise(base, c, seed) for seed, c in enumerate(configurations)]
    rows = [Row((0,) * _width(base), _width(base) - 1)] * count
    for parameter in (p for memory in memories for p in memory.parameters()):
        parameter.grad = torch.zeros_like(parameter)  # as after the first batch of a step
    dealt = [memories[i % len(memories)] for i in range(count)]
    with peak(base.device) as found, Bank.of(base).rows(dealt):
        torch.autograd.backward(row_nll(base, rows).sum())
    return found.bytes


def _head_costs(base: Base) -> tuple[float, float, float]:
    """Bytes of a token within the first chunk, of one beyond it, and of that chunk's logits."""
    few, twice_few, many, twice_many = (
        _head_peak(base, count) for count in (_FEW, 2 * _FEW, _MANY, 2 * _MANY)
    )
    beyond = (twice_many - many) / _MANY
    return (twice_few - few) / _FEW, beyond, many - beyond * _MANY


def _head_peak(base: Base, count: int) -> int:
    """Most bytes of the loss of so many hidden states, these among them."""
    width = base.model.get_input_embeddings().weight.shape[1]
    target_N = torch.zeros(count, dtype=torch.long, device=base.device)
    with peak(base.device) as found:
        hidden_ND = torch.zeros(count, width, dtype=base.dtype, device=base.device)
        torch.autograd.backward(token_nll(base, hidden_ND.requires_grad_(), target_N).sum())
    return found.bytes


def _width(base: Base) -> int:
    return min(_TOKENS, base.context)
