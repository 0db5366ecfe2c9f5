"""Gradient descent on the whole training set, its step found by a line search."""

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from gengap.core.errors import BadInput
from gengap.optim.arguments import check_not_negative, check_positive
from gengap.optim.line_search import Found, Line, Trial, armijo, strong_wolfe
from gengap.optim.wrapping import Closure, evaluate


class FullBatchGradientDescent(Optimizer):
    r"""Steepest descent, :math:`w \leftarrow w - t \eta \nabla f(w)`, where the factor t is searched in every step.

    The closure must be the same function in all its calls of a step: the whole training set (or one batch kept for the
    step), no dropout, no fresh augmentation. The first factor tried is 1, later twice the one taken last.

    A step costs one evaluation of loss and gradient at the start and one for every factor tried, usually one to three; their
    total is `state[first weight]["evaluations"]`. Memory: two copies of the weights. Where the loss at the start is not
    finite, or no lower point is found (the end of what the dtype resolves), the weights stay where they are.

    Args:
        params: weights, or groups of them; lr and weight_decay may differ between groups.
        lr: :math:`\eta`, the length of the first trial; between groups it is the ratio of their rates.
        weight_decay: L2 coefficient; its term is part of the loss that is searched, not of the loss returned.
        line_search: "strong-wolfe" or "armijo" (sufficient decrease only).
        most: evaluations of one search.

    Raises:
        BadInput: a number is out of its range, or the search is unknown.

    Source:
        Nocedal & Wright 2006, chapter 3.
    """

    needs_closure = True

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        *,
        weight_decay: float = 0.0,
        line_search: Literal["strong-wolfe", "armijo"] = "strong-wolfe",
        most: int = 30,
    ) -> None:
        check_positive(lr=lr, most=most)
        check_not_negative(weight_decay=weight_decay)
        if line_search not in {"strong-wolfe", "armijo"}:
            raise BadInput(f"line_search is {line_search!r}; choose strong-wolfe or armijo")
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "line_search": line_search, "most": most})

    @torch.no_grad()
    def step(self, closure: Closure) -> Tensor:  # type: ignore[override] # the loss is a tensor
        """Go down once.

        Args:
            closure: zeroes the gradients, computes the loss, goes backward and returns the loss.

        Returns:
            The loss where the step began, without the decay term.
        """
        loss = evaluate(closure)
        path = Path(self.param_groups)
        start = Trial(0.0, float(loss) + path.penalty(), path.slope())
        memory = self.state[self.param_groups[0]["params"][0]]
        memory["evaluations"] = memory.get("evaluations", 0) + 1
        if math.isfinite(start.value) and math.isfinite(start.slope) and start.slope < 0:
            found = self._search(path.line(closure), start, memory.get("factor", 1.0))
            path.go_to(found.trial.step)
            memory["evaluations"] += found.evaluations
            memory["factor"] = 2 * found.trial.step or 1.0
        return loss

    def _search(self, line: Line, start: Trial, factor: float) -> Found:
        """Run the line search that the first group names."""
        group = self.param_groups[0]
        search = armijo if group["line_search"] == "armijo" else strong_wolfe
        return search(line, start, factor, most=group["most"])


class Path:
    """The ray from the weights along the negative gradient, which is read when it is made.

    Args:
        groups: of the optimizer.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self._moved = [(p, group) for group in groups for p in group["params"] if p.grad is not None]
        self._home = [p.clone() for p, _ in self._moved]
        self._direction = [p.grad.add(p, alpha=group["weight_decay"]).mul_(-group["lr"]) for p, group in self._moved]

    def penalty(self) -> float:
        """Compute the decay term where the weights are."""
        return added_up([0.5 * group["weight_decay"] * p.square().sum() for p, group in self._moved])

    def slope(self) -> float:
        """Compute the derivative of loss and decay term along the ray, from the gradients as they are now."""
        ahead = zip(self._moved, self._direction, strict=True)
        return added_up([(p.grad.add(p, alpha=group["weight_decay"]) * d).sum() for (p, group), d in ahead])

    def go_to(self, factor: float) -> None:
        """Put the weights on the ray."""
        for (p, _), home, direction in zip(self._moved, self._home, self._direction, strict=True):
            p.copy_(home).add_(direction, alpha=factor)

    def line(self, closure: Closure) -> Line:
        """Give value and slope as a function of the factor."""

        def at(factor: float) -> Trial:
            self.go_to(factor)
            return Trial(factor, float(evaluate(closure)) + self.penalty(), self.slope())

        return at


def added_up(parts: list[Tensor]) -> float:
    """Add up numbers, waiting for the device once."""
    return math.fsum(torch.stack(parts).tolist()) if parts else 0.0
