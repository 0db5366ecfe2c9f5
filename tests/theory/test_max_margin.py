# Oracles: scikit-learn's SVC with a large C on the data and its mirror image (whose intercept is zero) and scipy's SLSQP for
# the margin; plain gradient descent made one by one; the closed form of the flow for one sample, w + e^w = t.
import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import lambertw
from sklearn.svm import SVC

from gengap.core.errors import BadInput
from gengap.theory.max_margin import HardMargin, hard_margin, margin_convergence


def separable(seed, N=20, P=2, gap=0.5):
    rng = np.random.default_rng(seed)
    x, w = rng.normal(size=(N, P)), rng.normal(size=P)
    signs = np.sign(x @ w)
    return x + gap * signs[:, None] * w / np.linalg.norm(w), (signs > 0).astype(int)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e5])
@pytest.mark.parametrize(("N", "P"), [(20, 2), (30, 5), (8, 20)])
def test_margin_of_a_support_vector_machine(N, P, scale):
    x, y = separable(N, N, P)
    found = hard_margin(scale * x, y)
    svc = SVC(kernel="linear", C=1e9, tol=1e-9).fit(np.vstack([x, -x]), np.r_[y, 1 - y])
    np.testing.assert_allclose(scale * found.weights, svc.coef_[0], rtol=1e-4, atol=1e-5 * found.norm * scale)
    z = (2 * y - 1)[:, None] * x
    other = minimize(
        lambda w: w @ w / 2,
        svc.coef_[0] + 0.01,
        jac=lambda w: w,
        constraints={"type": "ineq", "fun": lambda w: z @ w - 1, "jac": lambda w: z},
        method="SLSQP",
        options={"ftol": 1e-14},
    )
    np.testing.assert_allclose(scale * found.weights, other.x, rtol=1e-5, atol=1e-6 * found.norm * scale)
    assert found.margin == pytest.approx((scale * z @ found.weights).min() / np.linalg.norm(found.weights), rel=1e-6)


def test_multipliers_are_those_of_the_dual():
    x, y = separable(3, 30, 5)
    found, signs = hard_margin(x, y), 2 * y - 1
    np.testing.assert_allclose((found.multipliers * signs) @ x, found.weights, rtol=1e-7)
    support = found.multipliers > 0
    assert 2 <= support.sum() <= 6
    np.testing.assert_allclose((signs * (x @ found.weights))[support], 1, rtol=1e-7)
    assert (found.multipliers >= 0).all()
    assert found.multipliers.sum() == pytest.approx(found.norm**2, rel=1e-7)  # strong duality


@pytest.mark.parametrize("seed", range(3))
def test_refuses_what_cannot_be_separated(seed):
    x, y = separable(seed, 50)
    y[0] = 1 - y[0]
    with pytest.raises(BadInput, match="no hyperplane through the origin separates the 50 samples"):
        hard_margin(x, y)
    with pytest.raises(BadInput, match="no hyperplane"):
        margin_convergence([[1.0], [-2.0]], [1, 1])


def test_one_sample_follows_the_closed_form():
    """Flow: dw/dt = lr / (1 + e^w), so w + e^w = lr t + const; the first 10,000 updates stay within half a step of it."""
    found = margin_convergence([[1.0]], [1], updates=1e40, lr=0.5, records=80)
    t, w = found.path.updates, found.path.weights[:, 0]
    late = t > 1e4
    first = int(np.argmax(late)) - 1  # constant from the last update that was made one by one
    constant = w[first] + math.exp(w[first]) - 0.5 * t[first]
    a = 0.5 * t[late] + constant
    # Lambert's W of e^a overflows for large a; its equation w = a - e^w is then solved by iteration
    exact = np.array([a_ - lambertw(math.exp(a_)).real if a_ < 500 else math.log(a_) for a_ in a])
    for _ in range(3):
        exact = np.where(a < 500, exact, np.log(a - exact))
    np.testing.assert_allclose(
        w[late], exact, rtol=1e-5
    )  # `constant` is taken some single updates before the flow begins
    np.testing.assert_allclose(w[late][5:], exact[5:], rtol=1e-7)
    assert constant == pytest.approx(1, abs=4)  # ln t / 4 from the discrete steps
    np.testing.assert_allclose(found.path.losses, np.log1p(np.exp(-w)), rtol=1e-9)
    np.testing.assert_allclose(found.path.margin_gaps, 0, atol=1e-14)
    assert found.inverse_distance is None
    assert found.verdict == "as predicted"
    assert "the direction has arrived" in found.reason


def test_the_flow_goes_where_single_updates_go():
    """30,000 updates one by one, 20,000 of which the function under test integrates."""
    x, y = separable(1, 12)
    found = margin_convergence(x, y, updates=30_000)
    z, w = (2 * y - 1)[:, None] * x, np.zeros(2)
    for _ in range(30_000):
        w += found.lr / len(z) * (1 / (1 + np.exp(z @ w))) @ z
    np.testing.assert_allclose(found.path.weights[-1], w, rtol=1e-5)
    assert found.path.norms[-1] == pytest.approx(np.linalg.norm(w), rel=1e-5)
    angle = math.acos(w @ found.limit.weights / np.linalg.norm(w) * found.limit.margin)
    assert found.path.distances[-1] == pytest.approx(2 * math.sin(angle / 2), rel=1e-3)
    assert found.path.margin_gaps[-1] == pytest.approx(found.limit.margin - (z @ w).min() / np.linalg.norm(w), rel=1e-3)
    assert found.path.losses[-1] == pytest.approx(np.log1p(np.exp(-z @ w)).mean(), rel=1e-4)


@pytest.mark.parametrize(("N", "P"), [(20, 2), (12, 30)], ids=["plane", "more features than samples"])
def test_soudrys_rates(N, P):
    x, y = separable(0, N, P)
    found = margin_convergence(x, y, updates=1e30)
    assert found.verdict == "as predicted"
    assert found.norm.slope.value == pytest.approx(found.limit.norm, rel=0.01)
    assert found.log_loss.slope.value == pytest.approx(-1, abs=0.005)
    assert found.inverse_distance.slope.interval[0] > 0
    assert found.inverse_gap.slope.interval[0] > 0
    gains = np.diff(found.path.norms[-10:]) / np.diff(np.log(found.path.updates[-10:]))
    np.testing.assert_allclose(gains, found.limit.norm, rtol=0.01)
    assert (np.diff(found.path.losses) < 0).all()


def test_where_it_starts_does_not_matter_in_the_end():
    x, y = separable(2)
    ends = [margin_convergence(x, y, updates=1e30, start=start).path for start in ([0.0, 0.0], [3.0, -8.0])]
    for path in ends:
        assert path.distances[-1] < 0.03
    assert ends[0].distances[0] != pytest.approx(ends[1].distances[0], rel=0.1)


def test_says_when_it_is_too_early():
    x, y = separable(4, gap=0.02)
    found = margin_convergence(x, y, updates=2000)
    assert found.verdict == "not there yet"
    assert str(found).startswith("not there yet: the norm gains")
    assert found.fitted_from == pytest.approx(math.sqrt(2000))


def test_norm_of_the_limit():
    assert HardMargin(np.array([3.0, 4.0]), 0.2, np.array([1.0])).norm == pytest.approx(5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"lr": 1e9}, "lr is 1000000000.0; the loss has curvatures up to"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"updates": 10}, "updates is 10 and records 60"),
        ({"records": 3}, "records 3; give 100 to 1e100, and at least 12"),
        ({"fit_from": 1e12}, "fit_from is 1e.12, after which 1 moments were recorded"),
        ({"start": [0.0]}, r"start has shape \(1,\)"),
    ],
)
def test_refuses_with_a_sentence(change, sentence):
    x, y = separable(0)
    with pytest.raises(BadInput, match=sentence):
        margin_convergence(x, y, **change)
