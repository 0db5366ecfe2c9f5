"""Stochastic variance-reduced gradients: the noise of a batch is taken off with the help of a full gradient."""

import torch
from torch import Tensor
from torch.optim import Optimizer

from gengap.core.errors import BadInput
from gengap.optim.wrapping import Base, Closure, Params, Wrapper, assign, borrowed, evaluate


class Svrg(Wrapper):
    r"""Correct the gradient of every batch by what the same batch says at a snapshot of the weights.

    .. math::
        x \leftarrow \mathrm{base}\big(x,\; \nabla f_B(x) - \nabla f_B(\tilde x) + \nabla f(\tilde x)\big).

    The corrected gradient is unbiased, and its variance goes to zero where x and the snapshot go to a minimum, so the
    learning rate need not fall. `snapshot` keeps the weights and the full gradient; the paper takes one every 2 epochs
    for convex and 5 for other losses.

    A step costs two calls of the closure and a copy of the weights; the state has two more. The two calls must use the
    same batch, and the same dropout masks and augmentation, or their noise is added instead of taken off; batch norm
    in training mode makes the correction approximate (Defazio & Bottou 2019, arXiv:1812.04529, show how badly this does
    on deep networks).

    Args:
        params: weights or groups.
        base: makes the optimizer that takes the step, for example `partial(SGD, lr=0.1)`, or is it.

    Raises:
        BadInput: `base` does not fit `params`.

    Source:
        Johnson & Zhang 2013, "Accelerating stochastic gradient descent using predictive variance reduction", figure 1,
        option I.
    """

    def __init__(self, params: Params, base: Base | Optimizer) -> None:
        super().__init__(params, [base], method="Svrg", options={})

    @torch.no_grad()
    def snapshot(self, closure: Closure) -> Tensor:
        """Remember the weights and the gradient of the whole training set.

        Args:
            closure: zeroes the gradients, goes backward through the mean loss of the whole training set (in as many
                parts as it needs), and returns the loss.

        Returns:
            The loss, detached.
        """
        loss = evaluate(closure)
        for p in self.params:
            gradient = torch.zeros_like(p) if p.grad is None else p.grad.clone()
            self.state[p].update(snapshot=p.detach().clone(), full_gradient=gradient)
        return loss

    @torch.no_grad()
    def step(self, closure: Closure) -> Tensor:  # type: ignore[override]
        """Take one step.

        Args:
            closure: zeroes the gradients, computes the loss of one batch, calls backward and returns the loss.

        Returns:
            The loss of the batch at the weights before the step, detached.

        Raises:
            BadInput: there is no snapshot yet, or there are weights that came after it.
        """
        params = self.params
        if not all("snapshot" in self.state[p] for p in params):
            raise BadInput("there is no snapshot of all weights; call snapshot(closure of the whole set) first")
        loss = evaluate(closure)
        here = [p.grad for p in params]
        for p in params:
            p.grad = None  # or the next pass would write over it
        with borrowed(params):
            assign(params, [self.state[p]["snapshot"] for p in params])
            evaluate(closure)
        for p, gradient in zip(params, here, strict=True):
            p.grad = None if gradient is None else self._corrected(p, gradient)
        self.bases[0].step()
        return loss

    def _corrected(self, p: Tensor, gradient: Tensor) -> Tensor:
        """Return the unbiased gradient; `p.grad` is that of the batch at the snapshot."""
        noise = gradient if p.grad is None else gradient - p.grad
        full: Tensor = self.state[p]["full_gradient"]
        return noise + full
