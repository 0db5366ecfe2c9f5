# Oracles: a quadratic loss with its noise written out as all its corners, minimised over the step by scipy; a loss that
# falls along an ordinary differential equation, solved by scipy for each batch size and fitted as runs would be.
import itertools
import json
import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import minimize_scalar

from gengap.core.errors import BadInput
from gengap.theory.critical_batch import fit_critical_batch
from gengap.theory.noise_prediction import predict_along, predict_cost, predict_from_parts, steps_for_samples

H = np.array([[3.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 0.3]])
W = np.array([1.0, -2.0, 0.5])
ROOT = np.array([[1.0, 0.0, 0.0], [0.7, 2.0, 0.0], [-0.5, 0.1, 1.5]])  # of the covariance of single gradients
G = H @ W


def mean_change(lr, batch):
    """Exact over noise whose corners are ROOT s / sqrt(B), s all vectors of signs: its covariance is Sigma / B."""
    corners = [G + ROOT @ np.array(s) / math.sqrt(batch) for s in itertools.product((-1, 1), repeat=3)]
    return np.mean([0.5 * (W - lr * g) @ H @ (W - lr * g) for g in corners]) - 0.5 * W @ H @ W


@pytest.fixture
def prediction():
    return predict_from_parts(squared_norm=G @ G, curvature=G @ H @ G, noise=np.trace(H @ ROOT @ ROOT.T))


@pytest.mark.parametrize("batch", [1, 2, 30, 1000])
def test_best_step_and_gain_on_a_quadratic(prediction, batch):
    best = minimize_scalar(mean_change, bounds=(0, 3), args=(batch,), method="bounded", options={"xatol": 1e-12})
    assert prediction.lr(batch) == pytest.approx(best.x, rel=1e-6)
    assert prediction.gain(batch) == pytest.approx(-best.fun, rel=1e-9)


def test_the_limits(prediction):
    noise = prediction.noise_scale
    assert prediction.share([noise, 1e12]) == pytest.approx([0.5, 1])
    assert prediction.share(1e-6 * noise) == pytest.approx(1e-6, rel=1e-5)
    assert prediction.lr(1e12) == pytest.approx(G @ G / (G @ H @ G))


def test_the_trade_off(prediction):
    batch = np.array([1.0, 7.0, 1e4])
    samples, steps = prediction.samples(batch), prediction.steps(batch)
    assert (samples - 1) * (steps - 1) == pytest.approx(np.ones(3))
    assert steps_for_samples(samples) == pytest.approx(steps)
    assert steps_for_samples(steps) == pytest.approx(samples)
    # samples over steps, each times its limit, is the batch size
    assert samples / steps * prediction.noise_scale == pytest.approx(batch)


def test_the_noise_scale_along_a_run():
    """The loss falls by L / 10 a step at full gradient and B_noise = 40 / L. Readings of one run predict all others."""

    def noise(loss):
        return 40 / loss

    def run(batch):
        def reached(t, loss):
            return loss[0] - 0.1

        reached.terminal = True
        return solve_ivp(
            lambda t, loss: -0.1 * loss / (1 + noise(loss) / batch),
            (0, 1e7), [4.0], events=reached, rtol=1e-9, atol=1e-12, dense_output=True,
        )  # fmt: skip

    sizes = np.geomspace(4, 4096, 8)
    found = fit_critical_batch(sizes, [batch * run(batch).t[-1] for batch in sizes])
    watched = run(64)
    moments = np.linspace(0, watched.t[-1], 2000)
    predicted = predict_along(moments, noise(watched.sol(moments)[0]), batch_size=64)
    assert predicted.noise_scale == pytest.approx(found.b_crit.value, rel=1e-3)
    # in closed form: the mean of 40 / L over ln L from ln 0.1 to ln 4
    assert predicted.noise_scale == pytest.approx(40 * (10 - 0.25) / math.log(40), rel=1e-3)


def test_a_constant_noise_scale_is_its_own_mean():
    assert predict_along([1, 5, 6], [30.0, 30.0, 30.0], batch_size=8).noise_scale == pytest.approx(30)
    # two readings: weights 1 / (1 + noise / B) = 1/2 and 1/4
    assert predict_along([0, 1], [8.0, 24.0], batch_size=8).noise_scale == pytest.approx((8 / 2 + 24 / 4) / 0.75)


def test_the_record():
    found = predict_cost(120.0, interval=(100.0, math.inf), lr_max=0.5)
    assert str(found) == "critical batch 120 (95 % 100 to inf) from the noise of the gradient"
    assert str(predict_cost(120.0)) == "critical batch 120 from the noise of the gradient"
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (told["interval"], told["gain_max"]) == ([100, None], None)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: predict_cost(0.0), "noise_scale is 0; a prediction needs a positive number"),
        (lambda: predict_cost(math.nan), "noise_scale is nan"),
        (lambda: predict_cost(1.0, lr_max=-1.0), "lr_max is -1; give a positive number"),
        (
            lambda: predict_along([0, 1], [2.0, math.inf], batch_size=8),
            "noise_scales holds a number that is not finite",
        ),
        (lambda: predict_cost(1.0).lr(8), "lr_max is None"),
        (lambda: predict_cost(1.0).gain(8), "gain_max is None"),
        (lambda: predict_cost(1.0).share([8, -8]), "-8 is not above zero"),
        (lambda: predict_from_parts(squared_norm=1.0, curvature=-2.0, noise=1.0), "curvature is -2; where it is not"),
        (lambda: predict_along([1, 1], [2.0, 2.0], batch_size=8), "steps do not ascend"),
        (lambda: predict_along([1], [2.0], batch_size=8), r"steps has shape \(1,\)"),
        (lambda: steps_for_samples([2.0, 1.0]), "samples holds 1 times E_min"),
    ],
)
def test_refuses_with_a_sentence(call, sentence):
    with pytest.raises(BadInput, match=sentence):
        call()
