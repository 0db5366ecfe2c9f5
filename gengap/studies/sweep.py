"""A sweep: batch size against learning rate, momentum, training-set size and seed. Read from TOML, written back resolved."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import BeforeValidator, Field, model_validator

from gengap.core.errors import BadInput
from gengap.core.recipe import Budget, Recipe, Record
from gengap.core.recipe.schedules import LrRule
from gengap.studies.grid import BATCH, LR, SEED, SIZE, budgets, check_values, combinations, values_of
from gengap.studies.study import ProblemSpec
from gengap.studies.toml_files import read_toml, without_none

SEEDS = list(range(5))
Metric = Literal["accuracy", "loss"]


def counted(value: Any) -> Any:
    """Read `extend = 4` as {"limit": 4}."""
    return {"limit": value} if isinstance(value, int) and not isinstance(value, bool) else value


class Extension(Record):
    """How far a grid of learning rates may grow where the best stands at its edge."""

    limit: int = Field(default=4, ge=0, description="values more for one cell, at most; 0: the grid stays")
    all: bool = Field(default=False, description="what one cell tries more, all try, so that their effort stays equal")


class Sweep(Record):
    """A grid of recipes on one problem, from which the best of every batch size is chosen.

    A *cell* is one combination of everything but learning rate and seed; each cell has its own best learning rate.

    Attributes:
        title: the question; "" asks it in general.
        problem: what is learnt.
        recipe: fields that every run shares.
        budget: when training ends: {"epochs": 30}, "epochs=30", "steps=10000" or "converged"; None: it is in `grid`.
        grid: field -> values, as a list or as text ("8:4096:x2", "0,0.5,0.9"); one run per combination. Fields of a recipe,
            and train_size. Seeds are 0 to 4 where it names none.
        lr_follows: {"name": "linear" or "sqrt", "reference_batch": 8}: learning rates of the grid are those of the reference
            batch, by default the smallest, and those of another batch follow by the rule.
        validation: training samples held out to choose by, a share below 1 or how many; 0: the test set chooses too.
        metric: what chooses: "accuracy", or "loss"; None: accuracy where there is one.
        extend: how far a cell's learning rates may grow, and whether those of all cells grow with them.
        evaluations: how often loss and accuracy are measured while training.
        weights: whether trained weights are kept.
    """

    format: Literal["gengap.sweep/1"] = "gengap.sweep/1"
    title: str = ""
    problem: ProblemSpec
    recipe: dict[str, Any] = Field(default_factory=dict)
    budget: Budget | None = None
    grid: dict[str, list[Any]]
    lr_follows: LrRule | None = None
    validation: float = Field(default=0.1, ge=0)
    metric: Metric | None = None
    extend: Annotated[Extension, BeforeValidator(counted)] = Extension()
    evaluations: int = Field(default=20, ge=1)
    weights: bool = False

    @model_validator(mode="before")
    @classmethod
    def _written_short(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """Write out ranges, budgets and the reference of the learning rates."""
        grid, budget, rule = (fields.get(name) for name in ("grid", "budget", "lr_follows"))
        if not isinstance(grid, dict):
            raise ValueError("grid is no table; give fields and their values")  # noqa: TRY004 - pydantic's way to refuse
        grid = {SEED: SEEDS} | {field: values_of(field, values) for field, values in grid.items()}
        if isinstance(budget, str):
            budget, *more = budgets(budget)
            if more:
                raise ValueError("budget names several numbers; put them into the grid")
        rule = {"name": rule} if isinstance(rule, str) else rule
        sizes = [size for size in grid.get(BATCH, []) if isinstance(size, int)]
        if isinstance(rule, dict) and sizes:
            rule = {"reference_batch": min(sizes)} | rule
        if isinstance(rule, dict) and "reference_batch" not in rule:
            raise ValueError("lr_follows needs a batch size as a number to begin with; give one that is no share")
        return fields | {"grid": grid, "budget": budget, "lr_follows": rule}

    @model_validator(mode="after")
    def _grid(self) -> Self:
        for field in self.grid:
            if field not in Recipe.model_fields and field != SIZE:
                raise ValueError(
                    f"grid has no field {field!r}; it takes train_size and {', '.join(Recipe.model_fields)}"
                )
        check_values(self.grid, self.recipe)
        return self

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if "budget" in self.recipe:
            raise ValueError("budget stands beside recipe and not in it; move it there")
        if (self.budget is None) == ("budget" not in self.grid):
            raise ValueError("a sweep needs one budget, or several in grid; give for example budget = 'epochs=30'")
        for field in (BATCH, LR):
            if field not in self.grid and field not in self.recipe:
                raise ValueError(f"{field} is missing; give its values in grid, or one value in recipe")
        return self

    @property
    def rates(self) -> list[float]:
        """Learning rates of the grid, ascending; the recipe's where the grid has none."""
        return sorted(float(lr) for lr in self.grid.get(LR, [self.recipe.get(LR)]))

    @property
    def seeds(self) -> list[int]:
        """Seeds of every cell and learning rate."""
        return list(self.grid[SEED])

    def cells(self) -> list[dict[str, Any]]:
        """Give the fields of every cell, without learning rate and seed, in the order of the grid, the last fastest."""
        return combinations({field: values for field, values in self.grid.items() if field not in {LR, SEED}})

    def recipe_of(self, cell: Mapping[str, Any], *, lr: float, seed: int) -> Recipe:
        """Give the recipe of one run.

        Args:
            cell: of `cells`; its train_size is no field of a recipe and left out.
            lr: learning rate.
            seed: of the run.

        Returns:
            The recipe, not yet resolved for a training set.

        Raises:
            BadInput: fields of recipe and grid do not go together.
        """
        fields: dict[str, Any] = {} if self.budget is None else {"budget": self.budget.model_dump()}
        fields |= self.recipe | {field: value for field, value in cell.items() if field != SIZE}
        return Recipe(**fields | {LR: lr, SEED: seed})

    def check(self) -> None:
        """Make a recipe of every cell.

        Raises:
            BadInput: the fields of one cannot be used.
        """
        for cell in self.cells():
            for lr in self.rates:
                self.recipe_of(cell, lr=lr, seed=self.seeds[0])

    def to_toml(self) -> str:
        """Write the sweep; fields that are absent keep their defaults."""
        content = without_none(self.model_dump(mode="json"))
        for part, name in ((content["problem"], "options"), (content, "recipe")):
            if not part[name]:
                del part[name]
        return tomli_w.dumps(content)


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file.

    Args:
        path: a TOML file.

    Returns:
        The sweep.

    Raises:
        BadInput: the file is not there, is no TOML, or has a field that cannot be used; one sentence with the path.
    """
    fields = read_toml(path, "sweep")
    try:
        sweep = Sweep(**fields)
        sweep.check()
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
    return sweep
