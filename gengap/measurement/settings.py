"""What is to be measured and how, as one frozen record."""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gengap.core.errors import BadInput

USUAL = ("loss", "distance", "sharpness", "hessian", "noise", "landscape")
ON_REQUEST = ("evidence", "reparametrisation")  # dear, or of interest to few
GROUPS = (*USUAL, *ON_REQUEST)
MODES = ("running", "batch")
SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Settings:
    """How a checkpoint is measured.

    Attributes:
        groups: of measures, among `GROUPS`.
        radii: of the boxes and balls of sharpness, ascending, > 0.
        samples: training samples that are used at most; 0: all.
        batch_norm: "running" for the statistics in the checkpoint, "batch" for those of evaluation batches.
        params: patterns of weight names; only the weights they match are moved and differentiated by. Empty: all.
        momentum: of the training, for the largest stable learning rate.
        l2: precisions of the prior, for the evidence.
        seed: of samples, probes and directions.
        memory_limit: that each measure may use, for example "4 GiB".
        budget: seconds for everything, or None.

    Raises:
        BadInput: one of them cannot be used.
    """

    groups: tuple[str, ...] = USUAL
    radii: tuple[float, ...] = (5e-4, 1e-3)
    samples: int = 10_000
    batch_norm: str = "running"
    params: tuple[str, ...] = ()
    momentum: float = 0.0
    l2: tuple[float, ...] = (0.1, 1.0, 10.0)
    seed: int = 0
    memory_limit: str | int = "4 GiB"
    budget: float | None = None

    def __post_init__(self) -> None:
        if unknown := [name for name in self.groups if name not in GROUPS]:
            raise BadInput(f"no group of measures is called {unknown[0]!r}; choose among {', '.join(GROUPS)}")
        if not self.groups:
            raise BadInput(f"no group of measures was chosen; choose among {', '.join(GROUPS)}")
        check_positive("radius", self.radii, "5e-4,1e-3")
        check_positive("l2", self.l2, "0.1,1,10")
        if not (math.isfinite(self.momentum) and 0 <= self.momentum < 1):
            raise BadInput(f"momentum is {self.momentum}; give a number from 0 up to, but not, 1")
        if self.samples < 0:
            raise BadInput(f"samples is {self.samples}; give a number of training samples, or 0 for all")
        if self.batch_norm not in MODES:
            raise BadInput(f"batch_norm is {self.batch_norm!r}; choose one of {', '.join(MODES)}")
        if self.budget is not None and not (math.isfinite(self.budget) and self.budget > 0):
            raise BadInput(f"budget is {self.budget} seconds; give a positive time, for example 60s")

    @property
    def only(self) -> tuple[str, ...] | None:
        """The patterns as measures take them."""
        return self.params or None

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def check_positive(name: str, values: Sequence[float], example: str) -> None:
    """Refuse numbers that are not positive.

    Args:
        name: what they are.
        values: the numbers.
        example: some that can be used.

    Raises:
        BadInput: there is none, or one is not positive and finite.
    """
    if not values or not all(math.isfinite(x) and x > 0 for x in values):
        raise BadInput(f"{name} is {', '.join(map(str, values))}; give positive numbers, for example {example}")


def parse_seconds(text: str) -> float:
    """Read a time such as "60s", "5m" or "1.5h".

    Args:
        text: a number and a unit; none means seconds.

    Returns:
        Seconds.

    Raises:
        BadInput: it is no time.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|)\s*", text)
    if found is None:
        raise BadInput(f"budget is {text!r}; write a number and a unit, for example 60s, 5m or 1h")
    return float(found[1]) * SECONDS[found[2]]


def in_order(groups: Sequence[str]) -> tuple[str, ...]:
    """Give groups once each and in the usual order, unknown ones last."""
    return tuple(sorted(dict.fromkeys(groups), key=lambda name: GROUPS.index(name) if name in GROUPS else len(GROUPS)))
