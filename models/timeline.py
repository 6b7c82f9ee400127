"""A user encoder: from the vectors of a history's events to states that foresee what follows.

A causal Transformer over a person's events in time order, each a frozen encoder's vector of one
interaction. It is trained without any answer: after each event, the vector of the next one has to
be told from those of all other events in the batch (InfoNCE).

Vectors are centred and scaled by what the people it learns from have in common, since those of a
language model point almost all one way. The newest events are read; places are counted back from
the newest, so that a long history and a short one end alike.

It knows no base and no method.

Notation: P people, n events of the longest history, E width of an event's vector, S width of a
state, N events that are foreseen.

References: Ning et al., User-LLM, arXiv 2402.13598, section 3; van den Oord et al., Representation
Learning with Contrastive Predictive Coding, arXiv 1807.03748, equation 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.training import WEIGHT_DECAY, schedule_factor

LONGEST = 200  # events of a history that are read
LAYERS = 2
HEADS = 4
TEMPERATURE = 0.07
PRETRAINING_STEPS = 200
PRETRAINING_PEOPLE = 16  # in a step
PRETRAINING_RATE = 1e-3


class Timeline(nn.Module):
    """The encoder's weights, and the mean and spread of the events that it was made for."""

    mean: Tensor
    spread: Tensor

    def __init__(self, events: int, width: int) -> None:
        """Fresh weights, from torch's own generator.

        Args:
            events: E.
            width: S.

        Raises:
            ValueError: the heads don't divide the width.
        """
        super().__init__()
        if width % HEADS:
            raise ValueError(f"expected a width that {HEADS} heads divide, got {width}")
        self.register_buffer("mean", torch.zeros(events))
        self.register_buffer("spread", torch.ones(()))
        self.enter = nn.Linear(events, width)
        self.place = nn.Parameter(torch.randn(LONGEST, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, HEADS, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(
            layer, LAYERS, nn.LayerNorm(width), enable_nested_tensor=False
        )

    def fit_scale(self, events_of: Sequence[Tensor]) -> None:
        """Take mean and spread from people's events, `[n, E]` each."""
        every = torch.cat(list(events_of))
        self.mean.copy_(every.mean(0))
        self.spread.copy_((every - self.mean).square().mean().sqrt().clamp(min=1e-6))

    def scaled(self, events_of: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """People's newest events on one scale, `[P, n, E]`, and which places are empty, `[P, n]`.

        Histories end together: the empty places of a shorter one come first.
        """
        newest = [events[-LONGEST:].to(self.mean.dtype) for events in events_of]
        longest = max(len(events) for events in newest)
        scaled = [(events - self.mean) / self.spread for events in newest]
        events_PnE = torch.stack(
            [nn.functional.pad(e, (0, 0, longest - len(e), 0)) for e in scaled]
        )
        lengths_P = torch.tensor([len(events) for events in newest], device=events_PnE.device)
        places_n = torch.arange(longest, device=events_PnE.device)
        return events_PnE, places_n < longest - lengths_P[:, None]

    def forward(self, events_PnE: Tensor, empty_Pn: Tensor) -> Tensor:
        """States `[P, n, S]` of scaled events; those of empty places mean nothing."""
        count = events_PnE.shape[1]
        entered_PnS = self.enter(events_PnE) + self.place[:count].flip(0)
        later_nn = torch.ones(count, count, dtype=torch.bool, device=events_PnE.device).triu(1)
        # An empty place may see itself: attention to nothing at all would not be a number.
        closed_Pnn = later_nn | empty_Pn[:, None, :]
        closed_Pnn = closed_Pnn & ~torch.eye(count, dtype=torch.bool, device=closed_Pnn.device)
        mask = closed_Pnn.repeat_interleave(HEADS, 0)
        return self.layers(entered_PnS, mask=mask)  # type: ignore[no-any-return]


def pretrain(timeline: Timeline, events_of: Sequence[Tensor], seed: int) -> list[float]:
    """Train an encoder to foresee each person's next event; returns each step's loss (nats).

    Args:
        timeline: its scale is taken from these events.
        events_of: `[n, E]` of each person, in time order, at least two of each.
        seed: draws who is in a step.
    """
    timeline.fit_scale(events_of)
    events, width = timeline.enter.in_features, timeline.enter.out_features
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        foresee = nn.Linear(width, events).to(timeline.mean)
    weights = [*timeline.parameters(), *foresee.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=PRETRAINING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: schedule_factor(step, PRETRAINING_STEPS)
    )
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(PRETRAINING_STEPS):
        drawn = torch.randperm(len(events_of), generator=generator)[:PRETRAINING_PEOPLE]
        loss = next_event_loss(timeline, foresee, [events_of[i] for i in drawn.tolist()])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def next_event_loss(timeline: Timeline, foresee: nn.Module, events_of: Sequence[Tensor]) -> Tensor:
    """InfoNCE (nats): every event but a person's first is told from all others of the batch.

    An event with the same vector as the right one is no wrong answer, and left out.
    """
    events_PnE, empty_Pn = timeline.scaled(events_of)
    states_PnS = timeline(events_PnE, empty_Pn)
    known_Pn = ~empty_Pn[:, :-1]
    foreseen_NE = nn.functional.normalize(foresee(states_PnS[:, :-1][known_Pn]), dim=1)
    true_NE = nn.functional.normalize(events_PnE[:, 1:][known_Pn], dim=1)
    other_NN = ~torch.eye(len(true_NE), dtype=torch.bool, device=true_NE.device)
    same_NN = (true_NE @ true_NE.T > 1 - 1e-5) & other_NN
    alike_NN = (foreseen_NE @ true_NE.T / TEMPERATURE).masked_fill(same_NN, -torch.inf)
    return nn.functional.cross_entropy(alike_NN, torch.arange(len(true_NE), device=true_NE.device))
