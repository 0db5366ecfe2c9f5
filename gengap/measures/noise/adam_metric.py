"""The coordinates in which Adam, momentum aside, is plain gradient descent."""

import torch
from torch import Tensor
from torch.optim import Optimizer

from gengap.core.errors import BadInput


class AdamMetric:
    r"""Divide the squared entries of a gradient by :math:`\sqrt{\hat v} + \epsilon`, the entries by its root.

    The second moment is that of the steps before, and so independent of the present batch.

    Args:
        optimizer: keeps `exp_avg_sq` (Adam, AdamW, NAdam, RAdam); with amsgrad its largest value is used.

    Raises:
        BadInput: the optimizer has no betas or no eps.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        if not {"betas", "eps"} <= optimizer.defaults.keys():
            raise BadInput(f"a {type(optimizer).__name__} keeps no second moment; give an Adam or leave optimizer out")
        self._optimizer = optimizer

    def check(self) -> None:
        """Refuse an optimizer that has stepped and kept nothing to divide by.

        Raises:
            BadInput: no parameter has a second moment.
        """
        if not any("exp_avg_sq" in state for state in self._optimizer.state.values()):
            kind = type(self._optimizer).__name__
            raise BadInput(f"the {kind} has no second moment (exp_avg_sq); give the Adam that trains these parameters")

    def __call__(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        """Return the gradient in those coordinates; not a number where the parameter has no second moment yet."""
        state = self._optimizer.state.get(parameter, {})
        if "exp_avg_sq" not in state:
            return torch.full_like(gradient, torch.nan)
        group = next(g for g in self._optimizer.param_groups if any(p is parameter for p in g["params"]))
        moment = state.get("max_exp_avg_sq", state["exp_avg_sq"])
        moment = moment / (1 - group["betas"][1] ** torch.as_tensor(state["step"], dtype=moment.dtype))
        scale: Tensor = moment.sqrt_().add_(group["eps"]).sqrt_()
        return gradient / scale
