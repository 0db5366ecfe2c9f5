"""Rules by which workers that train apart come together: what each does with the mean of all of them."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from gengap.core.errors import BadInput


class MixingRule(Protocol):
    """When workers meet, and where they go. Steps are counted from 0."""

    def is_synchronous(self, step: int) -> bool:
        """Tell whether in this step all workers use the mean of their gradients."""

    def is_due(self, step: int) -> bool:
        """Tell whether the workers meet after this step."""

    def worker(self, own: Tensor, centre: Tensor, mean: Tensor) -> Tensor:
        """Return a worker's next weights, from its own, the centre, and the mean of all workers."""

    def centre(self, centre: Tensor, mean: Tensor) -> Tensor:
        """Return the next centre."""

    def result(self, centre: Tensor, mean: Tensor) -> Tensor:
        """Return the weights that the method stands for between meetings: those to evaluate."""


@dataclass(frozen=True, slots=True)
class PostLocal:
    """Post-local SGD: one large batch at first, later local steps and a mean of the weights every `period` of them.

    Attributes:
        period: local steps H between means.
        start: synchronous steps before the first local one; 0 is local SGD. The paper changes at the first decay of the
            learning rate.

    Source:
        Lin et al. 2020, arXiv:1808.07217.
    """

    period: int
    start: int = 0

    def __post_init__(self) -> None:
        check_period(self.period)
        if self.start < 0:
            raise BadInput(f"start is {self.start}; give the number of synchronous steps, 0 or more")

    def is_synchronous(self, step: int) -> bool:
        """Tell whether in this step all workers use the mean of their gradients."""
        return step < self.start

    def is_due(self, step: int) -> bool:
        """Tell whether the weights are averaged after this step."""
        return step >= self.start and (step - self.start + 1) % self.period == 0

    def worker(self, own: Tensor, centre: Tensor, mean: Tensor) -> Tensor:  # noqa: ARG002 - the words of the protocol
        """Every worker goes to the mean."""
        return mean

    def centre(self, centre: Tensor, mean: Tensor) -> Tensor:  # noqa: ARG002
        """The centre is the last mean."""
        return mean

    def result(self, centre: Tensor, mean: Tensor) -> Tensor:  # noqa: ARG002
        """The mean of the workers as they are."""
        return mean


@dataclass(frozen=True, slots=True)
class Elastic:
    r"""Elastic averaging: every `period` steps a spring pulls each worker to a centre, and the centre to the workers.

    .. math::
        x_i \leftarrow x_i - \alpha (x_i - c), \qquad c \leftarrow c + \beta\, (\bar x - c).

    The spring acts on the weights after the step; the paper adds it to the gradient of the same point, which differs by
    alpha times one step. With momentum in the base it is EAMSGD.

    Attributes:
        alpha: the worker's share of the way, in (0, 1).
        beta: the centre's, in (0, 1]; the paper has workers * alpha = beta = 0.9, so alpha = 0.9 / workers.
        period: local steps between pulls, tau.

    Source:
        Zhang, Choromanska & LeCun 2015, arXiv:1412.6651, algorithms 1 and 2.
    """

    alpha: float
    beta: float = 0.9
    period: int = 1

    def __post_init__(self) -> None:
        check_period(self.period)
        if not 0 < self.alpha < 1:
            raise BadInput(f"alpha is {self.alpha}; choose it in (0, 1), usually 0.9 / workers")
        if not 0 < self.beta <= 1:
            raise BadInput(f"beta is {self.beta}; choose it in (0, 1]")

    def is_synchronous(self, step: int) -> bool:  # noqa: ARG002
        """Never: workers keep their own gradients from the first step on."""
        return False

    def is_due(self, step: int) -> bool:
        """Tell whether the springs pull after this step."""
        return (step + 1) % self.period == 0

    def worker(self, own: Tensor, centre: Tensor, mean: Tensor) -> Tensor:  # noqa: ARG002
        """A worker goes towards the centre."""
        return own.lerp(centre, self.alpha)

    def centre(self, centre: Tensor, mean: Tensor) -> Tensor:
        """The centre goes towards the workers."""
        return centre.lerp(mean, self.beta)

    def result(self, centre: Tensor, mean: Tensor) -> Tensor:  # noqa: ARG002
        """The centre."""
        return centre


def check_period(period: int) -> None:
    """Refuse a period that is none.

    Args:
        period: steps between meetings.

    Raises:
        BadInput: it is below 1.
    """
    if period < 1:
        raise BadInput(f"period is {period}; let workers meet every 1 or more steps")
