"""Sharpness-aware minimisation: descend along the gradient at the worst point near by."""

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from gengap.optim.arguments import check_not_negative
from gengap.optim.wrapping import Base, Closure, Params, Wrapper, borrowed, evaluate


class Sam(Wrapper):
    r"""Minimise the loss at the highest point of a small ball around the weights, to first order.

    .. math::
        e = \rho\, \frac{T^2 g}{\|T g\|}, \qquad g = \nabla f(x), \qquad
        x \leftarrow \mathrm{base}(x, \nabla f(x + e)),

    with T = 1, or T = \|x\| + eta in the adaptive form, whose ball grows with each weight and so does not change when
    layers are rescaled. The norm is over all weights. Where the gradient is zero there is no climb. Weight decay of the
    base acts at x, and takes no part in the climb.

    A step costs two calls of the closure, one copy of the weights and one of the gradient. Both calls must use the same
    batch. Batch norm moves its running statistics in both.

    Args:
        params: weights or groups; a group may set its own "sam_rho" and "sam_adaptive" (the adaptive paper leaves
            biases and norm layers at T = 1).
        base: makes the optimizer that takes the step, for example `partial(SGD, lr=0.1, momentum=0.9)`, or is it.
        rho: radius of the ball: 0.05 is usual, ten times as much in the adaptive form.
        adaptive: measure the ball in units of the weights.
        eta: added to \|x\| in the adaptive form, so that weights at zero can move.

    Raises:
        BadInput: rho or eta is negative, or `base` does not fit `params`.

    Source:
        Foret et al. 2021, arXiv:2010.01412, algorithm 1; adaptive: Kwon et al. 2021, arXiv:2102.11600,
        section 3. It is the one-step form of the robust problem of Keskar et al. 2017, arXiv:1609.04836, eq. 6.
    """

    def __init__(
        self,
        params: Params,
        base: Base | Optimizer,
        *,
        rho: float = 0.05,
        adaptive: bool = False,
        eta: float = 0.01,
    ) -> None:
        check_not_negative(rho=rho, eta=eta)
        options = {"sam_rho": rho, "sam_adaptive": adaptive, "sam_eta": eta}
        super().__init__(params, [base], method="Sam", options=options)

    @torch.no_grad()
    def step(self, closure: Closure) -> Tensor:  # type: ignore[override]
        """Take one step.

        Args:
            closure: zeroes the gradients, computes the loss of one batch, calls backward and returns the loss.

        Returns:
            The loss at the weights before the step, detached.
        """
        loss = evaluate(closure)
        with borrowed(self.params):
            self._climb()
            evaluate(closure)
        self.bases[0].step()
        return loss

    def _climb(self) -> None:
        """Go to the highest point of the ball."""
        moving = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        scales = [p.abs().add_(group["sam_eta"]) if group["sam_adaptive"] else None for p, group in moving]
        steps = [p.grad if t is None else t * p.grad for (p, _), t in zip(moving, scales, strict=True)]
        norm = get_total_norm(steps)
        inverse = torch.where(norm > 0, 1 / norm, 0)
        for (p, group), t, step in zip(moving, scales, steps, strict=True):
            climb = step * (group["sam_rho"] * inverse.to(p.device, p.dtype))
            p.add_(climb if t is None else climb.mul_(t))
