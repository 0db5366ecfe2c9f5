# Oracles: scikit-learn's PCA; a simulated random walk; the eigenvalues of the centred walk matrix (numpy); a quadratic in
# closed form.
import json

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from gengap.core.errors import BadInput
from gengap.measures.landscape.trajectory import random_walk_shares, trajectory

SHAPES = {"w": (7, 5), "b": (9,)}


def walk(count, seed=0, dtype=torch.float64, drift=0.0):
    rng = torch.Generator().manual_seed(seed)
    steps = {n: torch.randn(count, *s, generator=rng, dtype=torch.float64) + drift for n, s in SHAPES.items()}
    return [{n: s.cumsum(0)[t].to(dtype) for n, s in steps.items()} for t in range(count)]


def flat(tree):
    return torch.cat([p.reshape(-1) for p in tree.values()]).double().numpy()


@pytest.mark.parametrize("drift", [0.0, 1.0])
def test_equals_scikit_learn(drift):
    checkpoints = walk(12, drift=drift)
    found = trajectory(checkpoints)
    rows = np.stack([flat(tree) for tree in checkpoints])
    pca = PCA(n_components=11, svd_solver="full").fit(rows - rows[-1])
    assert found.shares == pytest.approx(pca.explained_variance_ratio_.tolist(), rel=1e-9, abs=1e-12)
    for k, direction in enumerate((found.x_direction, found.y_direction)):
        sign = np.sign(flat(direction) @ pca.components_[k])
        assert flat(direction) == pytest.approx(sign * pca.components_[k], abs=1e-10)
        exact = sign * (rows - rows[-1]) @ pca.components_[k]
        assert [at[k] for at in found.coordinates] == pytest.approx(exact.tolist(), abs=1e-9)
    shown = np.array(found.coordinates) @ np.stack([flat(found.x_direction), flat(found.y_direction)])
    rest = np.linalg.norm(rows - rows[-1] - shown, axis=1)
    assert found.off_plane == pytest.approx(rest.tolist(), abs=1e-6)
    assert found.coordinates[-1] == (0.0, 0.0)
    assert found.coordinates[0][0] >= 0
    assert found.weights == 44


def test_float32_checkpoints_large_and_close_together():
    """A trajectory of length 1e-2 around weights of size 1: differences, not the weights, are multiplied."""
    rng = torch.Generator().manual_seed(2)
    centre = torch.randn(70_000, generator=rng)
    walked = 1e-4 * torch.randn(6, 70_000, generator=rng).cumsum(0)
    checkpoints = [centre + step for step in walked]
    found = trajectory(checkpoints)
    rows = torch.stack(checkpoints).double().numpy()
    pca = PCA(n_components=5, svd_solver="full").fit(rows)
    assert found.shares == pytest.approx(pca.explained_variance_ratio_.tolist(), rel=1e-6)
    assert np.linalg.norm(flat(found.x_direction)) == pytest.approx(1, abs=1e-6)


def test_shares_of_a_random_walk():
    """Its steps are whitened by the sum matrix S: the variances are the eigenvalues of C S S' C."""
    for count in (3, 10, 40):
        s = np.tril(np.ones((count, count)))
        c = np.eye(count) - 1 / count
        values = np.linalg.eigvalsh(c @ s @ s.T @ c)[::-1][: count - 1]
        assert random_walk_shares(count) == pytest.approx((values / values.sum()).tolist(), rel=1e-9)
    assert random_walk_shares(400)[:2] == pytest.approx([6 / np.pi**2, 6 / np.pi**2 / 4], rel=1e-2)


def test_a_simulated_walk_has_these_shares():
    count, repeats = 15, 12
    shares = []
    for seed in range(repeats):
        rng = torch.Generator().manual_seed(seed)
        shares.append(trajectory(list(torch.randn(count, 4000, generator=rng).cumsum(0))).shares[:2])
    mean, error = np.mean(shares, 0), np.std(shares, 0, ddof=1) / repeats**0.5
    # Finite dimension P adds a relative excess of order count / P to the first share.
    assert (np.abs(mean - random_walk_shares(count)[:2]) < 5 * error + 2 * count / 4000 * mean).all()
    assert (5 * error + 2 * count / 4000 * mean < 0.1 * mean).all()


def test_the_grid_is_the_loss_on_the_plane():
    checkpoints = [torch.from_numpy(flat(tree)) for tree in walk(5, drift=0.5)]
    h = torch.randn(44, 44, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x, y = [-1.0, 0.0, 4.0], [0.0, 2.0]
    found = trajectory(checkpoints, losses=lambda w: w @ h @ w, x=x, y=y)
    u, v = found.x_direction["params"], found.y_direction["params"]
    points = [[checkpoints[-1] + i * u + j * v for i in x] for j in y]
    exact = [[float(w @ h @ w) for w in row] for row in points]
    assert np.array(found.grid.losses[0]) == pytest.approx(np.array(exact), rel=1e-11)
    assert found.grid.losses[0][0][1] == float(checkpoints[-1] @ h @ checkpoints[-1])


def test_the_default_grid_covers_the_trajectory():
    found = trajectory(walk(6), losses=lambda p: p["w"].square().sum(), points=3)
    for x, y in found.coordinates:
        assert found.grid.x[0] < x < found.grid.x[-1]
        assert found.grid.y[0] < y < found.grid.y[-1]
    said = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert len(said["coordinates"]) == 6
    assert "x_direction" not in said
    assert said["points"] == 9


def test_only_named_weights_count():
    checkpoints = walk(6)
    found = trajectory(checkpoints, only="w", losses=lambda p: p["b"].sum(), x=[0, 9], y=[0])
    alone = trajectory([{"w": tree["w"]} for tree in checkpoints])
    assert found.shares == alone.shares
    assert set(found.x_direction) == {"w"}
    assert found.grid.losses[0][0] == (float(checkpoints[-1]["b"].sum()),) * 2
    assert found.weights == 35


def test_tells_of_the_random_walk():
    text = str(trajectory(walk(10)))
    both = 100 * sum(random_walk_shares(10)[:2])
    assert f"a random walk of that length: {both:.3g} %" in text


@pytest.mark.parametrize(
    ("checkpoints", "sentence"),
    [
        ([torch.ones(2)] * 2, "checkpoints holds 2 of them; give a list of at least three"),
        (torch.ones(4, 2), "checkpoints holds 1 of them"),
        ([torch.ones(2)] * 3, "lie on a line or are all the same"),
        ([t * torch.ones(2) for t in (1, 2, 4)], "lie on a line"),
        ([torch.ones(2), torch.ones(2), torch.ones(3)], r"checkpoints\[2\]\['params'\] has \(3,\)"),
    ],
)
def test_refuses_with_a_sentence(checkpoints, sentence):
    with pytest.raises(BadInput, match=sentence):
        trajectory(checkpoints)
