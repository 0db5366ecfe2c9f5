# Oracles: scikit-learn's logistic regression; central differences and the log-determinant of the other side
# (det(1 + X'DX / l2) = det(1 + DXX' / l2)); numerical integration of the evidence with two weights.
import math

import numpy as np
import pytest
from scipy.integrate import dblquad
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from gengap.core.errors import BadInput
from gengap.theory.logistic import cost, fit_logistic, logistic_evidence, newton_step, samples, score

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6))
Y = (RNG.random(40) < expit(X @ RNG.normal(size=6))).astype(float)
SEPARABLE = (X.sum(axis=1) > 0).astype(float)


@pytest.mark.parametrize("l2", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize("labels", [Y, SEPARABLE], ids=["noisy", "separable"])
def test_finds_the_minimum_that_scikit_learn_finds(labels, l2):
    found = fit_logistic(X, labels, l2)
    other = LogisticRegression(C=1 / l2, fit_intercept=False, tol=1e-12, max_iter=10_000).fit(X, labels)
    assert found.converged
    np.testing.assert_allclose(found.weights, other.coef_[0], rtol=2e-5, atol=1e-7)
    x, signs = samples(X, labels)
    assert cost(x, signs, found.weights, l2) <= cost(x, signs, other.coef_[0], l2) * (1 + 1e-12)
    accuracy, loss = score(found.weights, X, labels)
    assert accuracy == pytest.approx(100 * other.score(X, labels))
    assert loss == pytest.approx(-np.log(other.predict_proba(X)[range(40), labels.astype(int)]).mean(), rel=1e-4)
    assert loss == pytest.approx(found.loss_sum / 40)


def test_newton_step_against_differences():
    """The gradient by central differences of the cost, the Hessian by those of the gradient."""
    x, signs = samples(X, Y)
    w, l2, eps = RNG.normal(size=6), 0.7, 1e-5

    def slope(at):
        return np.array([(cost(x, signs, at + eps * e, l2) - cost(x, signs, at - eps * e, l2)) for e in np.eye(6)]) / (
            2 * eps
        )

    hessian = np.array([(slope(w + 1e-3 * e) - slope(w - 1e-3 * e)) / 2e-3 for e in np.eye(6)])
    step, drop = newton_step(x, signs, w, l2)
    np.testing.assert_allclose(step, -np.linalg.solve(hessian, slope(w)), rtol=1e-4)
    assert drop == pytest.approx(slope(w) @ np.linalg.solve(hessian, slope(w)) / 2, rel=1e-4)


@pytest.mark.parametrize("start", [1e3, -50.0])
def test_the_line_search_brings_it_back_from_far_away(start):
    """Where all outputs are saturated the curvature is l2 alone and plain Newton steps leave for ever larger weights."""
    found = fit_logistic(X, SEPARABLE, 1e-4, start=np.full(6, start))
    assert found.converged
    np.testing.assert_allclose(found.weights, fit_logistic(X, SEPARABLE, 1e-4).weights, rtol=1e-6)


@pytest.mark.parametrize("l2", [1e-6, 1.0, 1e5])
@pytest.mark.parametrize("P", [6, 80], ids=["few weights", "more weights than samples"])
def test_occam_is_a_log_determinant(P, l2):
    x = np.random.default_rng(1).normal(size=(40, P))
    fit = fit_logistic(x, Y, l2)
    evidence = logistic_evidence(fit, x, Y)
    p = expit(x @ fit.weights)
    assert evidence.occam == pytest.approx(
        np.linalg.slogdet(np.eye(40) + (p * (1 - p)) * (x @ x.T) / l2)[1] / 2, rel=1e-6
    )
    assert evidence.curvature.excluded == 0
    assert evidence.loss_sum == pytest.approx(-np.log(np.where(Y == 1, p, 1 - p)).sum(), rel=1e-6)
    assert evidence.penalty == pytest.approx(l2 * (fit.weights**2).sum() / 2)
    assert evidence.ratio_for_null == pytest.approx(
        evidence.loss_sum + evidence.penalty + evidence.occam - 40 * math.log(2), rel=1e-9
    )


def test_evidence_is_the_integral_over_the_prior():
    """Laplace's integral leaves out terms of order 1/N: 0.05 nats for 40 samples, where E itself is some nats."""
    x, l2 = X[:, :2], 2.0
    signs = 2 * Y - 1

    def weight(b, a):
        return math.exp(-np.logaddexp(0, -signs * (x @ [a, b])).sum() - l2 * (a * a + b * b) / 2) * l2 / (2 * math.pi)

    exact = math.log(dblquad(weight, -5, 5, -5, 5, epsrel=1e-4, epsabs=0)[0])
    assert logistic_evidence(fit_logistic(x, Y, l2), x, Y).value == pytest.approx(exact, abs=0.05)


def test_says_so_where_rounding_ends_the_search():
    found = fit_logistic(np.array([[1e8, 1.0], [1e8, 2.0]]), [0, 1], 1e-12)
    assert found.converged == (found.newton_drop < 1e-13 * (1 + found.loss_sum))
    assert math.isfinite(found.loss_sum)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"l2": 0.0}, "l2 is 0.0; the evidence needs a prior"),
        ({"labels": [0, 1]}, r"inputs has shape \(40, 6\) and labels \(2,\)"),
        ({"labels": Y + 1}, "labels holds 2; give 0 or 1"),
        ({"inputs": np.full((40, 2), math.inf)}, "inputs holds 80 numbers that are not finite"),
        ({"start": [1.0]}, r"start has shape \(1,\); give one weight for each of the 6 features"),
    ],
)
def test_refuses_with_a_sentence(change, sentence):
    with pytest.raises(BadInput, match=sentence):
        fit_logistic(**{"inputs": X, "labels": Y, "l2": 1.0, **change})
