"""An engine that trains nothing: what a run reaches is a formula of its recipe, so that the best learning rate is known."""

import math

from gengap.core.events import Message, Progress, silent
from gengap.sweeps.drive import Way
from gengap.sweeps.work import Made, row_of


def parabola(optimum):
    """Accuracy falls off on both sides of the optimal learning rate, which may depend on the recipe."""

    def value(recipe):
        best = optimum(recipe) if callable(optimum) else optimum
        return 90 - math.log2(recipe.lr / best) ** 2 + 0.01 * recipe.seed

    return value


class Formula:
    """Makes rows; `value` of a recipe is its accuracy, None where it diverges, or an error that fails it."""

    name = "formula"

    def __init__(self, value, stop_after=None):
        self.value, self.made, self.calls, self.stop_after = value, [], [], stop_after

    def run(self, packs, keep, listen=silent):
        self.calls.append([len(pack.tasks) for pack in packs])
        for pack in packs:
            for task in pack.tasks:
                if len(self.made) == self.stop_after:
                    raise KeyboardInterrupt
                listen(Progress("run", 1, 2, "epochs"))
                listen(Message("the same for all"))
                self.made.append((task.recipe.batch_size, task.recipe.lr, task.recipe.momentum, task.recipe.seed))
                keep(Made(self.row(pack, task), {}))

    def row(self, pack, task):
        value = self.value(task.recipe)
        if isinstance(value, Exception):
            return row_of(task, pack.problem, outcome="failed", step=0, reason=str(value))
        point = {"step": 1, "samples": 1, "train_loss": 1.0, "test_loss": 1.0, "validation_loss": 1.0}
        if value is None:
            return row_of(task, pack.problem, outcome="diverged", step=1, reason="too far", history=(point,))
        point |= {f"{split}_accuracy": value for split in ("train", "test", "validation")}
        cost = {"seconds": 0.0, "evaluation_seconds": 0.0, "steps": 1, "samples": 1}
        return row_of(task, pack.problem, outcome="finished", step=1, reason="", cost=cost, history=(point,))


def always(engine, **fields):
    """Choose this engine for every problem."""
    return lambda problem, tasks: Way(engine, **fields)
