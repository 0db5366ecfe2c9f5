"""Conservative (proximal) training: several small steps on one batch, held near the point where they began."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gengap.core.errors import BadInput
from gengap.optim.arguments import check_not_negative
from gengap.optim.wrapping import Base, Closure, Params, Wrapper, evaluate, wants_closure


class Conservative(Wrapper):
    r"""Solve a small problem for every batch, approximately.

    .. math::
        x_{k+1} \approx \arg\min_x\; f_B(x) + \frac{\lambda}{2} \|x - x_k\|^2

    by `inner_steps` steps of the base optimizer, which all see the same batch. Any optimizer solves it: Adam as in the
    paper, SGD for gradient descent, L-BFGS. The first step sees f_B alone, as the pull is zero there; with one inner
    step the method is the base optimizer.

    The paper does not say whether Adam's averages live on from batch to batch. They do here: one optimizer for the
    whole training, which starts every sub-problem with what it learnt in the last. `fresh=True` begins every
    sub-problem anew, as L-BFGS must, whose curvature pairs belong to the last batch.

    A step costs `inner_steps` calls of the closure and a copy of the weights. Weight decay of the base is part of f_B.

    Args:
        params: weights or groups; a group may set its own "conservative_lam".
        base: makes the inner solver, for example `partial(Adam, lr=1e-3)`, or is it. L-BFGS counts its iterations itself:
            `partial(LBFGS, max_iter=4, line_search_fn="strong_wolfe")` with one inner step, fresh.
        lam: lambda, the strength of the pull, per squared distance.
        inner_steps: of the base on each batch; 3 in the paper, 3 to 5 in its source.
        fresh: bring the base back to the state it was given in after each sub-problem.

    Raises:
        BadInput: lam is negative, there is no inner step, a solver such as L-BFGS is not fresh, or `base` does not fit `params`.

    Source:
        Keskar et al. 2017, arXiv:1609.04836, eq. 5: 3 iterations of Adam, lambda 1e-3; Li et al. 2014, "Efficient
        mini-batch training for stochastic optimization".
    """

    closure_for_base = True

    def __init__(
        self,
        params: Params,
        base: Base | Optimizer,
        *,
        lam: float = 1e-3,
        inner_steps: int = 3,
        fresh: bool = False,
    ) -> None:
        check_not_negative(lam=lam)
        if inner_steps < 1:
            raise BadInput(f"inner_steps is {inner_steps}; give 1 or more")
        super().__init__(params, [base], method="Conservative", options={"conservative_lam": lam})
        if wants_closure(self.bases[0]) and not fresh:
            name = type(self.bases[0]).__name__
            raise BadInput(
                f"fresh is False, and {name} would use on one batch what it knows of the last; give fresh=True"
            )
        self.inner_steps, self.fresh = inner_steps, fresh
        # Not simply empty: some optimizers (Adagrad) fill their state when they are made.
        self._blank = copied(self.bases[0].state)

    @torch.no_grad()
    def step(self, closure: Closure) -> Tensor:  # type: ignore[override]
        """Solve the problem of one batch.

        Args:
            closure: zeroes the gradients, computes the loss of the batch, calls backward and returns the loss; the same
                batch in all calls of one step.

        Returns:
            The loss at the weights before the step, detached.
        """
        anchors = [p.detach().clone() for p in self.params]
        losses: list[Tensor] = []

        @torch.no_grad()
        def held_back() -> Tensor:
            losses.append(evaluate(closure))
            return losses[-1] + self._pull(anchors).to(losses[-1])

        for _ in range(self.inner_steps):
            # An optimizer wants a float by its type, and takes the tensor by its manual.
            self.bases[0].step(held_back)  # type: ignore[arg-type]
        if self.fresh:
            self.bases[0].state.clear()
            self.bases[0].state.update(copied(self._blank))
        return losses[0]

    def _pull(self, anchors: list[Tensor]) -> Tensor:
        """Add the gradient of the proximal term to the gradients, and return its value."""
        strengths = [group["conservative_lam"] for group in self.param_groups for _ in group["params"]]
        value = torch.zeros((), dtype=anchors[0].dtype, device=anchors[0].device)
        for p, anchor, lam in zip(self.params, anchors, strengths, strict=True):
            if p.grad is not None:
                away = p.detach() - anchor
                p.grad.add_(away, alpha=lam)
                value += lam / 2 * away.square().sum().to(value)
        return value


def copied(state: Mapping[Tensor, Any]) -> dict[Tensor, Any]:
    """Copy a state, and not the weights that are its keys."""
    return {p: copy.deepcopy(memory) for p, memory in state.items()}
