# Oracles: Bayesian linear regression (the marginal likelihood is a Gaussian density of scipy), quadratic losses with a known
# spectrum, scikit-learn's logistic regression with numpy's closed-form Hessian, and the published shape of the evidence
# of Smith & Le's toy task.
import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression
from torch import nn

import gengap
from gengap.core.errors import BadInput
from gengap.core.estimate import t_quantile
from gengap.core.events import silent
from gengap.measures.curvature.operators import Dense
from gengap.measures.evidence.deflation import affordable
from gengap.measures.evidence.log_evidence import log_evidence
from gengap.measures.evidence.spectrum import Sampled

F64 = torch.float64


def regression(N=30, P=6, l2=0.7):
    """Inputs, labels with unit noise, and the posterior mean, which is the minimum of C."""
    rng = np.random.default_rng(1)
    X = rng.standard_normal((N, P))
    y = X @ rng.standard_normal(P) + rng.standard_normal(N)
    w = np.linalg.solve(X.T @ X + l2 * np.eye(P), X.T @ y)
    return X, y, w


def mean_loss(X, y):
    """Mean negative log-likelihood of a label with unit noise."""
    x, t = torch.tensor(X), torch.tensor(y)
    return lambda w: 0.5 * (t - x @ w).square().mean() + 0.5 * math.log(2 * math.pi)


def marginal(X, y, l2):
    return stats.multivariate_normal(np.zeros(len(y)), np.eye(len(y)) + X @ X.T / l2).logpdf(y)


@pytest.mark.parametrize("l2", [0.01, 0.7, 50.0])
def test_bayesian_linear_regression(l2):
    X, y, w = regression(l2=l2)
    found = log_evidence(mean_loss(X, y), torch.tensor(w), l2=l2, labels=len(y))
    row = found.rows[0]
    assert row.evidence.value == pytest.approx(marginal(X, y, l2), rel=1e-12)
    assert row.at_minimum
    assert row.newton_drop < 1e-20
    assert (found.method, row.evidence.stderr, row.truncation) == ("exact", None, None)
    assert (row.evidence.ratio_for_null, found.classes) == (None, None)
    h = np.linalg.eigvalsh(X.T @ X)
    assert row.evidence.curvature.effective_parameters == pytest.approx(np.sum(h / (h + l2)))
    assert found.eigenvalue_range == pytest.approx((h[0], h[-1]))


@pytest.mark.parametrize("method", ["exact", "lanczos"])
def test_a_point_that_is_no_minimum_is_told_by_how_much(method):
    X, y, w = regression(l2=0.7)
    away = w + 0.05 * np.arange(6)
    cost = lambda v, l2: 0.5 * np.sum((y - X @ v) ** 2) + 0.5 * l2 * v @ v  # noqa: E731
    found = log_evidence(mean_loss(X, y), torch.tensor(away), l2=[0.7, 3.0], labels=30, method=method, steps=6)
    for row, l2 in zip(found.rows, (0.7, 3.0), strict=True):
        best = np.linalg.solve(X.T @ X + l2 * np.eye(6), X.T @ y)
        assert row.newton_drop == pytest.approx(cost(away, l2) - cost(best, l2), rel=1e-9)
        slope = X.T @ (X @ away - y) + l2 * away
        assert row.gradient_norm == pytest.approx(np.linalg.norm(slope), rel=1e-10)
        assert not row.at_minimum
    assert "NOT A MINIMUM of C: a Newton step would lower C by" in str(found)


def test_rescaling_the_weights_with_their_prior_changes_nothing():
    X, y, w = regression(l2=0.7)
    loss = mean_loss(X, y)
    plain = log_evidence(loss, torch.tensor(w), l2=0.7, labels=30).rows[0].evidence
    scaled = log_evidence(lambda v: loss(v / 8), 8 * torch.tensor(w), l2=0.7 / 64, labels=30).rows[0].evidence
    assert scaled.value == pytest.approx(plain.value, rel=1e-12)
    assert scaled.occam == pytest.approx(plain.occam, rel=1e-12)


def spectrum(values):
    """A quadratic mean loss over 10 labels whose Hessian of the sum has these eigenvalues, about its minimum at 1."""
    P = len(values)
    basis = torch.linalg.qr(torch.randn(P, P, generator=torch.Generator().manual_seed(0), dtype=F64)).Q
    matrix = basis @ torch.diag(torch.tensor(values, dtype=F64)) @ basis.T / 10

    def loss(w):
        return 0.3 + 0.5 * (w - 1) @ matrix @ (w - 1)

    return loss, torch.ones(P, dtype=F64)


def test_lanczos_estimates_the_sum_for_every_prior_at_once():
    values = np.concatenate([np.geomspace(0.1, 50, 270), np.zeros(30)])
    loss, w = spectrum(values)
    priors = [0.3, 1.0, 3.0]
    found = log_evidence(loss, w, l2=priors, labels=10, method="lanczos", steps=30, starts=30)
    assert found.products <= 40 + 30 * 30 + 3 * 20
    for row, l2 in zip(found.rows, priors, strict=True):
        truth, effective = 0.5 * np.log1p(values / l2).sum(), (values / (values + l2)).sum()
        parts = row.evidence
        assert parts.stderr < 0.02 * truth
        assert abs(parts.occam - truth) < 5 * parts.stderr
        assert row.truncation < 0.1 * parts.stderr
        assert parts.curvature.effective_stderr < 0.02 * effective
        assert abs(parts.curvature.effective_parameters - effective) < 5 * parts.curvature.effective_stderr
        assert parts.value == pytest.approx(-(3 + l2 * 300 / 2 + parts.occam))
        assert parts.curvature.rule == "all"
    assert found.eigenvalue_range == pytest.approx((0, 50), abs=0.01)


def outlying(dtype, seed):
    """Ten outliers, a decaying bulk and many zeros, as a trained network has them; l2 far below the outliers."""
    values = np.concatenate([np.logspace(5, 3, 10), np.logspace(1, -4, 90), np.zeros(300)])
    rng = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(400, 400, dtype=torch.float64, generator=rng))
    matrix = ((turn * torch.as_tensor(values)) @ turn.T).to(dtype)
    return values, Dense((matrix + matrix.T) / 2)


@pytest.mark.parametrize(("dtype", "priors"), [(torch.float64, (1e-2, 1.0)), (torch.float32, (1.0, 10.0))])
def test_outliers_are_taken_out_one_by_one(dtype, priors):
    """The logarithm of the determinant as a sum over known eigenvalues; beside it the estimate with the outliers left in."""
    off = {0: [], 40: []}
    for seed in range(6):
        values, operator = outlying(dtype, seed)
        for directions, misses in off.items():
            spectrum = Sampled(
                operator, min(priors), steps=60, starts=8, directions=directions, seed=seed, listen=silent
            )
            assert (spectrum.known >= 10) == (directions > 0)
            assert spectrum.range[1] == pytest.approx(1e5, rel=1e-5)
            for l2 in priors:
                exact = 0.5 * np.log1p(values / l2).sum()
                determined = (values / (values + l2)).sum()
                found, truncation = spectrum.curvature(l2, "auto")
                misses.append(found.occam - exact)
                if directions:
                    allowed = 5 * t_quantile(7) / 1.96 * found.stderr + truncation + 0.05
                    assert abs(found.occam - exact) < allowed
                    assert found.effective_parameters == pytest.approx(
                        determined, abs=5 * found.effective_stderr + 0.05
                    )
    assert np.std(off[40]) < 0.5 * np.std(off[0])


def test_few_weights_and_little_memory_look_for_fewer_directions():
    assert affordable(1_000_000, 4, 4 * 2**30) == 40
    assert affordable(30, 4, 4 * 2**30) == 15
    assert affordable(100_000_000, 4, 4 * 2**30) == 1
    assert affordable(1_000_000_000, 4, 4 * 2**30) == 0


@pytest.mark.parametrize("steps", [4, 8, 30])
def test_too_few_lanczos_steps_are_bounded(steps):
    values = np.geomspace(1e-6, 1e3, 150)
    loss, w = spectrum(values)
    row = log_evidence(loss, w, l2=1e-4, labels=10, method="lanczos", steps=steps, starts=6).rows[0]
    truth = 0.5 * np.log1p(values / 1e-4).sum()
    assert row.truncation > 20
    assert abs(row.evidence.occam - truth) < row.truncation + 5 * row.evidence.stderr
    assert "more for want of Lanczos steps" in str(row)


@pytest.mark.parametrize("method", ["exact", "lanczos"])
def test_where_the_loss_curves_down(method):
    values = np.repeat([-2.0, -0.1, 0.0, 3.0, 9.0, 40.0], 20)
    loss, w = spectrum(values)
    common = {"labels": 10, "method": method, "steps": 8, "starts": 100}
    found = log_evidence(loss, w, l2=[0.5, 4.0], **common)
    for row, l2 in zip(found.rows, (0.5, 4.0), strict=True):
        truth = 0.5 * np.log1p(values[values >= 0] / l2).sum()
        error = row.evidence.stderr or 1e-9
        assert error < 0.02 * truth
        assert abs(row.evidence.occam - truth) < 5 * error
        assert row.evidence.curvature.rule == "at least l2"
        assert row.evidence.curvature.smallest_eigenvalue == pytest.approx(l2 - 2)
    assert not found.rows[0].at_minimum
    assert "NOT A MINIMUM of C: C curves down there (eigenvalue -1.5)" in str(found.rows[0])
    with pytest.raises(BadInput, match="Laplace's integral does not exist"):
        log_evidence(loss, w, l2=0.5, rule="all", **common)
    every = log_evidence(loss, w, l2=4.0, rule="all", **common).rows[0].evidence
    assert abs(every.occam - 0.5 * np.log1p(values / 4).sum()) < 5 * (every.stderr or 1e-9)


def test_a_prior_below_rounding_is_told():
    loss, w = spectrum(np.array([0.0, 1.0, 100.0]))
    exact = log_evidence(loss, w, l2=[1e-13, 1e-6], labels=10)
    assert [row.resolved for row in exact.rows] == [False, True]
    assert "l2 is below the rounding of the eigenvalues" in str(exact.rows[0])


# classifiers


def toy(which, seed):
    problem = gengap.load(f"gaussian-{which}", seed=seed)
    X, y = (t.numpy() for t in problem.train)
    return problem, np.hstack([X.reshape(200, -1), np.ones((200, 1))]).astype(np.float64), y


def minimum(design, y, l2):
    """The minimum of C by another library; every weight is regularised, the bias too."""
    model = LogisticRegression(C=1 / l2, fit_intercept=False, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    w = model.fit(design, y).coef_[0]
    return {"1.weight": torch.tensor(w[None, :-1]), "1.bias": torch.tensor(w[-1:])}, w


def closed_form(design, y, w, l2):
    """E of logistic regression, from numpy."""
    z = design @ w
    p = 1 / (1 + np.exp(-z))
    H = np.sum(np.logaddexp(0, z) - y * z)
    bend = design.T @ (design * (p * (1 - p))[:, None]) + l2 * np.eye(len(w))
    occam = 0.5 * (np.linalg.slogdet(bend)[1] - len(w) * math.log(l2))
    return H + l2 * w @ w / 2 + occam - len(y) * math.log(2)


PRIORS = [1e3, 1e2, 32.0, 10.0, 1e-2]
# E for these priors, mean of 5 seeds, computed for the same task by an independent program; and the scatter over seeds
EXPECTED = {"informative": [-2.49, -9.26, -11.25, -10.84, 24.64], "random": [0.06, 4.79, 13.5, 25.55, 79.73]}
SCATTER = np.array([0.45, 2.1, 3.4, 4.9, 8.0])


@pytest.mark.parametrize("which", ["informative", "random"])
def test_the_toy_task_of_smith_and_le(which):
    ratios = []
    for seed in range(2):
        problem, design, y = toy(which, seed)
        loss = problem.loss_function("train")
        for l2 in PRIORS:
            params, w = minimum(design, y, l2)
            found = log_evidence(loss, params, l2=l2)
            row = found.rows[0]
            assert (found.labels, found.classes, row.at_minimum) == (200, 2, True)
            assert row.evidence.ratio_for_null == pytest.approx(closed_form(design, y, w, l2), abs=1e-6)
            ratios.append(row.evidence.ratio_for_null)
    E = np.reshape(ratios, (2, len(PRIORS))).mean(0)
    assert np.all(np.abs(E - EXPECTED[which]) < 3 * SCATTER * math.sqrt(1 / 2 + 1 / 5))
    if which == "informative":
        assert min(E) == pytest.approx(-11, abs=3)
        assert PRIORS[int(E.argmin())] in {100.0, 32.0, 10.0}
        assert E[-1] > 0
    else:
        assert min(ratios) > -1


def made(outputs, loss, targets, inputs=4):
    """A problem with a linear network, and its weights."""
    x = torch.randn(len(targets), inputs, generator=torch.Generator().manual_seed(0))
    problem = gengap.Problem(model=outputs, loss=loss, train=(x, targets), test=(x, targets), name="made")
    return problem.loss_function("train"), {n: p.detach() for n, p in problem.model(0).named_parameters()}


class Positions(nn.Module):
    """Three classes at each of five positions."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 15)

    def forward(self, x):
        return self.layer(x).view(-1, 3, 5)


RNG = torch.Generator().manual_seed(3)
CASES = {
    "softmax": (lambda: nn.Linear(4, 3), "cross_entropy", torch.randint(3, (12,), generator=RNG), 12, 3),
    "two classes": (lambda: nn.Linear(4, 2), "cross_entropy", torch.randint(2, (12,), generator=RNG), 12, 2),
    "shares": (lambda: nn.Linear(4, 3), "cross_entropy", torch.full((12, 3), 1 / 3), 12, 3),
    "positions": (Positions, "cross_entropy", torch.randint(3, (12, 5), generator=RNG), 60, 3),
    "logit": (lambda: nn.Linear(4, 1), "binary_cross_entropy", torch.randint(2, (12,), generator=RNG), 12, 2),
    "two logits": (lambda: nn.Linear(4, 2), "binary_cross_entropy", torch.ones(12, 2), 24, 2),
    "square": (lambda: nn.Linear(4, 2), "mean_square", torch.ones(12, 2), 12, None),
    "of the user": (
        lambda: nn.Linear(4, 3),
        lambda o, t: nn.functional.nll_loss(o.log_softmax(1), t),
        torch.randint(3, (12,), generator=RNG),
        12,
        3,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_finds_labels_and_classes(case):
    *problem, labels, classes = CASES[case]
    loss, params = made(*problem)
    found = log_evidence(loss, params, l2=2.0)
    assert (found.labels, found.classes) == (labels, classes)
    parts = found.rows[0].evidence
    assert parts.loss_sum == pytest.approx(labels * loss.value({n: p.double() for n, p in params.items()}), rel=1e-6)
    assert (parts.null_loss is None) == (classes is None)
    told = log_evidence(loss, params, l2=2.0, labels=7, classes=5).rows[0].evidence
    assert told.null_loss == pytest.approx(7 * math.log(5))


def test_conditions_weights_and_json():
    loss, params = made(*CASES["softmax"][:3])
    before = {n: p.clone() for n, p in params.items()}
    told = []
    found = log_evidence(loss, params, l2=[1.0, 2.0], only="weight", listen=told.append)
    assert (found.conditions.dtype, found.conditions.weights, found.products) == ("float64", 12, 12)
    assert [event.done for event in told] == list(range(1, 13))
    assert all(torch.equal(params[n], before[n]) and params[n].dtype == torch.float32 for n in before)
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [row["l2"] for row in document["rows"]] == [1.0, 2.0]
    assert document["data"] == "train"
    assert found.best is max(found.rows, key=lambda row: row.evidence.value)
    sampled = log_evidence(loss, params, l2=1.0, method="lanczos")
    assert sampled.conditions.dtype == "float32"
    assert abs(sampled.rows[0].evidence.occam - log_evidence(loss, params, l2=1.0).rows[0].evidence.occam) < (
        5 * sampled.rows[0].evidence.stderr + 1e-3
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"l2": 0.0}, "l2 is 0.0; the evidence needs a prior"),
        ({"l2": []}, "l2 holds no number"),
        ({"l2": [1.0, math.nan]}, "l2 is nan"),
        ({"labels": None}, "a plain function does not say over how many labels it is the mean; give labels=N"),
        ({"labels": 0}, "labels is 0"),
        ({"classes": 1}, "classes 1; give at least 1 label and 2 classes"),
        ({"method": "cholesky"}, "method is 'cholesky'; choose one of auto, exact, lanczos"),
        ({"rule": "some"}, "rule is 'some'"),
        ({"steps": 3}, "steps is 3; give a whole number of at least 4"),
        ({"starts": 1}, "starts is 1; give a whole number of at least 2"),
    ],
)
def test_refuses_with_a_sentence(options, sentence):
    X, y, w = regression()
    with pytest.raises(BadInput, match=sentence):
        log_evidence(mean_loss(X, y), torch.tensor(w), **{"l2": 1.0, "labels": 30, **options})


def test_a_product_that_is_not_finite():
    with pytest.raises(FloatingPointError, match="is not finite; look for overflow"):
        log_evidence(lambda w: (w.sum() - 3).abs().pow(1.5), torch.ones(3, dtype=F64), l2=1.0, labels=4)
