"""One LoRA of a fixed rank on every layer: the main method without its search (MiLP, appendix B).

It is trained as the main method's memories are, on the same matrices, in the same two stages. So
what a search for layers brings is the difference between the two.
"""

from __future__ import annotations

from dataclasses import replace

from models.base import Base
from models.fitting import Course
from models.milp import Milp, MilpRecipe
from models.options import Space, require
from models.personalizer import Task
from search.space import MemoryConfig

# MiLP's learning rate first. A rate that suits one data set overfits the next by ten times.
SPACE: Space = {"rank": (8, 16, 32), "learning_rate": (5e-4, 1e-3, 2e-3, 5e-3)}


class LoraAll(Milp):
    """Personalizer: a LoRA on all feed-forward matrices."""

    name = "lora-all"
    space = SPACE

    def recipe(self, base: Base) -> AllLayersRecipe:
        """How a task trains."""
        return AllLayersRecipe(base, self.name)


class AllLayersRecipe(MilpRecipe):
    """The main method's training of a LoRA on every layer."""

    def course(self, task: Task) -> Course | None:
        """Both stages.

        Raises:
            ValueError: nothing to learn or to validate on, or the configuration is no options.
        """
        options = require(task.configuration)
        layers = tuple(range(self._base.layer_count))
        lora = MemoryConfig(layers, options.whole("rank"), options.number("learning_rate"))
        return super().course(replace(task, configuration=lora))
