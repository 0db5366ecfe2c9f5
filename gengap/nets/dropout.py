"""Dropout of a network that has it already."""

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from gengap.core.errors import BadInput


def set_dropout(model: nn.Module, p: float) -> int:
    """Change the probability of every dropout layer, and that inside attention and stacked recurrent layers.

    Nothing is added: a new layer would change the names of weights, so that checkpoints no longer fit. Calls of
    `torch.nn.functional.dropout` in a model's own code are not reached.

    Args:
        model: changed in place.
        p: probability that a signal is dropped, at least 0 and less than 1.

    Returns:
        The number of modules that were changed.

    Raises:
        BadInput: `p` is out of its range, or the model has no dropout.

    Source:
        Srivastava et al. 2014, JMLR 15.
    """
    if not 0 <= p < 1:
        raise BadInput(f"the probability of dropout is {p}; give at least 0 and less than 1")
    found = 0
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = p
        elif isinstance(module, nn.MultiheadAttention) or (isinstance(module, nn.RNNBase) and module.num_layers > 1):
            module.dropout = p
        else:
            continue
        found += 1
    if not found:
        raise BadInput(f"the {type(model).__name__} has no dropout to set to {p}; put nn.Dropout into the model itself")
    return found
