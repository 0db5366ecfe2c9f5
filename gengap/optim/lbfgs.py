"""torch's L-BFGS for weights in several groups, with weight decay, and with a state of plain tensors."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer
from torch.optim.optimizer import ParamsT

from gengap.core.errors import BadInput
from gengap.optim.arguments import check_not_negative, check_positive
from gengap.optim.wrapping import Closure

HISTORY = ("old_dirs", "old_stps", "ro")  # lists of tensors in torch's state


class Lbfgs(Optimizer):
    r"""Limited-memory BFGS: `torch.optim.LBFGS` does the work.

    Added to it are: several groups, whose weight decay may differ (a line search has one rate, so lr may not);
    :math:`\frac{\beta}{2}\|w\|^2` in the loss that is searched; the strong Wolfe search by default; and a `state_dict` of numbers
    and tensors only, where torch's has lists of tensors, so that it fits files without pickle.

    The closure must be the same function in all its calls of a step: the whole training set, no dropout, no fresh
    augmentation. A step is up to `max_iter` iterations, each of one or a few evaluations of loss and gradient. Memory:
    2 * history_size + 4 copies of the weights.

    Args:
        params: weights, or groups of them.
        lr: first trial of the line search in an iteration; the step itself where line_search_fn is None.
        weight_decay: L2 coefficient.
        max_iter: iterations of one step.
        history_size: pairs of steps and gradient changes kept.
        line_search_fn: "strong_wolfe" or None, as in torch.

    Raises:
        BadInput: a number is out of its range, or the search is unknown.

    Source:
        Liu & Nocedal 1989, Math. Programming 45.
    """

    needs_closure = True

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        *,
        weight_decay: float = 0.0,
        max_iter: int = 20,
        history_size: int = 10,
        line_search_fn: str | None = "strong_wolfe",
    ) -> None:
        check_not_negative(weight_decay=weight_decay)
        check_positive(lr=lr, max_iter=max_iter, history_size=history_size)
        if line_search_fn not in {"strong_wolfe", None}:
            raise BadInput(f"line_search_fn is {line_search_fn!r}; choose strong_wolfe or None")
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        options = {"max_iter": max_iter, "history_size": history_size, "line_search_fn": line_search_fn}
        self._torch = LBFGS(self._weights(), lr=lr, **options)  # type: ignore[arg-type]
        self._torch.state = self.state

    @torch.no_grad()
    def step(self, closure: Closure) -> Tensor:  # type: ignore[override] # the loss is a tensor
        """Do up to `max_iter` iterations.

        Args:
            closure: zeroes the gradients, computes the loss, goes backward and returns the loss.

        Returns:
            The loss where the step began, without the decay term.

        Raises:
            BadInput: groups have different learning rates.
        """
        rates = {float(group["lr"]) for group in self.param_groups}
        if len(rates) > 1:
            raise BadInput(f"L-BFGS has one learning rate, and the groups have {sorted(rates)}; set the same in all")
        self._torch.param_groups[0]["lr"] = rates.pop()
        losses: list[Tensor] = []

        def with_decay() -> Tensor:
            loss = closure()
            losses.append(loss.detach())
            return losses[-1] + self._decay()

        self._torch.step(with_decay)
        return losses[0]

    def state_dict(self) -> dict[str, Any]:
        """Give torch's state with every list of tensors as one tensor."""
        state = super().state_dict()
        state["state"] = {index: packed(memory) for index, memory in state["state"].items()}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state back.

        Args:
            state_dict: what `state_dict` gave.
        """
        memories = {index: unpacked(memory) for index, memory in state_dict["state"].items()}
        super().load_state_dict({**state_dict, "state": memories})
        self._torch.state = self.state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group while the optimizer is made; later the history would be of other weights.

        Args:
            param_group: weights and options.

        Raises:
            BadInput: the optimizer exists already.
        """
        if hasattr(self, "_torch"):
            raise BadInput("L-BFGS cannot take new weights on the way; make another optimizer")
        super().add_param_group(param_group)

    def _weights(self) -> list[Tensor]:
        return [weight for group in self.param_groups for weight in group["params"]]

    @torch.no_grad()
    def _decay(self) -> Tensor:
        """Add the gradient of the decay term to the gradients, and give the term."""
        term = torch.zeros((), dtype=self._weights()[0].dtype, device=self._weights()[0].device)
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None and group["weight_decay"]:
                    weight.grad.add_(weight, alpha=group["weight_decay"])
                    term += 0.5 * group["weight_decay"] * weight.square().sum()
        return term


def packed(memory: dict[str, Any]) -> dict[str, Any]:
    """Stack the history; what a step leaves in `al` is scratch."""
    plain = {name: value for name, value in memory.items() if name not in {*HISTORY, "al"}}
    return plain | {name: torch.stack(memory[name]) for name in HISTORY if memory.get(name)}


def unpacked(memory: dict[str, Any]) -> dict[str, Any]:
    """Undo `packed`, in memory of its own: sums of numbers that begin at another alignment are rounded differently."""
    own = {name: value.clone() if isinstance(value, Tensor) else value for name, value in memory.items()}
    if own.get("n_iter", 0) == 0:
        return own
    # torch makes the lists in its first iteration only.
    return own | {name: [row.clone() for row in own[name].unbind()] if name in own else [] for name in HISTORY}
