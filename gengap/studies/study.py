"""A study: a grid of recipes, what to measure, and what is claimed. Read from TOML, written back resolved."""

from pathlib import Path
from typing import Any, Literal, Self

import tomli_w
from pydantic import Field, model_validator

from gengap.core.errors import BadInput
from gengap.core.recipe import Recipe, Record
from gengap.studies.grid import check_values, combinations
from gengap.studies.toml_files import read_toml, without_none

RESIZING = {"train_size", "validation"}  # options that any problem can be cut by, one of a factory too


class ProblemSpec(Record):
    """What is learnt: names of the catalogue, a factory of the user's, or a mere name of something made in Python."""

    data: str | None = None
    network: str | None = None
    loss: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    factory: str | None = Field(default=None, description="package.module:function that returns a gengap.Problem")
    name: str | None = Field(default=None, description="of a problem that only exists in a Python program")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(given is not None for given in (self.data, self.factory, self.name)) != 1:
            raise ValueError(
                "a problem is either a data set of the catalogue (data) or a factory (package.module:function)"
            )
        if self.data is None and (self.network or self.loss or set(self.options) - RESIZING):
            raise ValueError("network, loss and options go with data of the catalogue; a factory brings its own")
        return self


class ScoreSpec(Record):
    """With which statistics of batch norm the final loss and accuracy are measured."""

    batch_norm: Literal["running", "batch", "recompute"] = "batch"
    batch_size: int = Field(default=5_000, ge=2, description="evaluation batch whose statistics batch norm uses")

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the values."""
        return self.model_dump(mode="json", exclude_defaults=True)


class SharpnessSpec(Record):
    """How sharpness is measured (Keskar et al. 2017, Metric 2.1)."""

    radius: float = Field(default=1e-3, ge=1e-6, le=1)
    search: Literal["robust", "paper"] = "robust"
    batch_norm: Literal["running", "batch"] = "batch"
    samples: int = Field(default=10_000, ge=0, description="at most this many training samples; 0: all")
    batch_size: int = Field(default=5_000, ge=2, description="evaluation batch whose statistics batch norm uses")

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the value; a field added later with a default leaves old records valid."""
        return self.model_dump(mode="json", exclude_defaults=True)


class InterpolationSpec(Record):
    """The line between the minima of two runs with the same seed."""

    low: float = -1.0
    high: float = 2.0
    points: int = Field(default=25, ge=2)
    batch_norm: Literal["running", "batch", "recompute"] = "batch"
    batch_size: int = Field(default=5_000, ge=2, description="evaluation batch whose statistics batch norm uses")
    pairs: int = Field(default=1, ge=1, description="how many seeds, the first ones")

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the values along one path; how many pairs are measured does not."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude={"pairs"})


class Measures(Record):
    """What is measured beside loss, accuracy and distance, which always are."""

    score: ScoreSpec | None = Field(default=None, description="absent: running averages, as while training")
    sharpness: SharpnessSpec | None = None
    interpolation: InterpolationSpec | None = None


class Published(Record):
    """A published number: mean, spread and how many runs."""

    mean: float
    spread: float | None = Field(default=None, ge=0)
    runs: int | None = Field(default=None, ge=1)


class Claim(Record):
    """Something that is said of the runs, and that the runs decide.

    Either one cell against a published number (`where` and `paper`), or two cells against each other (`compare`, `expect`).
    """

    measure: Literal["test_accuracy", "train_accuracy", "test_loss", "train_loss", "sharpness", "distance"]
    text: str = ""
    source: str = ""
    where: dict[str, Any] | None = None
    paper: Published | None = None
    compare: dict[str, tuple[Any, Any]] | None = None
    expect: Literal["first > second", "first < second"] | None = None
    tolerance: float = Field(
        default=0.0, ge=0, description="a difference below this does not matter, in the measure's unit"
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.compare is None) == (self.where is None):
            raise ValueError("a claim needs either where (with paper) or compare (with expect)")
        if self.where is not None and self.paper is None:
            raise ValueError("a claim about one cell needs paper = { mean = ... }")
        if self.compare is not None and (self.expect is None or len(self.compare) != 1):
            raise ValueError("a comparison needs expect, and one field with two values in compare")
        return self


class Variant(Record):
    """Cells of the grid once more with some fields changed, for example with a remedy."""

    name: str
    text: str = Field(default="", description="what it does, a phrase")
    where: dict[str, Any] = Field(
        default_factory=dict, description="grid field -> value of the cells that are repeated"
    )
    recipe: dict[str, Any] = Field(min_length=1, description="fields that are changed")


class Study(Record):
    """A grid of recipes on one problem, with measures and claims.

    Attributes:
        title: the question.
        source: where the claims come from.
        problem: what is learnt.
        recipe: fields that every cell shares.
        grid: field -> values; one run per combination.
        variant: cells that are run once more with some fields changed.
        measures: what is measured on every finished run.
        claim: what the runs decide.
        evaluations: how often loss and accuracy are measured while training.
    """

    format: Literal["gengap.study/1"] = "gengap.study/1"
    title: str
    source: str = ""
    evaluations: int = Field(default=20, ge=1)
    problem: ProblemSpec
    recipe: dict[str, Any]
    grid: dict[str, list[Any]]
    measures: Measures = Measures()
    variant: tuple[Variant, ...] = ()
    claim: tuple[Claim, ...] = ()

    @model_validator(mode="after")
    def _variants(self) -> Self:
        names = [variant.name for variant in self.variant]
        if len(set(names)) != len(names):
            raise ValueError(f"variants need different names; got {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _grid(self) -> Self:
        for field in self.grid:
            if field not in Recipe.model_fields:
                raise ValueError(f"grid has no recipe field {field!r}; fields are {', '.join(Recipe.model_fields)}")
        check_values(self.grid, self.recipe)
        return self

    def recipes(self) -> list[Recipe]:
        """Give the recipe of every cell, in the order of the grid with the last field fastest, without the variants.

        Returns:
            Recipes, not yet resolved for a training set.

        Raises:
            BadInput: a recipe has a field that cannot be used.
        """
        return [Recipe(**self.recipe, **cell) for cell in self.cells()]

    def cells(self) -> list[dict[str, Any]]:
        """Give the fields of every cell of the grid."""
        return combinations(self.grid)

    def variants(self) -> list[tuple[str, Recipe]]:
        """Give the recipes of the variants, each with the variant's name.

        Returns:
            Names and recipes, not yet resolved for a training set.

        Raises:
            BadInput: a recipe has a field that cannot be used.
        """
        return [
            (variant.name, varied(self.recipe | cell | variant.recipe, variant.name))
            for variant in self.variant
            for cell in self.cells()
            if all(cell.get(field) == value for field, value in variant.where.items())
        ]

    def to_toml(self) -> str:
        """Write the study; fields that are absent keep their defaults."""
        content = without_none(self.model_dump(mode="json"))
        if not self.problem.options:
            del content["problem"]["options"]
        return tomli_w.dumps(content)


def varied(fields: dict[str, Any], name: str) -> Recipe:
    """Make the recipe of a variant, and name it where it cannot be made."""
    try:
        return Recipe(**fields)
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from error


def read_study(path: Path) -> Study:
    """Read a study file.

    Args:
        path: a TOML file.

    Returns:
        The study.

    Raises:
        BadInput: the file is not there, is no TOML, or has a field that cannot be used; one sentence with the path.
    """
    fields = read_toml(path, "study")
    try:
        study = Study(**fields)
        study.recipes()
        study.variants()
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
    return study
