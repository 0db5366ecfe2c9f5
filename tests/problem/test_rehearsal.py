"""Oracle: torch's own behaviour, provoked on purpose; each fault is one sentence before anything is trained."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from gengap import BadInput, Problem

X, Y = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x), x


class Late(Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, i):
        if i == 3:
            raise KeyError("file 3 is gone")
        return X[i], int(Y[i])


def frozen():
    return nn.Linear(4, 3).requires_grad_(False)


def plain():
    return nn.Linear(4, 3)


def missing_key(outputs, targets):
    return {}["weights"]


def detached(outputs, targets):
    return F.cross_entropy(outputs, targets).detach()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"model": Pair}, "gives a tuple; it must give one tensor"),
        ({"model": frozen}, "has no weights to train"),
        ({"model": nn.ReLU}, "has no weights to train"),
        ({"model": lambda: None}, "model made a NoneType"),
        ({"loss": missing_key}, "KeyError"),
        ({"loss": detached}, "has no gradient by the weights"),
        ({"test": (X[:, :2], Y)}, "does not take test inputs of shape"),
        ({"test": (X, Y.float())}, "does not take outputs of shape"),
        ({"train": Late(), "memory_limit": 1.5}, "the first samples of the train split cannot be read"),
    ],
)
def test_each_fault_is_one_sentence(changed, says):
    given = {"model": plain, "loss": "cross_entropy", "train": (X, Y), "test": (X, Y)} | changed
    with pytest.raises(BadInput, match=says) as caught:
        Problem(**given).check()
    assert "\n" not in str(caught.value)


def test_nothing_is_wrong():
    Problem(model=plain, loss="cross_entropy", train=(X.double(), Y), test=(X, Y)).check()
