# Oracle: numpy's dense covariance of gradients made by single backward passes in float64, and its eigenvalues.
import numpy as np
import pytest
import torch
from noise_networks import case, single_gradients

from gengap.core.errors import BadInput
from gengap.measures.noise import covariance
from gengap.measures.noise.covariance import covariance_eigenvalues, subspace_overlap


def flat(vectors):
    return np.array([torch.cat([x.flatten() for x in v.values()]).numpy() for v in vectors])


@pytest.mark.parametrize("method", ["gram", "lanczos"])
@pytest.mark.parametrize("name", ["mlp", "embedding", "lstm", "attention", "batch norm", "tied"])
def test_equals_the_dense_covariance(name, method, monkeypatch):
    monkeypatch.setattr(covariance, "GRAM", 0 if method == "lanczos" else 256)
    c = case(name, n=23)
    sigma = np.cov(single_gradients(c).T)
    exact = np.linalg.eigvalsh(sigma)[::-1][:4]
    loss = c.problem.loss_function("train", batch_size=7, buffers=dict(c.model.named_buffers()))
    found = covariance_eigenvalues(loss, c.params, k=4, rel_error=1e-9)
    assert found.method == method
    assert found.converged
    assert found.values == pytest.approx(exact, rel=1e-8)
    vectors = flat(found.vectors)
    assert np.abs(vectors @ vectors.T - np.eye(4)).max() < 1e-9
    off = sigma @ vectors.T - vectors.T * found.values
    assert np.linalg.norm(off, axis=0) == pytest.approx(np.array(found.residuals), abs=1e-12)
    assert max(found.residuals) < 1e-3 * found.values[0]


@pytest.mark.parametrize("limit", ["4 GiB", "300 KiB"])
def test_memory_does_not_change_the_values(limit, monkeypatch):
    monkeypatch.setattr(covariance, "GRAM", 0)
    c = case("mlp", n=40)
    exact = np.linalg.eigvalsh(np.cov(single_gradients(c).T))[::-1][:2]
    found = covariance_eigenvalues(c.problem.loss_function("train", batch_size=8), c.params, k=2, memory_limit=limit)
    assert found.values == pytest.approx(exact, rel=1e-3)
    assert "gradient covariance" in str(found)


def test_only_restricts_the_matrix():
    c = case("mlp", n=20)
    exact = np.linalg.eigvalsh(np.cov(single_gradients(c, ["0.weight", "2.weight"]).T))[::-1][:3]
    assert covariance_eigenvalues(c.problem, c.params, k=3, only="*.weight").values == pytest.approx(exact, rel=1e-9)


def test_overlap_is_the_mean_squared_cosine():
    def tree(*numbers):
        x = torch.tensor(numbers, dtype=torch.float64)
        return {"a": x[:2], "b": x[2:]}

    e = [tree(1, 0, 0), tree(0, 1, 0), tree(0, 0, 1)]
    assert subspace_overlap(e[:2], e[1:]) == pytest.approx(0.5)
    assert subspace_overlap([tree(0.6, 0.8, 0)], e[:2]) == pytest.approx(1)
    assert subspace_overlap([tree(0.6, 0.8, 0)], e[:1]) == pytest.approx(0.36)
    with pytest.raises(BadInput, match="different weights"):
        subspace_overlap(e[:1], [{"a": torch.ones(3)}])
    with pytest.raises(BadInput, match="0 and 3 vectors"):
        subspace_overlap([], e)


def test_bad_input_is_refused():
    c, normed = case("mlp", n=6), case("batch norm")
    for options, text in [({"k": 0}, "k is 0"), ({"rel_error": -1}, "rel_error is -1"), ({"max_products": 5}, "is 5")]:
        with pytest.raises(BadInput, match=text):
            covariance_eigenvalues(c.problem, c.params, **options)
    with pytest.raises(BadInput, match="6 samples by 51 weights have at most 5"):
        covariance_eigenvalues(c.problem, c.params, k=6)
    with pytest.raises(BadInput, match="'batch' statistics"):
        covariance_eigenvalues(normed.problem.loss_function(batch_norm="batch"), normed.params)
