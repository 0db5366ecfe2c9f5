# Oracle: a naive twin in plain tensor arithmetic: batch norm written out with the statistics of each mode, weights and
# running statistics placed by hand (for planes by barycentric coordinates, for trajectories by least squares).
import numpy as np
import pytest
import torch
from torch import nn

import gengap
from gengap.measures.landscape.paths import interpolate
from gengap.measures.landscape.plane import plane
from gengap.measures.landscape.slices import slice_1d, slice_2d
from gengap.measures.landscape.trajectory import trajectory

RNG = torch.Generator().manual_seed(21)
TRAIN = (torch.randn(24, 5, dtype=torch.float64, generator=RNG), torch.randint(0, 3, (24,), generator=RNG))
TEST = (torch.randn(10, 5, dtype=torch.float64, generator=RNG), torch.randint(0, 3, (10,), generator=RNG))
MODES = ["running", "batch", "recompute"]


def model():
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)).double()


TASK = gengap.Problem(model=model, loss="cross_entropy", train=TRAIN, test=TEST)


def checkpoint(seed):
    rng = torch.Generator().manual_seed(seed)
    weights = {n: torch.randn(p.shape, dtype=torch.float64, generator=rng) for n, p in TASK.model(0).named_parameters()}
    mean, var = torch.randn(4, dtype=torch.float64, generator=rng), torch.rand(4, dtype=torch.float64, generator=rng)
    count = torch.tensor(seed)
    return weights, {"1.running_mean": mean, "1.running_var": 2 + var, "1.num_batches_tracked": count}


def naive(p, data, mode, buffers):
    def hidden(x):
        return x @ p["0.weight"].T + p["0.bias"]

    h, all_h = hidden(data[0]), hidden(TRAIN[0])
    mean, var = {
        "running": lambda: (buffers["1.running_mean"], buffers["1.running_var"]),
        "batch": lambda: (h.mean(0), h.var(0, unbiased=False)),
        "recompute": lambda: (all_h.mean(0), all_h.var(0, unbiased=True)),
    }[mode]()
    normed = (h - mean) / (var + 1e-5).sqrt() * p["1.weight"] + p["1.bias"]
    out = torch.tanh(normed) @ p["3.weight"].T + p["3.bias"]
    return float(nn.functional.cross_entropy(out, data[1]))


def losses(mode, buffers=None):
    return [TASK.loss_function(split, batch_norm=mode, buffers=buffers) for split in ("train", "test")]


def mixed(trees, weights):
    floating = [n for n, p in trees[0].items() if p.is_floating_point()]
    return {n: sum(float(c) * tree[n] for c, tree in zip(weights, trees, strict=True)) for n in floating}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("curve", ["linear", "sine"])
def test_paths(mode, curve):
    (a, am), (b, bm) = checkpoint(1), checkpoint(2)
    alphas = [0.0, 0.25, 1.0]
    buffers = {"a_buffers": am, "b_buffers": bm} if mode == "running" else {}
    found = interpolate(losses(mode), a=a, b=b, alphas=alphas, curve=curve, **buffers)
    for i, t in enumerate(alphas):
        turn = np.pi * t / 2
        c = (1 - t, t) if curve == "linear" else (np.cos(turn), np.sin(turn))
        for k, data in enumerate((TRAIN, TEST)):
            exact = naive(mixed([a, b], c), data, mode, mixed([am, bm], c))
            assert found.losses[k][i] == pytest.approx(exact, rel=1e-10)
    assert found.descriptions[0]["batch_norm"] == mode


@pytest.mark.parametrize("mode", MODES)
def test_planes(mode):
    trees, buffers = zip(*(checkpoint(seed) for seed in (1, 2, 3)), strict=True)
    x, y = [0.7, -0.5], [0.4, 1.5]
    given = buffers if mode == "running" else None
    found = plane(losses(mode), a=trees[0], b=trees[1], c=trees[2], x=x, y=y, buffers=given)
    corners = np.array([[1, c.x, c.y] for c in found.corners]).T
    for j, v in enumerate(y):
        for i, u in enumerate(x):
            shares = np.linalg.solve(corners, [1, u, v])
            exact = naive(mixed(trees, shares), TEST, mode, mixed(buffers, shares))
            assert found.grid.losses[1][j][i] == pytest.approx(exact, rel=1e-9)
    at_corners = [naive(tree, TRAIN, mode, own) for tree, own in zip(trees, buffers, strict=True)]
    assert [c.losses[0] for c in found.corners] == pytest.approx(at_corners, rel=1e-10)


@pytest.mark.parametrize("mode", MODES)
def test_slices(mode):
    weights, buffers = checkpoint(4)
    found = slice_1d(losses(mode, buffers), weights, positions=[-1, 0, 0.5], vectors="whole")
    (d,) = found.axes.directions
    for i, t in enumerate(found.positions):
        moved = {n: p + t * d[n] for n, p in weights.items()}
        for k, data in enumerate((TRAIN, TEST)):
            assert found.losses[k][i] == pytest.approx(naive(moved, data, mode, buffers), rel=1e-10)
    square = slice_2d(losses(mode, buffers), weights, x=[0.3], y=[-0.2])
    first, second = square.axes.directions
    moved = {n: p + 0.3 * first.get(n, 0 * p) - 0.2 * second.get(n, 0 * p) for n, p in weights.items()}
    assert square.grid.losses[1][0][0] == pytest.approx(naive(moved, TEST, mode, buffers), rel=1e-10)


@pytest.mark.parametrize("mode", MODES)
def test_trajectories(mode):
    trees, buffers = zip(*(checkpoint(seed) for seed in range(4)), strict=True)
    given = buffers if mode == "running" else None
    found = trajectory(trees, losses=losses(mode), x=[0.0, 0.8], y=[-0.3, 0.0], buffers=given)
    names = list(trees[0])
    rows = np.stack([np.concatenate([(t[n] - trees[-1][n]).flatten().numpy() for n in names]) for t in trees[:-1]])
    axes = [np.concatenate([d[n].flatten().numpy() for n in names]) for d in (found.x_direction, found.y_direction)]
    for j, v in enumerate(found.grid.y):
        for i, u in enumerate(found.grid.x):
            step = np.linalg.lstsq(rows.T, u * axes[0] + v * axes[1], rcond=None)[0]
            shares = [*step, 1 - step.sum()]
            exact = naive(mixed(trees, shares), TRAIN, mode, mixed(buffers, shares))
            assert found.grid.losses[0][j][i] == pytest.approx(exact, rel=1e-8)


def test_losses_get_their_own_buffers_back_after_ctrl_c():
    (a, am), (b, bm) = checkpoint(1), checkpoint(2)
    loss = TASK.loss_function("train", buffers=am)
    own = {n: v.clone() for n, v in loss.buffers.items()}

    def stop(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interpolate(loss, a=a, b=b, alphas=[0.5], a_buffers=am, b_buffers=bm, listen=stop)
    assert all(torch.equal(loss.buffers[n], v) for n, v in own.items())


def test_dropout_in_training_mode_is_refused_with_its_reason():
    net = nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 3)).double().train()
    a = {n: p.detach() for n, p in net.named_parameters()}

    def loss(params):
        out = torch.func.functional_call(net, params, (TRAIN[0],))
        return nn.functional.cross_entropy(out, TRAIN[1])

    for measure in (
        lambda: interpolate(loss, a=a, b=a),
        lambda: slice_1d(loss, a),
        lambda: slice_2d(loss, a),
        lambda: plane(loss, a=a, b=checkpoint_like(a, 1), c=checkpoint_like(a, 2)),
        lambda: trajectory([a, checkpoint_like(a, 1), checkpoint_like(a, 2)], losses=loss),
    ):
        with pytest.raises(gengap.BadInput, match=r"Dropout\(p=0.5, inplace=False\) is in training mode"):
            measure()


def checkpoint_like(tree, seed):
    rng = torch.Generator().manual_seed(seed)
    return {n: torch.randn(p.shape, dtype=p.dtype, generator=rng) for n, p in tree.items()}
