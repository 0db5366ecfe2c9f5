# Oracles: the marginal likelihood of Bayesian linear regression (scipy's multivariate normal density, where Laplace's
# integral is exact), numeric integration for logistic regression with one weight, and dense Hessians.
import json
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import multivariate_normal

from gengap.core.errors import BadInput
from gengap.theory.evidence import (
    Curvature,
    RegularisedMinimum,
    curvature_from_eigenvalues,
    curvature_from_log_determinant,
    log_evidence,
)


def regression(l2, scale=1.0, N=12, P=4, noise=0.7):
    """Bayesian linear regression: its minimum, the Hessian of C there, and its exact marginal likelihood."""
    rng = np.random.default_rng(0)
    X = scale * rng.normal(size=(N, P))
    y = X @ rng.normal(size=P) / scale + noise * rng.normal(size=N)
    hessian = X.T @ X / noise**2 + l2 * np.eye(P)
    w = np.linalg.solve(hessian, X.T @ y / noise**2)
    loss = ((y - X @ w) ** 2).sum() / (2 * noise**2) + N / 2 * math.log(2 * math.pi * noise**2)
    exact = multivariate_normal(np.zeros(N), noise**2 * np.eye(N) + X @ X.T / l2).logpdf(y)
    return RegularisedMinimum(loss, w @ w, l2, N), hessian, exact


@pytest.mark.parametrize("l2", [0.01, 1.0, 50.0])
def test_is_the_marginal_likelihood_of_bayesian_linear_regression(l2):
    minimum, hessian, exact = regression(l2)
    curvature = curvature_from_eigenvalues(np.linalg.eigvalsh(hessian), l2)
    found = log_evidence(minimum, curvature)
    assert found.value == pytest.approx(exact, rel=1e-12)
    assert (found.stderr, found.ratio_for_null, found.null_loss) == (None, None, None)
    assert (curvature.rule, curvature.excluded, curvature.parameters) == ("all", 0, 4)


def test_more_weights_than_samples():
    """Directions that the data do not see have eigenvalues of exactly l2, up to rounding, and add nothing."""
    rng = np.random.default_rng(1)
    X, l2 = rng.normal(size=(3, 8)), 1e-3
    hessian = X.T @ X + l2 * np.eye(8)
    curvature = curvature_from_eigenvalues(np.linalg.eigvalsh(hessian), l2)
    assert (curvature.rule, curvature.excluded) == ("all", 0)
    assert curvature.occam == pytest.approx(0.5 * np.linalg.slogdet(np.eye(3) + X @ X.T / l2)[1], rel=1e-9)
    assert 2.9 < curvature.effective_parameters < 3


@pytest.mark.parametrize("scale", [1e-3, 0.1, 40.0])
def test_rescaling_the_weights_with_their_prior_changes_no_part(scale):
    """Inputs `scale` times as large make weights 1/scale as large: the prior's precision goes with scale squared."""

    def parts(scale, l2):
        minimum, hessian, _ = regression(l2, scale)
        return log_evidence(minimum, curvature_from_eigenvalues(np.linalg.eigvalsh(hessian), l2))

    plain, scaled = parts(1.0, 0.3), parts(scale, 0.3 * scale**2)
    for name in ("value", "loss_sum", "penalty", "occam"):
        assert getattr(scaled, name) == pytest.approx(getattr(plain, name), rel=1e-9)
    assert scaled.curvature.effective_parameters == pytest.approx(plain.curvature.effective_parameters, rel=1e-9)
    assert parts(scale, 0.3).occam != pytest.approx(plain.occam, rel=1e-2)


def logistic(N, l2):
    """Logistic regression with one weight: Laplace's log evidence, the exact one, and the next term of the expansion."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=N)
    y = (rng.random(N) < expit(0.8 * x)).astype(float)

    def cost(w):
        return np.logaddexp(0, w * x).sum() - w * (x @ y) + l2 * w**2 / 2

    w = brentq(lambda w: x @ (expit(w * x) - y) + l2 * w, -50, 50, xtol=1e-13)
    p = expit(w * x)
    second = (x**2 * p * (1 - p)).sum() + l2
    third = (x**3 * p * (1 - p) * (1 - 2 * p)).sum()
    fourth = (x**4 * p * (1 - p) * (1 - 6 * p * (1 - p))).sum()
    width = 12 / math.sqrt(second)
    area = quad(lambda v: math.exp(cost(w) - cost(v)), w - width, w + width, epsabs=0, epsrel=1e-12)[0]
    exact = 0.5 * math.log(l2 / (2 * math.pi)) - cost(w) + math.log(area)
    minimum = RegularisedMinimum(cost(w) - l2 * w**2 / 2, w**2, l2, N, classes=2)
    found = log_evidence(minimum, curvature_from_eigenvalues([second], l2))
    return found, exact, -fourth / (8 * second**2) + 5 * third**2 / (24 * second**3)


@pytest.mark.parametrize("l2", [0.1, 2.0])
@pytest.mark.parametrize("N", [20, 200, 2000])
def test_is_the_integral_of_logistic_regression_up_to_the_error_of_laplace(N, l2):
    found, exact, next_term = logistic(N, l2)
    assert abs(next_term) < 2 / N
    assert found.value + next_term == pytest.approx(exact, abs=60 / N**2)
    assert abs(found.value - exact) < 4 / N
    assert found.ratio_for_null == pytest.approx(N * math.log(2) * -1 - found.value, rel=1e-12)


def test_guessing_among_two_classes_on_200_samples_costs_138_nats():
    minimum = RegularisedMinimum(24.68, 4.07, 10.0, samples=200, classes=2)
    assert minimum.null_loss == pytest.approx(138.63, abs=5e-3)
    found = log_evidence(minimum, Curvature(82.76, None, 10.0, 201, "all"))
    assert found.penalty == pytest.approx(20.35, abs=1e-12)
    assert found.value == pytest.approx(-(24.68 + 20.35 + 82.76), rel=1e-12)
    assert found.ratio_for_null == pytest.approx(24.68 + 20.35 + 82.76 - 138.63, abs=5e-3)
    assert found.log_occam_factor == -82.76


def toy(informative, l2, seed):
    """Smith & Le's toy: logistic regression with 200 features and a bias on 200 samples, minimised by Newton steps."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(200, 200))
    X = (X - X.mean(0)) / X.std(0)
    labels = X.sum(1) > 0 if informative else rng.random(200) < 0.5
    X, sign = np.column_stack([X, np.ones(200)]), np.where(labels, 1.0, -1.0)

    def cost(w):
        return np.logaddexp(0, -sign * (X @ w)).sum() + l2 * w @ w / 2

    w = np.zeros(201)
    for _ in range(60):
        p = expit(-sign * (X @ w))
        gradient = -X.T @ (sign * p) + l2 * w
        hessian = (X.T * (p * (1 - p))) @ X + l2 * np.eye(201)
        step, size = np.linalg.solve(hessian, gradient), 1.0
        if gradient @ step < 1e-18:
            break
        while cost(w - size * step) > cost(w) - 1e-4 * size * (gradient @ step) and size > 1e-8:
            size /= 2
        w = w - size * step
    minimum = RegularisedMinimum(np.logaddexp(0, -sign * (X @ w)).sum(), w @ w, l2, 200, classes=2)
    return log_evidence(minimum, curvature_from_eigenvalues(np.linalg.eigvalsh(hessian), l2))


def test_evidence_tells_labels_that_mean_something_from_random_ones():
    """Smith & Le 2018, figure 2: below zero at intermediate l2 for informative labels alone, and above for both at weak."""
    ratios = {
        (informative, l2): np.mean([toy(informative, l2, seed).ratio_for_null for seed in range(2)])
        for informative in (True, False)
        for l2 in (1e-3, 30.0, 1e5)
    }
    assert ratios[True, 30.0] < -5
    assert min(ratios[True, 1e-3], ratios[False, 1e-3]) > 20
    assert ratios[False, 30.0] > 5
    assert max(abs(ratios[True, 1e5]), abs(ratios[False, 1e5])) < 0.2


EIGENVALUES = [-2.0, 0.0, 0.5, 1.0, 4.0, 8.0]


def test_the_rule_for_curvature_that_goes_down():
    found = curvature_from_eigenvalues(EIGENVALUES, 1.0)
    assert (found.rule, found.excluded, found.smallest_eigenvalue) == ("at least l2", 3, -2.0)
    assert found.occam == pytest.approx(0.5 * math.log(32), rel=1e-14)
    assert found.effective_parameters == pytest.approx(0 + 3 / 4 + 7 / 8, rel=1e-14)
    assert found == curvature_from_eigenvalues(EIGENVALUES, 1.0, rule="at least l2")
    with pytest.raises(BadInput, match="an eigenvalue of -2, so Laplace's integral does not exist"):
        curvature_from_eigenvalues(EIGENVALUES, 1.0, rule="all")


def test_the_rule_is_a_choice_where_the_integral_exists():
    """Curvature of H below zero, of C above: the posterior is wider than the prior along it."""
    auto, every = (curvature_from_eigenvalues(EIGENVALUES[2:], 1.0, rule=rule) for rule in ("auto", "all"))
    assert (auto.rule, auto.excluded, every.rule, every.excluded) == ("at least l2", 1, "all", 0)
    assert every.occam == pytest.approx(auto.occam + 0.5 * math.log(0.5), rel=1e-14)
    assert every.effective_parameters == pytest.approx(auto.effective_parameters - 1, rel=1e-14)
    convex = curvature_from_eigenvalues(EIGENVALUES[3:], 1.0)
    assert (convex.rule, convex.excluded) == ("all", 0)


@given(eigenvalues=st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=30), l2=st.floats(1e-6, 1e3))
def test_a_log_determinant_gives_the_same(eigenvalues, l2):
    whole = curvature_from_log_determinant(float(np.log(eigenvalues).sum()), l2, parameters=len(eigenvalues))
    listed = curvature_from_eigenvalues(eigenvalues, l2, rule="all")
    assert whole.occam == pytest.approx(listed.occam, rel=1e-9, abs=1e-9)
    assert (whole.rule, whole.excluded, whole.effective_parameters) == ("all", None, None)


def test_the_error_of_a_log_determinant_reaches_the_evidence():
    minimum = RegularisedMinimum(10.0, 2.0, 0.5, samples=8, classes=3)
    exact = log_evidence(minimum, curvature_from_log_determinant(7.0, 0.5, parameters=5))
    loose = log_evidence(minimum, curvature_from_log_determinant(7.0, 0.5, parameters=5, stderr=0.6))
    assert (exact.stderr, loose.stderr, loose.value) == (None, 0.3, exact.value)
    # the evidence moves by the standard error when the log-determinant does
    moved = log_evidence(minimum, curvature_from_log_determinant(7.6, 0.5, parameters=5))
    assert exact.value - moved.value == pytest.approx(loose.stderr, rel=1e-12)
    assert "± 0.3 nats" in str(loose)


def test_the_record_is_json_and_prints():
    minimum = RegularisedMinimum(10.0, 2.0, 1.0, samples=8, classes=3)
    found = log_evidence(minimum, curvature_from_eigenvalues(EIGENVALUES, 1.0))
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["value"] == found.value
    assert told["curvature"]["rule"] == "at least l2"
    assert told["null_loss"] == pytest.approx(8 * math.log(3))
    assert "3 of 6 eigenvalues left out" in str(found)
    assert "for the null model" in str(found)


MINIMUM = {"loss_sum": 1.0, "squared_norm": 1.0, "l2": 1.0, "samples": 10, "classes": 2}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"l2": 0.0}, "l2 is 0.0; the evidence needs a prior"),
        ({"l2": math.inf}, "l2 is inf"),
        ({"loss_sum": math.nan}, "loss_sum is nan"),
        ({"squared_norm": -1.0}, r"squared_norm -1\.0"),
        ({"samples": 0}, "samples is 0"),
        ({"classes": 1}, "classes is 1; the null model guesses among at least 2"),
    ],
    ids=str,
)
def test_refuses_a_minimum_with_a_sentence(change, sentence):
    with pytest.raises(BadInput, match=sentence):
        RegularisedMinimum(**{**MINIMUM, **change})


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: curvature_from_eigenvalues([], 1.0), r"eigenvalues has shape \(0,\)"),
        (lambda: curvature_from_eigenvalues([1.0, math.nan], 1.0), "give a vector of finite numbers"),
        (lambda: curvature_from_eigenvalues([1.0], 0.0), "l2 is 0.0"),
        (lambda: curvature_from_eigenvalues([1.0], 1.0, rule="some"), "rule is 'some'; choose one of auto, all"),
        (lambda: curvature_from_log_determinant(math.nan, 1.0, parameters=2), "log_determinant is nan"),
        (lambda: curvature_from_log_determinant(1.0, 1.0, parameters=0), "parameters is 0"),
        (lambda: curvature_from_log_determinant(1.0, 1.0, parameters=2, stderr=-1.0), r"stderr is -1\.0"),
        (
            lambda: log_evidence(RegularisedMinimum(**MINIMUM), curvature_from_eigenvalues([1.0], 2.0)),
            "l2 1.0 and the cur",
        ),
    ],
)
def test_refuses_with_a_sentence(call, sentence):
    with pytest.raises(BadInput, match=sentence):
        call()
