# Oracles: the dense derivatives of all outputs by torch.func; models linear in their weights, whose second moments are those
# of Gaussian features with known mean and covariance.
import json
import math

import pytest
import torch
from torch import nn

import gengap
from gengap.core.errors import BadInput
from gengap.core.seeds import stream
from gengap.measures.output_derivatives import output_moments
from gengap.measures.prior_plausibility import prior_plausibility
from gengap.measures.session import measuring


def generator(name):
    return torch.Generator().manual_seed(stream(0, name))


class Parts(nn.Module):
    """y = a.x1 + factor b.x2, in two tensors."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(6)), nn.Parameter(torch.zeros(6))
        self.factor = factor

    def forward(self, x):
        return (x[:, :6] @ self.a + self.factor * x[:, 6:] @ self.b)[:, None]


def linear_problem(shift=0.0, mix=0.0, factor=1.0, N=3000):
    """Features with covariance (1 - mix) 1 + mix 11' and mean `shift` each."""
    rng = generator("features")
    x = (1 - mix) ** 0.5 * torch.randn(N, 12, generator=rng) + mix**0.5 * torch.randn(N, 1, generator=rng) + shift
    return gengap.Problem(
        model=lambda: Parts(factor), loss="mean_square", train=(x, x[:, :1]), test=(x, x[:, :1]), name="linear"
    )


def within(estimate, truth, power):
    """Five standard errors of five initialisations, which must be small enough to tell."""
    assert abs(estimate.value - truth) < 5 * estimate.stderr < power


def test_white_features_are_plausible():
    found = prior_plausibility(linear_problem(), samples=1500, probes=32, seeds=5)
    assert found.verdict == "plausible"
    within(found.whole.mean_square, 1, 0.2)
    within(found.whole.mean_share, 0, 0.02)
    within(found.whole.unequal, 0, 0.1)
    within(found.whole.off_diagonal, 0, 0.1)
    within(found.directions, 12, 2)
    assert found.whole.weights == 12


@pytest.mark.parametrize(("shift", "mix"), [(0.5, 0.0), (-0.6, 0.2)])
def test_second_moments_of_known_features(shift, mix):
    """M = (1 - mix) 1 + (mix + shift^2) 11' has its trace, its norm and its diagonal in closed form."""
    found = prior_plausibility(linear_problem(shift, mix), samples=800, probes=16, seeds=5)
    square, other = 1 + shift**2, mix + shift**2
    norm = 12 * square**2 + 12 * 11 * other**2
    within(found.whole.mean_square, square, 0.2 * square)
    within(found.whole.mean_share, shift**2 / square, 0.1)
    within(found.whole.off_diagonal, 1 - 12 * square**2 / norm, 0.35)
    within(found.directions, (12 * square) ** 2 / norm, 3)
    assert found.verdict == "not plausible"


def test_a_tensor_with_more_to_say():
    found = prior_plausibility(linear_problem(factor=3.0), samples=500, probes=8, seeds=4)
    assert abs(math.log(found.scale_ratio.value / 9)) < 5 * found.scale_ratio.stderr < 0.5
    assert found.layers["b"].mean_square.value == pytest.approx(9, rel=0.2)
    assert found.verdict == "not plausible"
    assert "mean squares differ between weight tensors by a factor of" in found.reason


def test_weights_of_one_tensor_with_unequal_say():
    """Independent features with standard deviations 1 to 12: all other conditions are met."""
    scales = torch.arange(1.0, 13.0)
    x = scales * torch.randn(3000, 12, generator=generator("features"))

    def model():
        return nn.Linear(12, 1, bias=False)

    problem = gengap.Problem(model=model, loss="mean_square", train=(x, x[:, :1]), test=(x, x[:, :1]), name="scaled")
    found = prior_plausibility(problem, samples=1500, probes=16, seeds=5)
    squares = scales**2
    within(found.whole.unequal, float(squares.var(unbiased=False) / squares.mean() ** 2), 0.3)
    assert found.verdict == "not plausible"
    assert "those of single weights have a relative variance of" in found.reason


def dense(model, x):
    """The derivatives of every output by every weight, shape (outputs, P)."""
    params = {name: p.detach() for name, p in model.named_parameters()}
    rows = torch.func.jacrev(lambda p: torch.func.functional_call(model, p, (x,)).reshape(-1))(params)
    return torch.cat([j.reshape(j.shape[0], -1) for j in rows.values()], dim=1)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_products_are_those_of_the_dense_derivatives(batch_norm):
    def model():
        middle = [nn.BatchNorm1d(7, track_running_stats=False)] if batch_norm else []
        return nn.Sequential(nn.Linear(5, 7), *middle, nn.Tanh(), nn.Linear(7, 3))

    rng = generator("inputs")
    x, y = torch.randn(20, 5, generator=rng, dtype=torch.float64), torch.randint(3, (20,), generator=rng)
    problem = gengap.Problem(model=model, loss="cross_entropy", train=(x, y), test=(x, y))
    net = problem.model(seed=1, dtype=torch.float64)
    params = {name: p.detach() for name, p in net.named_parameters()}
    J = dense(net.train(), x)
    n, P = J.shape
    z = torch.randn(P, generator=rng, dtype=torch.float64)
    with measuring(problem.loss_function("train", batch_norm="batch"), params, passes="product") as session:
        found = output_moments(session, "test", directions=[z, 2 * z], probes=4, seed=0)
        draws = torch.stack([
            output_moments(session, "test", directions=[], probes=1, seed=k).squares for k in range(100)
        ])
    torch.testing.assert_close(found.mean, J.mean(0), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.images[0], J.T @ (J @ z) / n, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.images[1], 2 * found.images[0])
    errors = draws.std(0) / 10
    assert ((draws.mean(0) - J.square().mean(0)).abs() <= 5 * errors + 1e-12).all()
    assert errors.mean() < 0.2 * J.square().mean()


def test_a_bias_before_batch_norm_has_no_say():
    rng = generator("inputs")
    x, y = torch.randn(40, 5, generator=rng), torch.randint(3, (40,), generator=rng)

    def model():
        return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 3))

    heard = []
    problem = gengap.Problem(model=model, loss="cross_entropy", train=(x, y), test=(x, y))
    found = prior_plausibility(problem, seeds=2, probes=4, listen=heard.append)
    assert found.verdict == "not plausible"
    assert found.reason.startswith("the outputs do not change with 0.bias, the mean derivative")
    assert [event.done for event in heard] == [1, 2]
    assert list(found.layers) == ["0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"]
    assert json.loads(json.dumps(found.to_dict()))["layers"]["3.bias"]["weights"] == 3
    again = prior_plausibility(problem, seeds=2, probes=4)
    assert again.whole == found.whole
    assert str(found).startswith("not plausible: ")


def test_refuses_with_a_sentence():
    problem = linear_problem(N=50)
    with pytest.raises(
        BadInput, match="seeds is 1, probes 32 and samples 50; give at least 2, 2, and from 4 to the 50"
    ):
        prior_plausibility(problem, seeds=1)
    with pytest.raises(BadInput, match="samples 51"):
        prior_plausibility(problem, samples=51)
    with pytest.raises(BadInput, match="no output of the fresh network changes with any weight"):
        prior_plausibility(dead_problem(), seeds=2)


def dead_problem():
    x = torch.randn(20, 12, generator=generator("features"))

    class Dead(Parts):
        def forward(self, x):
            return super().forward(0 * x)

    return gengap.Problem(model=Dead, loss="mean_square", train=(x, x[:, :1]), test=(x, x[:, :1]))
