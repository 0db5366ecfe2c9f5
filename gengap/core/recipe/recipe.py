"""A recipe: how something is learnt, frozen, checked, hashed and written as JSON."""

import hashlib
import json
import math
import re
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from gengap.core.errors import BadInput
from gengap.core.recipe.budget import Budget, budgeted
from gengap.core.recipe.methods import Adversarial, Augmentation, GradientNoise, Method, Stability
from gengap.core.recipe.record import Record, named
from gengap.core.recipe.rules import check_rules
from gengap.core.recipe.schedules import BatchSchedule, Constant, LrRule, Schedule, Warmup, epochs_long

OptimizerName = Literal[
    "sgd",
    "adam",
    "adamw",
    "adagrad",
    "rmsprop",
    "lars",
    "lamb",
    "lbfgs",
    "full-batch-gd",
    "adaqn",
    "kfac",
    "rmsprop-warmup",
]


class Recipe(Record):
    """How a problem is learnt.

    Attributes:
        optimizer: by its name in the catalogue (`gengap list optimizers`): "sgd" (with momentum and nesterov), "adam", ...;
            "adaqn" takes lr, eps and weight_decay, and no method or isotropic noise, because it evaluates the loss itself.
        lr: base learning rate; losses are means over samples, so it is per mean gradient.
        momentum: heavy-ball coefficient; the velocity is not damped: the effective rate is lr / (1 - momentum).
        nesterov: Nesterov's form of momentum.
        betas: decay of the two averages of Adam, AdamW and LAMB.
        eps: added to the denominator; None: as the optimizer has it.
        weight_decay: L2 coefficient on the mean loss, added to the gradient of every weight (AdamW and LAMB decay the
            weights themselves).
        decay_norms: whether weight_decay also holds biases and the weights of norm layers.
        trust: trust coefficient of LARS.
        momentum_correction: rescale the velocity of LARS, which has lr inside, when lr changes (Goyal et al. 2017).
        lr_rule: {"name": "linear" or "sqrt", "reference_batch": 256}: lr is that of the reference batch, and what a batch of
            another size takes follows by the rule; old and new value are told.
        batch_size: samples per update: a number, or a share of the training set such as "10%" (rounded up).
        batch_schedule: how the batch changes: {"name": "step", "milestones": [...], "factor": 5}, "switch", "geometric",
            "dynamic", or None.
        regime_adaptation: a reference batch: epochs, milestones and warm-up are stretched so that there are as many
            updates as with it (Hoffer et al. 2017).
        drop_last: leave out an epoch's last batch when it is smaller; by default it is kept.
        schedule: "constant", "cosine", "polynomial", "smith2020", "slow-start", {"name": "step", "milestones": [...],
            "factor": 0.1} or {"name": "piecewise", "milestones": [...], "factors": [...]}.
        warmup: {"epochs": 5, "start": 0.0, "shape": "linear"}, 5 for short, or None.
        budget: {"epochs": 20}, {"steps": 1000}, or "converged" with its defaults
            {"converged": {"patience": 10, "tolerance": 1e-3, "max_epochs": 100}}.
        clip_norm: length to which a longer gradient is cut.
        gradient_noise: {"name": "multiplicative", "reference_batch": 128}, {"name": "isotropic", "temperature": 1e-6}.
        ghost_batch: samples that batch norm normalises together (Hoffer et al. 2017).
        batch_norm: over several processes: all together ("all", as one process does it), each its own statistics ("rank"), or
            groups of so many. A ghost batch never spans processes.
        method: "sam", "asam", "conservative", "entropy-sgd", "svrg", "elastic-averaging" or "post-local-sgd", or a table of
            its name and settings.
        augment: "crop-flip", "keskar", ... (`gengap list augmentations`).
        adversarial: {"epsilon": 0.01, "share": 0.5}.
        stability: {"sigma": 0.1, "weight": 1.0, "distance": "kl"}.
        label_smoothing: share of each label that is spread over all classes.
        dropout: drop probability of every dropout layer, in place of the network's own.
        micro_batch: accumulate a batch from pieces of this size, or "auto": as many as fit the memory; with batch norm
            each piece has its own statistics, so "auto" needs ghost_batch there.
        quirks: "bigbatch": what Hoffer et al.'s published code does besides (momentum forgotten at every epoch, ghost
            batches weighted alike, stretching by whole numbers).
        dtype: "float32", "float64", or "bf16": bfloat16 autocast with weights in float32.
        memory_format: "contiguous", or "channels_last" for convolutions.
        seed: of the initial weights, the order of samples, augmentation, noise and dropout, each a stream of its own.

    Raises:
        BadInput: a field is unknown or its value cannot be used; one sentence.
    """

    optimizer: OptimizerName = "sgd"
    lr: float = Field(gt=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    nesterov: bool = False
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    eps: float | None = Field(default=None, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    decay_norms: bool = True
    trust: float = Field(default=0.001, gt=0)
    momentum_correction: bool = False
    lr_rule: Annotated[LrRule | None, BeforeValidator(named)] = None
    batch_size: Annotated[int, Field(ge=1, strict=True)] | str
    batch_schedule: Annotated[BatchSchedule | None, BeforeValidator(named)] = None
    regime_adaptation: int | None = Field(strict=True, default=None, ge=1)
    drop_last: bool = False
    schedule: Annotated[Schedule, BeforeValidator(named)] = Constant(name="constant")
    warmup: Annotated[Warmup | None, BeforeValidator(epochs_long)] = None
    budget: Annotated[Budget, BeforeValidator(budgeted)]
    clip_norm: float | None = Field(default=None, gt=0)
    gradient_noise: Annotated[GradientNoise | None, BeforeValidator(named)] = None
    ghost_batch: int | None = Field(strict=True, default=None, ge=2)
    batch_norm: Literal["rank", "all"] | Annotated[int, Field(ge=1, strict=True)] = "all"
    method: Annotated[Method | None, BeforeValidator(named)] = None
    augment: Annotated[Augmentation | None, BeforeValidator(named)] = None
    adversarial: Adversarial | None = None
    stability: Stability | None = None
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    micro_batch: Annotated[int, Field(ge=1, strict=True)] | Literal["auto"] | None = None
    quirks: Literal["bigbatch"] | None = None
    dtype: Literal["float32", "float64", "bf16"] = "float32"
    memory_format: Literal["contiguous", "channels_last"] = "contiguous"
    seed: int = Field(strict=True, default=0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if isinstance(self.batch_size, str):
            share(self.batch_size)
        check_rules(self)
        return self

    @property
    def norm_span(self) -> str | int:
        """Over how many processes batch norm goes: "rank" for one, "all", or a number."""
        return "rank" if self.ghost_batch else self.batch_norm

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
