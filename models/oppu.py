"""One LoRA a user on queries and values, at fixed settings, over what users share (OPPU).

What users share is a LoRA learned from others and merged into the base. That is what a run's
population is (`models/population.py`): on a base with one, this method's first stage is done, and
on a base without one there is none. The second stage, here, is each user's own: rank 8, scale 1, on
the matrices of queries and values of every layer, two epochs over the user's pairs with the loss on
the response alone. A family that keeps queries, keys and values in one matrix gets it on all three.

The published setting, 1e-4 for two epochs, comes first in the space. Small bases learn next to
nothing at that rate. So the space has larger rates too, and six epochs, as many as the main
method's two stages have together.

The number of epochs is fixed, so this method trains on other amounts of text than the main one: of
a chat log's answers about 0.4 times as many tokens at two epochs, and 1.3 times at six. Of a user
with very few pairs it is less, since the main method goes through those more often.

Not as published: no dropout (0.05), no clipping of gradients (0.3), weight decay 1e-4 in place of
1e-2, batch 8 in place of 16, and of the epochs the best on validation is kept, not the last: these
are one trainer's, for all methods. The population's LoRA lies on feed-forward matrices. A user is
trained on that user's history alone; the published script trains on all users' before, too.

Reference: Tan et al., Democratizing Large Language Models via Personalized Parameter-Efficient
Fine-tuning, arXiv 2402.04401.
"""

from __future__ import annotations

from dataclasses import replace

from models.bank import Memory
from models.base import Base
from models.fitting import Course
from models.milp import Milp, MilpRecipe, pair_rows, stages_of
from models.options import Space, require
from models.personalizer import Task
from search.space import MemoryConfig

RANK = 8
SPACE: Space = {"learning_rate": (1e-4, 5e-4, 2e-3, 5e-3), "epochs": (2, 6)}


class Oppu(Milp):
    """Personalizer: a LoRA on queries and values."""

    name = "oppu"
    space = SPACE

    def recipe(self, base: Base) -> OppuRecipe:
        """How a task trains."""
        return OppuRecipe(base, self.name)


class OppuRecipe(MilpRecipe):
    """How a task trains: on the user's pairs, a LoRA on queries and values."""

    def course(self, task: Task) -> Course | None:
        """The one stage, as long as the options say; only its cut of words is the budget's.

        Raises:
            ValueError: no pairs to learn from, or the configuration is no options.
        """
        options = require(task.configuration)
        budget = replace(
            task.budget,
            injection_epochs=0,
            tuning_epochs=options.whole("epochs"),
            minimum_steps=1,
        )
        stages, counts = stages_of(self._base, replace(task, budget=budget))
        rate = options.number("learning_rate")
        lora = MemoryConfig(tuple(range(self._base.layer_count)), RANK, rate)
        memory = Memory.initialise(self._base, lora, task.seed, on_attention=True)
        return Course(memory, stages, pair_rows(self._base, task.validation), rate, counts)
