# Oracles: scipy's matrix square root of the covariance; scikit-learn's whitened principal components; moments by numpy.
import math

import numpy as np
import pytest
from scipy.linalg import sqrtm
from sklearn.decomposition import PCA

from gengap.core.errors import BadInput
from gengap.theory.whitening import check_features, whitening

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 5)) @ RNG.normal(size=(5, 5)) * [1, 1e2, 1e-2, 1, 1] + 7


@pytest.mark.parametrize("form", ["symmetric", "principal"])
def test_white_and_back(form):
    found = whitening(X, form=form)
    z = found.apply(X)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(z.T @ z / len(z), np.eye(5), atol=1e-8)
    np.testing.assert_allclose(found.undo(z), X, rtol=1e-8)
    new = RNG.normal(size=(3, 5))
    np.testing.assert_allclose(found.undo(found.apply(new)), new, rtol=1e-6, atol=1e-6)


def test_symmetric_is_the_inverse_root_of_the_covariance():
    x = X[:, [0, 3, 4]]
    root = np.linalg.inv(sqrtm(np.cov(x.T, bias=True)).real)
    np.testing.assert_allclose(whitening(x).forward, root, rtol=1e-8)


def test_principal_is_that_of_scikit_learn():
    z = whitening(X, form="principal").apply(X)
    other = PCA(whiten=True, svd_solver="full").fit_transform(X) * math.sqrt(200 / 199)
    np.testing.assert_allclose(np.abs(z), np.abs(other), rtol=1e-6, atol=1e-6)


def test_directions_without_variance_are_left_out():
    x = np.column_stack([X[:, 0], 2 * X[:, 0], X[:, 3], np.full(200, 4.0)])
    found = whitening(x, form="principal")
    assert (found.left_out, found.forward.shape, len(found.variances)) == (2, (4, 2), 2)
    z = found.apply(x)
    np.testing.assert_allclose(z.T @ z / 200, np.eye(2), atol=1e-9)
    np.testing.assert_allclose(found.undo(z), x, rtol=1e-8)
    with pytest.raises(BadInput, match="the features vary in 2 of 4 directions only; take form='principal'"):
        whitening(x)


def test_more_features_than_samples():
    x = RNG.normal(size=(10, 30))
    found = whitening(x, form="principal")
    assert found.left_out == 21
    np.testing.assert_allclose(found.undo(found.apply(x)), x, atol=1e-10)


def test_check_tells_white_from_not():
    white = check_features(whitening(X).apply(X))
    assert white.largest_mean < 1e-8
    assert white.variance_range == pytest.approx((1, 1), abs=1e-7)
    assert white.largest_correlation < 1e-7
    x = np.column_stack([[1.0, -1.0, 1.0, -1.0], [3.0, -3.0, 3.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    found = check_features(x)
    assert (found.largest_mean, found.variance_range, found.largest_correlation) == (1.5, (0.0, 9.0), 0.5)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: whitening([1.0, 2.0]), r"inputs has shape \(2,\)"),
        (lambda: whitening(np.ones((4, 2))), "the features are the same in every sample"),
        (lambda: whitening(X, form="zca"), "form is 'zca'; choose one of symmetric, principal"),
        (lambda: whitening(X, tolerance=1.0), r"tolerance is 1\.0"),
        (
            lambda: whitening(X).apply(np.ones((2, 3))),
            r"inputs has shape \(2, 3\); the whitening was made for \(N, 5\)",
        ),
        (lambda: check_features([[math.nan]]), r"features has shape \(1, 1\)"),
    ],
)
def test_refuses_with_a_sentence(call, sentence):
    with pytest.raises(BadInput, match=sentence):
        call()
