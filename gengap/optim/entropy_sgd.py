"""Entropy-SGD: descend on the local entropy, whose gradient comes from a short noisy walk around the weights."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from gengap.core.errors import BadInput
from gengap.core.seeds import stream
from gengap.optim.arguments import check_not_negative, check_positive
from gengap.optim.wrapping import Base, Closure, Params, Wrapper, borrowed, evaluate


@dataclass(frozen=True, slots=True)
class Walk:
    """The inner loop, with the constants of the paper.

    Attributes:
        steps: Langevin steps L, each one gradient.
        lr: their step size, eta'.
        noise: their thermal noise, epsilon: a step adds sqrt(lr) * noise * N(0, 1) to every weight.
        alpha: weight of the newest point in the running mean of the walk, in (0, 1].
    """

    steps: int = 20
    lr: float = 0.1
    noise: float = 1e-4
    alpha: float = 0.75

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise BadInput(f"steps is {self.steps}; walk at least one")
        check_positive(lr=self.lr)
        check_not_negative(noise=self.noise)
        if not 0 < self.alpha <= 1:
            raise BadInput(f"alpha is {self.alpha}; choose it in (0, 1]")


class EntropySgd(Wrapper):
    r"""Descend on the local entropy, which is low where a valley is wide.

    .. math::
        F(x) = \log \int \exp\big(-f(x') - \tfrac{\gamma}{2}\|x - x'\|^2\big)\, dx', \qquad
        -\nabla F(x) = \gamma\, (x - \langle x' \rangle).

    The mean is estimated by a walk that starts at x:

    .. math::
        x' \leftarrow x' - \eta' \big(\nabla f_B(x') - \gamma (x - x')\big) + \sqrt{\eta'}\, \epsilon\, N(0, 1), \qquad
        \mu \leftarrow (1 - \alpha) \mu + \alpha x'.

    Then the base moves x along gamma (x - mu), or along x - mu. With plain SGD of rate 1 the second goes to mu, and its
    rate does not depend on gamma; the authors' program does the same. gamma grows by the factor 1 + scoping with every
    step, so that the walk is held nearer and nearer.

    A step costs `walk.steps` calls of the closure and two copies of the weights. The closure may draw a new batch in
    each call, as in the paper, or keep one; count epochs by calls. Weight decay of the base acts in the outer step only:
    for L2 as part of f add it to the loss. The noise depends on `seed` and the number of the step alone.

    Not as in the authors' program: no momentum inside the walk, and alpha and the noise as in the paper (the program
    has alpha 0.25 and sqrt(2) times the noise).

    Args:
        params: weights or groups; a group may set its own "entropy_gamma".
        base: makes the optimizer of the outer step, for example `partial(SGD, lr=1.0, momentum=0.9, nesterov=True)`, or
            is it.
        gamma: the scope at the first step.
        scoping: its relative growth per step.
        walk: the inner loop.
        times_gamma: give gamma (x - mu) to the base, as algorithm 1 says, in place of x - mu.
        seed: of the noise.

    Raises:
        BadInput: gamma is not positive, scoping is negative, or `base` does not fit `params`.

    Source:
        Chaudhari et al. 2017, arXiv:1611.01838, algorithm 1.
    """

    def __init__(
        self,
        params: Params,
        base: Base | Optimizer,
        *,
        gamma: float = 1e-4,
        scoping: float = 1e-3,
        walk: Walk | None = None,
        times_gamma: bool = False,
        seed: int = 0,
    ) -> None:
        check_positive(gamma=gamma)
        check_not_negative(scoping=scoping)
        super().__init__(params, [base], method="EntropySgd", options={"entropy_gamma": gamma})
        self.scoping, self.walk, self.times_gamma, self.seed = scoping, walk or Walk(), times_gamma, seed

    @torch.no_grad()
    def step(self, closure: Closure) -> Tensor:  # type: ignore[override]
        """Walk, and take one step of the base.

        Args:
            closure: zeroes the gradients, computes the loss of a batch, calls backward and returns the loss.

        Returns:
            The loss at the weights before the step, detached.
        """
        params, done = self.params, self._count()
        growth = (1 + self.scoping) ** done
        gammas = [group["entropy_gamma"] * growth for group in self.param_groups for _ in group["params"]]
        rngs = {p.device: torch.Generator(p.device) for p in params}
        for rng in rngs.values():
            rng.manual_seed(stream(self.seed, "langevin", done))
        with borrowed(params) as centres:
            means = [x.clone() for x in centres]
            losses = []
            for _ in range(self.walk.steps):
                losses.append(evaluate(closure))
                for p, x, mean, gamma in zip(params, centres, means, gammas, strict=True):
                    if p.grad is not None:
                        self._move(p, p.grad + gamma * (p - x), rngs[p.device])
                        mean.lerp_(p, self.walk.alpha)
        for p, mean, gamma in zip(params, means, gammas, strict=True):
            if p.grad is not None:
                p.grad = (p - mean) * (gamma if self.times_gamma else 1)
        self.bases[0].step()
        return losses[0]

    def _move(self, p: Tensor, slope: Tensor, rng: torch.Generator) -> None:
        """Take one Langevin step."""
        p.sub_(slope, alpha=self.walk.lr)
        if self.walk.noise:
            draw = torch.randn(p.shape, generator=rng, dtype=p.dtype, device=p.device)
            p.add_(draw, alpha=math.sqrt(self.walk.lr) * self.walk.noise)
