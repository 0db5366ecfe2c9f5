# Oracles: torch's batch norm applied to one ghost batch after the other in a Python loop (outputs, gradients, running
# statistics, higher derivatives), and the formula of the running statistics written out.
import copy

import pytest
import torch
from hypothesis import assume, given, settings, strategies as st
from torch import nn
from torch.func import functional_call, grad, jvp, vmap

from gengap.core.errors import BadInput
from gengap.nets.norms import GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d

GHOST = {1: GhostBatchNorm1d, 2: GhostBatchNorm1d, 3: GhostBatchNorm2d, 4: GhostBatchNorm3d}
PLAIN = {1: nn.BatchNorm1d, 2: nn.BatchNorm1d, 3: nn.BatchNorm2d, 4: nn.BatchNorm3d}
FORMATS = {3: torch.channels_last, 4: torch.channels_last_3d}
TIGHT = {"rtol": 1e-10, "atol": 1e-11}
QUIET_JVP = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(shape, ghost_size, **options):
    """A ghost layer for samples of this shape and torch's layer, with the same weights that are not 1 and 0."""
    channels = shape[0]
    ghost = GHOST[len(shape)](channels, ghost_size, **options).double()
    plain = PLAIN[len(shape)](channels, **options).double()
    with torch.no_grad():
        for i, p in enumerate(ghost.parameters()):
            p.copy_(normal(channels, seed=10 + i))
        if ghost.running_mean is not None:
            ghost.running_mean.copy_(normal(channels, seed=20))
    plain.load_state_dict(ghost.state_dict())
    return ghost, plain


def loop(plain, x, ghost_size):
    """The definition: one ghost batch after the other."""
    return torch.cat([plain(part) for part in x.split(ghost_size)])


def gradients(y, x, norm, dy):
    return torch.autograd.grad(y, [x, *norm.parameters()], dy)


def assert_same(ours, theirs, **tolerance):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **(tolerance or TIGHT))


@st.composite
def batches(draw):
    """Shape of a sample, samples, ghost size; no ghost batch has one value per channel."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    samples, ghost_size = draw(st.integers(1, 13)), draw(st.integers(1, 15))
    smallest = samples % ghost_size or ghost_size
    assume(smallest * torch.Size(shape[1:]).numel() > 1)
    return shape, samples, ghost_size


@settings(max_examples=60, deadline=None)
@given(batches(), st.sampled_from([0.1, 0.75, 1.0, None]), st.booleans(), st.booleans(), st.integers(0, 99))
def test_equals_a_loop_over_ghost_batches(drawn, momentum, affine, channels_last, seed):
    shape, samples, ghost_size = drawn
    ghost, plain = pair(shape, ghost_size, momentum=momentum, affine=affine)
    for step in range(2):
        x, dy = (2 * normal(samples, *shape, seed=seed + step + s) + 3 for s in (0, 50))
        if channels_last and len(shape) in FORMATS:
            x = x.contiguous(memory_format=FORMATS[len(shape)])
        x.requires_grad_()
        ours, theirs = ghost(x), loop(plain, x, ghost_size)
        assert_same([ours], [theirs])
        assert_same(gradients(ours, x, ghost, dy), gradients(theirs, x, plain, dy))
    assert_same(ghost.buffers(), plain.buffers())


def network(ghost_size=None):
    """With batch norm of both kinds, and functions that work in place."""
    torch.manual_seed(0)
    images = nn.BatchNorm2d(4) if ghost_size is None else GhostBatchNorm2d(4, ghost_size)
    vectors = nn.BatchNorm1d(6) if ghost_size is None else GhostBatchNorm1d(6, ghost_size)
    features = [nn.Conv2d(2, 4, 3), images, nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(36, 6)]
    return nn.Sequential(*features, vectors, nn.ReLU(inplace=True), nn.Linear(6, 3)).double()


@pytest.fixture(autouse=True)
def _random_state():
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.mark.parametrize("samples", [12, 14], ids=["whole", "left over"])
def test_a_network_equals_accumulation_over_chunks(samples):
    """Each chunk goes forward and backward alone, weighted by its samples, as in Hoffer's code for equal chunks."""
    whole, chunked = network(ghost_size=4), network()
    x, targets = normal(samples, 2, 5, 5), torch.arange(samples) % 3
    nn.functional.cross_entropy(whole(x), targets).backward()
    for part, own in zip(x.split(4), targets.split(4), strict=True):
        (nn.functional.cross_entropy(chunked(part), own) * len(own) / samples).backward()
    assert_same([p.grad for p in whole.parameters()], [p.grad for p in chunked.parameters()])
    assert_same(whole.buffers(), chunked.buffers())


def test_running_statistics_are_the_geometric_sum():
    """run <- (1 - eta)^k run + sum of eta (1 - eta)^(k - i) stat_i, with unbiased variances."""
    norm = GhostBatchNorm1d(3, 4, momentum=0.3).double()
    x = normal(12, 3)
    norm(x)
    for running, start, statistic in ((norm.running_mean, 0.0, torch.mean), (norm.running_var, 1.0, torch.var)):
        each = [statistic(part, 0) for part in x.split(4)]
        expected = 0.7**3 * start + sum(0.3 * 0.7 ** (3 - i) * s for i, s in enumerate(each, start=1))
        torch.testing.assert_close(running, expected)
    assert norm.num_batches_tracked == 3


def test_evaluation_is_that_of_the_plain_layer():
    ghost, plain = pair((3, 2, 2), 4)
    x = normal(9, 3, 2, 2)
    assert torch.equal(ghost.eval()(x), plain.eval()(x))
    bare = GhostBatchNorm2d(3, 4, track_running_stats=False).double().eval()
    assert torch.equal(bare(x), nn.BatchNorm2d(3, track_running_stats=False).double().eval()(x))


@pytest.mark.parametrize("options", [{"track_running_stats": False}, {"bias": False}, {"affine": False, "eps": 0.5}])
def test_options_of_torch(options):
    ghost, plain = pair((3, 2, 2), 4, **options)
    x, dy = normal(10, 3, 2, 2).requires_grad_(), normal(10, 3, 2, 2, seed=1)
    ours, theirs = ghost(x), loop(plain, x, 4)
    assert_same([ours, *gradients(ours, x, ghost, dy)], [theirs, *gradients(theirs, x, plain, dy)])
    assert_same(ghost.buffers(), plain.buffers())


@pytest.mark.parametrize("shape", [(3,), (3, 2, 2)])
def test_gradients_of_gradients(shape):
    """The Hessian of a loss by double backward."""
    ghost, plain = pair(shape, 4)
    x = normal(8, *shape)

    def hessian(layer):
        def loss(x, weight, bias):
            state = {"weight": weight, "bias": bias}
            return functional_call(copy.deepcopy(layer), state, (x,)).pow(3).sum()

        return torch.autograd.functional.hessian(loss, (x, ghost.weight.detach(), ghost.bias.detach()))

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.plain = plain
            self.weight, self.bias = plain.weight, plain.bias

        def forward(self, x):
            parts = [nn.functional.batch_norm(p, None, None, self.weight, self.bias, True) for p in x.split(4)]
            return torch.cat(parts)

    for ours, theirs in zip(hessian(ghost), hessian(Loop()), strict=True):
        assert_same(ours, theirs, rtol=1e-8, atol=1e-9)


def stateless(layer, x):
    """A loss of weight, bias and copies of the buffers."""

    def loss(params, buffers):
        return functional_call(layer, (params, buffers), (x,)).pow(3).sum()

    return loss


def test_many_layers_at_once_under_vmap():
    ghost, _ = pair((3, 2, 2), 4)
    x = normal(10, 3, 2, 2)
    params = {name: torch.stack([p.detach(), 2 * p.detach()]) for name, p in ghost.named_parameters()}
    buffers = {name: torch.stack([b, b.clone()]) for name, b in ghost.named_buffers()}
    together = vmap(grad(stateless(ghost, x)))(params, buffers)
    for i in range(2):
        _, plain = pair((3, 2, 2), 4)
        with torch.no_grad():
            for name, p in plain.named_parameters():
                p.copy_(params[name][i])
        loop(plain, x, 4).pow(3).sum().backward()
        for name, p in plain.named_parameters():
            torch.testing.assert_close(together[name][i], p.grad, **TIGHT)
        for name, b in plain.named_buffers():
            torch.testing.assert_close(buffers[name][i], b, **TIGHT)


@QUIET_JVP
def test_forward_mode():
    ghost, plain = pair((3, 2, 2), 4, track_running_stats=False)
    x, direction = normal(10, 3, 2, 2), normal(10, 3, 2, 2, seed=1)
    assert_same(jvp(ghost, (x,), (direction,)), jvp(lambda x: loop(plain, x, 4), (x,), (direction,)))


@pytest.mark.parametrize("samples", [8, 10])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_channels_last_is_kept(samples, dtype):
    norm = GhostBatchNorm2d(3, 4, dtype=dtype)
    x = normal(samples, 3, 4, 4).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = norm(x)
    y.square().sum().backward()
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert x.grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_half_precision_under_autocast(layout):
    """Within two roundings of bfloat16 of the float64 answer for the same inputs; statistics stay in float32."""
    ghost, plain = pair((3, 4, 4), 8)
    ghost.float()
    x, dy = (t.bfloat16() for t in (normal(20, 3, 4, 4) + 2, normal(20, 3, 4, 4, seed=1)))
    if layout == "channels last":
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        ours = ghost(x)
    exact = x.detach().double().requires_grad_()
    theirs = loop(plain, exact, 8)
    assert ours.dtype == torch.bfloat16
    assert ghost.running_mean.dtype == torch.float32
    torch.testing.assert_close(ours.double(), theirs, rtol=2**-7, atol=2**-7)
    found, expected = gradients(ours, x, ghost, dy), gradients(theirs, exact, plain, dy.double())
    assert_same([g.double() for g in found], expected, rtol=2**-6, atol=2**-5)
    assert_same([b.double() for b in ghost.buffers()], [b.double() for b in plain.buffers()], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(3,), (3, 4, 4)])
def test_a_large_mean_does_not_spoil_the_variance(shape):
    """In float32, a mean 1,000 times the standard deviation; a mean of squares would be wrong by more than the variance."""
    norm = GHOST[len(shape)](3, 256, momentum=1.0, affine=False)
    x = (normal(512, *shape) + 1000).float()
    norm(x)
    expected = x[256:].double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(norm.running_var.double(), expected.var(1), rtol=1e-3, atol=0)


def test_inputs_are_not_touched_and_may_be_views():
    ghost, plain = pair((3, 4, 4), 4)
    base = normal(16, 3, 4, 8)
    before, x = base.clone(), base[::2, :, :, ::2]
    torch.testing.assert_close(ghost(x), loop(plain, x.contiguous(), 4), **TIGHT)
    assert torch.equal(base, before)


@pytest.mark.parametrize("shape", [(3,), (3, 2, 2), (1, 2)])
def test_inputs_and_gradients_may_be_expanded(shape):
    """One number stands for many in memory, as in the gradient of a sum."""
    for samples in (8, 4):
        ghost, plain = pair(shape, 4)
        x = normal(samples, *shape).requires_grad_()
        one = normal(1, *shape, seed=1).requires_grad_()
        for batch in (x, one.expand(samples, *shape)):
            dy = torch.tensor(2.0, dtype=torch.float64).expand(samples, *shape)
            ours, theirs = ghost(batch), loop(plain, batch, 4)
            assert_same([ours, *gradients(ours, batch, ghost, dy)], [theirs, *gradients(theirs, batch, plain, dy)])


@pytest.mark.parametrize(
    ("norm", "shape", "ghost_size"), [(GhostBatchNorm1d, (9, 3), 4), (GhostBatchNorm2d, (5, 3, 1, 1), 1)]
)
def test_a_ghost_batch_of_one_value_is_refused(norm, shape, ghost_size):
    with pytest.raises(BadInput, match=f"batch of {shape[0]} samples leaves a ghost batch of one value per channel"):
        norm(3, ghost_size)(torch.ones(shape))


def test_other_channels_are_refused():
    with pytest.raises(BadInput, match="the input has 4 channels and the batch norm 3"):
        GhostBatchNorm1d(3, 2, track_running_stats=False)(torch.ones(6, 4))


@pytest.mark.parametrize("ghost_size", [0, -3, 2.0, True, None, "8"])
def test_ghost_sizes_that_mean_nothing_are_refused(ghost_size):
    with pytest.raises(BadInput, match="ghost_size is"):
        GhostBatchNorm1d(3, ghost_size)
