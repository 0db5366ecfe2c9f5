"""Factors that measure a gradient in other coordinates than those of the weights."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gengap.core.errors import BadInput
from gengap.measures.noise.adam_metric import AdamMetric
from gengap.measures.protocols import Params
from gengap.measures.trees import as_tree, is_finite


def adam_factors(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    r"""Give the factors :math:`1 / (\sqrt{\hat v} + \epsilon)` by which Adam divides the entries of a gradient.

    In coordinates stretched by their roots, Adam without momentum is plain gradient descent; with them as `metric` the
    noise scale is that of its steps.

    Args:
        model: the network that the optimizer trains.
        optimizer: Adam, AdamW, NAdam or RAdam, after at least one step.

    Returns:
        One positive tensor a weight, by name; detached.

    Raises:
        BadInput: the optimizer keeps no second moment, or none of a weight that the model trains.
    """
    metric = AdamMetric(optimizer)
    metric.check()
    found = {}
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        found[name] = metric(p, torch.ones_like(p)).detach().square()
        if not bool(found[name].isfinite().all()):
            raise BadInput(f"the optimizer has no second moment of {name!r}; make a step that uses it first")
    return found


def checked_metric(metric: Params | None, params: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Take factors for the weights that are measured.

    Args:
        metric: by name, or None.
        params: the weights.

    Returns:
        The factors, in the dtype and on the device of the weights.

    Raises:
        BadInput: a weight has no factors, their shape is another, or one is not a positive number.
    """
    if metric is None:
        return None
    given = as_tree(metric, "metric")
    for name, p in params.items():
        if name not in given:
            raise BadInput(f"metric lacks {name!r}; give factors for every weight that is measured")
        if given[name].shape != p.shape:
            shapes = tuple(given[name].shape), tuple(p.shape)
            raise BadInput(
                f"metric[{name!r}] has shape {shapes[0]} and the weight {shapes[1]}; give one factor an entry"
            )
        if not (is_finite({name: given[name]}) and bool((given[name] > 0).all())):
            raise BadInput(f"metric[{name!r}] holds a factor that is not a positive number; give positive ones")
    return {name: given[name].to(p) for name, p in params.items()}
