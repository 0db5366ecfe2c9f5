"""How something is learnt: a frozen record that is checked, hashed and written as JSON."""

import difflib
import hashlib
import json
import math
import re
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from gengap.core.errors import BadInput

SYNONYMS = {"learning_rate": "lr", "batch": "batch_size", "wd": "weight_decay", "epochs": "budget", "steps": "budget"}


class Record(BaseModel):
    """A frozen part of a recipe; what it does not know, it refuses."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise BadInput(sentence(error, type(self))) from None


class Constant(Record):
    """The learning rate stays."""

    name: Literal["constant"]


class Step(Record):
    """The learning rate is multiplied by `factor` at every milestone."""

    name: Literal["step"]
    milestones: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1, description="in epochs, ascending")
    factor: float = Field(default=0.1, gt=0, description="what each milestone multiplies by")

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError("milestones must ascend")
        return self


class Cosine(Record):
    """The learning rate falls along half a cosine to `final` times its first value at the end of the budget."""

    name: Literal["cosine"]
    final: float = Field(default=0.0, ge=0, le=1)


class Smith2020(Record):
    """Constant for the first half of the budget, then halved there and after every further 1/20 of it: ten halvings."""

    name: Literal["smith2020"]


class Warmup(Record):
    """The learning rate begins at `start` times its value and reaches it after `epochs` (or jumps there: constant)."""

    epochs: float = Field(gt=0)
    start: float = Field(default=0.0, ge=0, le=1)
    shape: Literal["linear", "constant"] = "linear"


class Converged(Record):
    """Until the epoch's mean training loss has not fallen by the share `tolerance` for `patience` epochs."""

    patience: int = Field(default=10, ge=1)
    tolerance: float = Field(default=1e-3, ge=0, lt=1)
    max_epochs: int = Field(default=100, ge=1)


class Budget(Record):
    """When training ends: exactly one of the three."""

    epochs: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)
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


def named(value: Any) -> Any:
    """Read "cosine" as {"name": "cosine"}."""
    return {"name": value} if isinstance(value, str) else value


def budgeted(value: Any) -> Any:
    """Read "converged" as {"converged": {}}."""
    return {"converged": {}} if value == "converged" else value


Schedule = Annotated[Constant | Step | Cosine | Smith2020, Field(discriminator="name")]


class Recipe(Record):
    """How a problem is learnt.

    Attributes:
        optimizer: "sgd" (with momentum and nesterov), "adam" or "adagrad", as torch.optim defines them.
        lr: base learning rate; losses are means over samples, so it is per mean gradient.
        momentum: heavy-ball coefficient of sgd; the velocity is not damped: the effective rate is lr / (1 - momentum).
        nesterov: Nesterov's form of momentum.
        betas: decay of Adam's two averages.
        eps: added to the denominator of Adam (1e-8) and Adagrad (1e-10).
        weight_decay: L2 coefficient on the mean loss, added to the gradient of every weight.
        batch_size: samples per update: a number, or a share of the training set such as "10%" (rounded up).
        drop_last: leave out an epoch's last batch when it is smaller; by default it is kept.
        schedule: "constant", "cosine", "smith2020" or {"name": "step", "milestones": [...], "factor": 0.1}.
        warmup: {"epochs": 5, "start": 0.0, "shape": "linear"} or None.
        budget: {"epochs": 20}, {"steps": 1000}, or "converged" with its defaults
            {"converged": {"patience": 10, "tolerance": 1e-3, "max_epochs": 100}}.
        micro_batch: accumulate a batch from pieces of this size; with batch norm each piece has its own statistics.
        dtype: "float32", "float64", or "bf16": bfloat16 autocast with weights in float32.
        memory_format: "contiguous", or "channels_last" for convolutions.
        seed: of the initial weights, the order of samples and dropout, each a stream of its own.

    Raises:
        BadInput: a field is unknown or its value cannot be used; one sentence.
    """

    optimizer: Literal["sgd", "adam", "adagrad"] = "sgd"
    lr: float = Field(gt=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    nesterov: bool = False
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    eps: float | None = Field(default=None, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    batch_size: Annotated[int, Field(ge=1, strict=True)] | str
    drop_last: bool = False
    schedule: Annotated[Schedule, BeforeValidator(named)] = Constant(name="constant")
    warmup: Warmup | None = None
    budget: Annotated[Budget, BeforeValidator(budgeted)]
    micro_batch: int | None = Field(default=None, ge=1)
    dtype: Literal["float32", "float64", "bf16"] = "float32"
    memory_format: Literal["contiguous", "channels_last"] = "contiguous"
    seed: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.optimizer != "sgd" and (self.momentum or self.nesterov):
            raise ValueError(f"momentum and nesterov belong to sgd, not to {self.optimizer}; leave them out")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        if self.optimizer != "adam" and self.betas != (0.9, 0.999):
            raise ValueError(f"betas belong to adam, not to {self.optimizer}; leave them out")
        if self.budget.converged and self.schedule.name in {"cosine", "smith2020"}:
            raise ValueError(
                f"schedule {self.schedule.name!r} needs a budget of epochs or steps: it ends with the budget"
            )
        if isinstance(self.batch_size, str):
            share(self.batch_size)
        elif self.micro_batch and self.micro_batch > self.batch_size:
            raise ValueError(f"micro_batch {self.micro_batch} is larger than batch_size {self.batch_size}")
        return self

    def resolved(self, samples: int) -> "Recipe":
        """Give the recipe with its batch size as a number.

        Args:
            samples: size of the training set, N.

        Returns:
            The recipe with `batch_size` from 1 to N; a share is rounded up.

        Raises:
            BadInput: the batch is larger than the training set, or smaller than micro_batch.
        """
        size = self.batch_size
        number = batch_samples(size, samples)
        if number > samples:
            raise BadInput(
                f"batch_size is {number:,}, but there are only {samples:,} training samples; choose {samples:,} or less"
            )
        return self if number == size else self.changed(batch_size=number)

    def changed(self, **fields: Any) -> "Recipe":
        """Give a recipe with some fields changed, checked again."""
        return Recipe(**{**self.model_dump(), **fields})

    def to_json(self) -> str:
        """Write every field as one line of JSON with sorted keys."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """Read what `to_json` wrote.

        Args:
            text: a JSON object with the recipe's fields.

        Returns:
            The recipe.

        Raises:
            BadInput: the text is no JSON object, or a field cannot be used.
        """
        try:
            fields = json.loads(text)
        except json.JSONDecodeError as error:
            raise BadInput(f"a recipe is not valid JSON: {error}") from error
        if not isinstance(fields, dict):
            raise BadInput(f"a recipe is a JSON object, not {text[:40]!r}")
        return cls(**fields)

    @property
    def key(self) -> str:
        """Hash that names the recipe: 16 hexadecimal digits over the fields that differ from their defaults.

        A field added later with a default leaves the hashes of old recipes as they are.
        """
        return digest(self.model_dump(mode="json", exclude_defaults=True))


def digest(content: Any) -> str:
    """Hash a JSON value in its canonical form to 16 hexadecimal digits."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def batch_samples(size: int | str, samples: int) -> int:
    """Give a batch size as a number: a share of the training set is rounded up."""
    return math.ceil(samples * share(size) / 100) if isinstance(size, str) else size


def share(text: str) -> Fraction:
    """Read "10%" as 10, exactly: 69.9 % of 60,000 is 41,940 and not, rounded up, one more.

    Args:
        text: a number above 0 and up to 100, and a percent sign.

    Returns:
        Percent.

    Raises:
        ValueError: the text is no such share.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", text)
    if not match or not 0 < float(match[1]) <= 100:
        raise ValueError(f"batch_size is {text!r}; give a whole number, or a share of the training set such as '10%'")
    return Fraction(match[1])


def sentence(error: ValidationError, model: type[BaseModel]) -> str:
    """Say in one sentence what is wrong with the first field at fault, or with one that does not exist."""
    found = error.errors(include_url=False)
    first = next((each for each in found if each["type"] == "extra_forbidden"), found[0])
    # the names of union members that pydantic puts into the path say nothing to a user
    path = [str(part) for part in first["loc"] if part not in {"int", "str", "constrained-int"}]
    field, kind = ".".join(path), first["type"]
    noun = model.__name__.lower().removesuffix("spec")
    noun = f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
    if kind == "extra_forbidden":
        known = model.model_fields
        meant = SYNONYMS.get(path[-1])
        near = [meant] if meant in known else difflib.get_close_matches(path[-1], known)
        hint = f"did you mean {near[0]!r}?" if near else f"its fields are {', '.join(known)}"
        return f"{noun} has no field {field!r}; {hint}"
    if kind == "missing":
        return f"{noun} needs the field {field!r}"
    text = first["msg"].removeprefix("Value error, ")
    if not path:
        return text
    return f"{field} is {first['input']!r}: {text[0].lower()}{text[1:]}"
