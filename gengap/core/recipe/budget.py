"""When training ends."""

from typing import Any, Self

from pydantic import Field, model_validator

from gengap.core.recipe.record import Record


class Converged(Record):
    """Until the epoch's mean training loss has not fallen by the share `tolerance` for `patience` epochs."""

    patience: int = Field(strict=True, default=10, ge=1)
    tolerance: float = Field(default=1e-3, ge=0, lt=1)
    max_epochs: int = Field(strict=True, default=100, ge=1)


class Budget(Record):
    """When training ends: exactly one of the three."""

    epochs: int | None = Field(strict=True, default=None, ge=1)
    steps: int | None = Field(strict=True, default=None, ge=1)
    converged: Converged | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("epochs", "steps", "converged") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of epochs, steps and converged")
        return self

    def __str__(self) -> str:
        if self.converged:
            return f"until converged, at most {self.converged.max_epochs} epochs"
        return f"{self.epochs} epochs" if self.epochs else f"{self.steps:,} steps"


def budgeted(value: Any) -> Any:
    """Read "converged" as {"converged": {}}."""
    return {"converged": {}} if value == "converged" else value
