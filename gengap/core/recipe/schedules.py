"""How learning rate and batch size change while a network learns: all as functions of samples seen."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from gengap.core.recipe.record import Record

Milestones = tuple[Annotated[float, Field(gt=0)], ...]
Share = Annotated[float, Field(ge=0, le=1)]


def ascend(milestones: tuple[float, ...]) -> None:
    """Refuse milestones that do not ascend."""
    if list(milestones) != sorted(set(milestones)):
        raise ValueError("milestones must ascend")


class Constant(Record):
    """The learning rate stays."""

    name: Literal["constant"]


class Step(Record):
    """The learning rate is multiplied by `factor` at every milestone."""

    name: Literal["step"]
    milestones: Milestones = Field(min_length=1, description="in epochs, ascending")
    factor: float = Field(default=0.1, gt=0, description="what each milestone multiplies by")

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        ascend(self.milestones)
        return self


class Piecewise(Record):
    """The learning rate is `factors[i]` times its first value from milestone i on, and its first value before."""

    name: Literal["piecewise"]
    milestones: Milestones = Field(min_length=1, description="in epochs, ascending")
    factors: tuple[Annotated[float, Field(gt=0)], ...] = Field(description="one for each milestone")

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        ascend(self.milestones)
        if len(self.factors) != len(self.milestones):
            raise ValueError(
                f"there are {len(self.milestones)} milestones and {len(self.factors)} factors; give one each"
            )
        return self


class Cosine(Record):
    """The learning rate falls along half a cosine to `final` times its first value at the end of the budget."""

    name: Literal["cosine"]
    final: Share = 0.0


class Polynomial(Record):
    """The learning rate falls to `final` times its first value as (1 - share of the budget)^power."""

    name: Literal["polynomial"]
    power: float = Field(default=2.0, gt=0)
    final: Share = 0.0


class Smith2020(Record):
    """Constant for the first half of the budget, then halved there and after every further 1/20 of it: ten halvings."""

    name: Literal["smith2020"]


class SlowStart(Record):
    """0.5 times the learning rate for 40 of 90 parts of the budget, 0.075 for 30, 0.01 for 15, 0.001 for 5."""

    name: Literal["slow-start"]


Schedule = Annotated[
    Constant | Step | Piecewise | Cosine | Polynomial | Smith2020 | SlowStart, Field(discriminator="name")
]
ENDING = {"cosine", "polynomial", "smith2020", "slow-start"}  # schedules that end with the budget


class Warmup(Record):
    """The learning rate begins at `start` times its value and reaches it after `epochs` (or jumps there: constant).

    `start` may be "reference": the rate that an `lr_rule` scales from, as Goyal et al. begin.
    """

    epochs: float = Field(gt=0)
    start: Share | Literal["reference"] = 0.0
    shape: Literal["linear", "constant"] = "linear"


def epochs_long(value: Any) -> Any:
    """Read 5 as {"epochs": 5}."""
    return {"epochs": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


class LrRule(Record):
    """How the learning rate of a batch follows from `lr`, which is that of the reference batch.

    "linear": times B / reference_batch (Goyal et al. 2017). "sqrt": times its square root (Hoffer et al. 2017). With
    `reference_momentum` also times (1 - momentum) / (1 - reference_momentum), which keeps lr / (1 - momentum).
    """

    name: Literal["linear", "sqrt"]
    reference_batch: int = Field(strict=True, ge=1)
    reference_momentum: float | None = Field(default=None, ge=0, lt=1)


class BatchStep(Record):
    """The batch is multiplied by `factor` at every milestone: growing it in place of decaying lr (Smith et al. 2018)."""

    name: Literal["step"]
    milestones: Milestones = Field(min_length=1, description="in epochs, ascending")
    factor: float = Field(default=5.0, gt=0)
    limit: int | None = Field(
        strict=True, default=None, ge=1, description="a batch that is not exceeded; default: the training set"
    )

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        ascend(self.milestones)
        return self


class BatchSwitch(Record):
    """The batch is `sizes[i]` from milestone i on: from small to large, and back."""

    name: Literal["switch"]
    milestones: Milestones = Field(min_length=1, description="in epochs, ascending")
    sizes: tuple[Annotated[int, Field(ge=1, strict=True)], ...] = Field(description="one for each milestone")

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        ascend(self.milestones)
        if len(self.sizes) != len(self.milestones):
            raise ValueError(f"there are {len(self.milestones)} milestones and {len(self.sizes)} sizes; give one each")
        return self


class BatchGrowth(Record):
    """The batch grows by the factor `growth` every epoch, smoothly (Friedlander & Schmidt 2012)."""

    name: Literal["geometric"]
    growth: float = Field(gt=1)
    limit: int | None = Field(
        strict=True, default=None, ge=1, description="a batch that is not exceeded; default: the training set"
    )


class BatchDynamic(Record):
    """The batch grows where the gradient's variance asks for it (Byrd, Chin, Nocedal & Wu 2012, eq. 3.3).

    At the end of an epoch the batch becomes tr(Sigma) / (theta^2 |G|^2) where that is larger, at most `growth` times the
    one before. Both are estimated from the two halves of every batch of the epoch.
    """

    name: Literal["dynamic"]
    theta: float = Field(default=0.5, gt=0)
    growth: float = Field(default=4.0, gt=1, description="in one epoch, at most")
    limit: int | None = Field(
        strict=True, default=None, ge=1, description="a batch that is not exceeded; default: the training set"
    )


BatchSchedule = Annotated[BatchStep | BatchSwitch | BatchGrowth | BatchDynamic, Field(discriminator="name")]
