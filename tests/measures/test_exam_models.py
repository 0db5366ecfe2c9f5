# Oracles: central differences of losses for gradients and of gradients for products; a dense matrix made of products; copies
# of all that a user can see, compared bit by bit. Every measure takes every model that a user may bring alive.
import copy
import json

import pytest
import torch
from exam_models import KINDS, live
from test_exam import MEASURES, states

from gengap.core.errors import BadInput
from gengap.measures.curvature.operators import gauss_newton, hessian
from gengap.measures.session import measuring
from gengap.measures.trees import ravel, unravel
from gengap.problem.from_model import loss_function

STEP = 1e-5


def brought(name, chunk=7):
    kind = KINDS[name]
    model = live(kind)
    loss = loss_function(model, kind.loss, kind.data(), **{"batch_size": chunk, **kind.options})
    return kind, model, loss, dict(model.named_parameters())


def along(kind, session, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(session.weights, dtype=torch.float64, generator=generator)


# Recomputed statistics follow the weights, and derivatives hold them fixed: see the test below.
@pytest.mark.parametrize("name", [name for name in KINDS if name != "batch norm, recompute"])
def test_gradients_and_products_are_differences(name):
    kind, _, loss, params = brought(name)
    with measuring(loss, params, passes="product", only=kind.only) as session:
        w, v = ravel(session.params), along(kind, session, 1)
        ahead, behind = (unravel(w + sign * STEP * v, session.params) for sign in (1, -1))
        slope = (session.loss.value(ahead) - session.loss.value(behind)) / (2 * STEP)
        gradient = ravel(session.loss.value_and_grad(session.params)[1])
        assert float(gradient @ v) == pytest.approx(slope, rel=1e-6, abs=1e-8)
        bent = ravel(session.loss.value_and_grad(ahead)[1]) - ravel(session.loss.value_and_grad(behind)[1])
        torch.testing.assert_close(hessian(session)(v), bent / (2 * STEP), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", KINDS)
def test_the_gauss_newton_matrix_is_symmetric_and_positive_semi_definite(name):
    kind, _, loss, params = brought(name)
    with measuring(loss, params, passes="product", only=kind.only) as session:
        outer = gauss_newton(session)
        few = torch.stack([along(kind, session, seed) for seed in range(6)])
        products = torch.stack([outer(v) for v in few]) @ few.T
        assert products.abs().max() > 1e-3
        torch.testing.assert_close(products, products.T, rtol=1e-9, atol=1e-12)
        assert torch.linalg.eigvalsh(products)[0] > -1e-12


def test_derivatives_hold_recomputed_statistics_where_they_are():
    kind, model, loss, params = brought("batch norm, recompute", chunk=None)
    twin = copy.deepcopy(model).eval()
    inputs, _ = kind.data()
    twin[1].train()
    twin[1].momentum = 1.0
    with torch.no_grad():
        twin(inputs)
    held = loss_function(twin.eval(), kind.loss, kind.data())
    value, gradient = loss.value_and_grad(params)
    same, exact = held.value_and_grad(params)
    assert value == pytest.approx(same, rel=1e-12)
    assert all(torch.allclose(gradient[n], exact[n], rtol=1e-10, atol=1e-13) for n in params)


BROUGHT = ("shuffling loader", "batch norm, recompute", "padded transformer", "language model", "own loss")
SINGLE = {"noise_scale", "curvature_noise_scale", "covariance_eigenvalues"}  # they look at single samples


@pytest.mark.parametrize("name", BROUGHT)
def test_every_measure_takes_a_live_model_and_leaves_it_bit_for_bit(name):
    kind, model, loss, params = brought(name)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    flags, at_start = [p.requires_grad for p in model.parameters()], states()
    for title, measure in MEASURES.items():
        if kind.coupled and title in SINGLE:
            with pytest.raises(BadInput, match="statistics"):
                measure(loss, params)
            continue
        found = measure(loss, params)
        assert json.loads(json.dumps(found.to_dict(), allow_nan=False)), title
        assert str(found), title
        assert states() == at_start, title
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert all(p.grad.eq(1).all() for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(module.training for module in model.modules())
