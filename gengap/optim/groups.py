"""Which weights are decayed: biases and norm layers are left out (Goyal et al. 2017)."""

from typing import Any

from torch import nn

from gengap.core.errors import BadInput
from gengap.optim.arguments import check_not_negative

# Only these can have scales of several dimensions; those of all other norm layers are found by their shape.
NORMS = (nn.LayerNorm, nn.RMSNorm)


def no_decay_groups(model: nn.Module, weight_decay: float, **options: Any) -> list[dict[str, Any]]:
    """Split the weights of a model into those that are decayed and those that are not.

    Left out of weight decay are biases, the scale and shift of norm layers, and every other tensor of at most one dimension.
    A weight that two modules share is in one group once; frozen weights are in none.

    Args:
        model: the network.
        weight_decay: of all other weights.
        options: given to both groups, for example lr.

    Returns:
        Groups for any `torch.optim.Optimizer`; one group where the other would be empty.

    Raises:
        BadInput: weight_decay is negative, or the model has no weights to train.

    Source:
        Goyal et al. 2017, arXiv:1706.02677, section 5.1, which leaves out scale and shift of batch norm; biases are left out by
        wide practice.
    """
    check_not_negative(weight_decay=weight_decay)
    free = {id(p) for module in model.modules() if isinstance(module, NORMS) for p in module.parameters(recurse=False)}
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not trained:
        raise BadInput("the model has no weights to train; set requires_grad on some")
    spared = [p for name, p in trained if id(p) in free or p.dim() <= 1 or name.rpartition(".")[2] == "bias"]
    chosen = {id(p) for p in spared}
    decayed = [p for _, p in trained if id(p) not in chosen]
    groups = [
        {"params": decayed, "weight_decay": weight_decay, **options},
        {"params": spared, "weight_decay": 0.0, **options},
    ]
    return [group for group in groups if group["params"]]
