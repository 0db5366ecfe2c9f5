# Oracle: networks built with ghost layers by hand, and the identity of what must stay.
import copy
import io

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from gengap.core.errors import BadInput
from gengap.nets.keskar2017 import c1
from gengap.nets.norm_conversion import convert_ghost_batch_norm, convert_plain_batch_norm
from gengap.nets.norms import GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d


class Block(nn.Module):
    """A layer used twice, nested, under two names."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3, momentum=0.4)
        self.inner = nn.ModuleDict({"again": self.norm, "list": nn.ModuleList([nn.BatchNorm2d(2), nn.BatchNorm3d(2)])})

    def forward(self, x):
        return self.inner["again"](self.norm(x))


def test_every_layer_is_converted_and_shared_ones_stay_shared():
    model = Block()
    weights, keys = list(model.parameters()), list(model.state_dict())
    assert convert_ghost_batch_norm(model, 4) is model
    assert model.norm is model.inner["again"]
    kinds = [type(model.norm), *(type(m) for m in model.inner["list"])]
    assert kinds == [GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d]
    assert all(a is b for a, b in zip(model.parameters(), weights, strict=True))
    assert list(model.state_dict()) == keys
    assert {m.ghost_size for m in model.modules() if isinstance(m, _BatchNorm)} == {4}
    assert model.norm.momentum == 0.4


def test_the_converted_model_does_what_one_built_so_does():
    rng = torch.Generator().manual_seed(0)
    built = nn.Sequential(GhostBatchNorm1d(3, 4, momentum=0.4), nn.ReLU())
    model = convert_ghost_batch_norm(nn.Sequential(nn.BatchNorm1d(3, momentum=0.4), nn.ReLU()), 4)
    x = torch.randn(10, 3, generator=rng)
    assert torch.equal(model(x), built(x))
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), built.buffers(), strict=True))


def test_there_and_back_is_the_model():
    model = Block().eval()
    before = str(model)
    convert_ghost_batch_norm(model, 4)
    convert_ghost_batch_norm(model, 8)
    assert model.norm.ghost_size == 8
    assert str(convert_plain_batch_norm(model)) == before
    assert not model.training
    assert type(model.norm) is nn.BatchNorm1d
    assert "ghost_size" not in vars(model.norm)


def test_hooks_and_optimizers_stay():
    norm, seen = nn.BatchNorm1d(2), []
    norm.register_forward_hook(lambda *_: seen.append(1))
    optimizer = torch.optim.SGD(norm.parameters(), lr=1.0)
    converted = convert_ghost_batch_norm(norm, 2)
    start = converted.bias.detach().clone()
    converted(torch.eye(4, 2)).sum().backward()
    optimizer.step()
    assert seen == [1]
    torch.testing.assert_close(converted.bias.detach(), start - 4)


def test_copies_and_files():
    model = convert_ghost_batch_norm(nn.Sequential(nn.BatchNorm1d(2)), 2)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert (type(other[0]), other[0].ghost_size) == (GhostBatchNorm1d, 2)


def test_a_network_of_the_catalogue():
    with torch.random.fork_rng(devices=[]):
        model = convert_ghost_batch_norm(c1(), 2)
    assert sum(hasattr(m, "ghost_size") for m in model.modules()) == 4
    assert model(torch.zeros(4, 3, 32, 32)).shape == (4, 10)


class Own(nn.BatchNorm2d):
    """Somebody's subclass, which may do anything."""


@pytest.mark.parametrize("other", [nn.SyncBatchNorm(2), Own(2), nn.LazyBatchNorm2d()], ids=lambda m: type(m).__name__)
def test_other_batch_norms_are_refused_and_nothing_is_changed(other):
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Sequential(other))
    with pytest.raises(BadInput, match=rf"has a {type(other).__name__} at '1.0', which cannot be converted"):
        convert_ghost_batch_norm(model, 4)
    assert type(model[0]) is nn.BatchNorm1d


def test_a_model_without_batch_norm_is_refused():
    with pytest.raises(BadInput, match="Linear has no batch norm to convert"):
        convert_ghost_batch_norm(nn.Linear(2, 2), 4)
    assert isinstance(convert_plain_batch_norm(nn.Linear(2, 2)), nn.Linear)
