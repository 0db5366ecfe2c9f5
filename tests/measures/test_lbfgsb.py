# Oracle: scipy.optimize.minimize, whose points are compared bit by bit; and a numpy formula for the objective.
import numpy as np
import pytest
from scipy.optimize import Bounds, minimize

from gengap.measures.sharpness import lbfgsb as module
from gengap.measures.sharpness.lbfgsb import lbfgsb


def wavy(size, seed, definite):
    """A coupled quadratic with waves, its centre, and its box."""
    rng = np.random.default_rng(seed)
    root, slope, centre = rng.standard_normal((size, size)), rng.standard_normal(size), rng.standard_normal(size)
    matrix = root @ root.T / size if definite else (root + root.T) / 2

    def objective(x):
        z = x - centre
        return float(0.5 * z @ matrix @ z + slope @ z + np.cos(3 * x).sum()), matrix @ z + slope - 3 * np.sin(3 * x)

    half = 0.7 * (np.abs(centre) + 1)
    return objective, centre, centre - half, centre + half


def remembering(objective):
    seen = []

    def asked(x):
        seen.append(x.copy())
        return objective(x)

    return asked, seen


@pytest.mark.parametrize("iterations", [1, 10, 30])
@pytest.mark.parametrize("definite", [True, False])
@pytest.mark.parametrize("size", [1, 3, 50])
def test_asks_for_the_same_points_as_scipy_in_every_bit(size, definite, iterations):
    for seed in range(2):
        objective, start, lower, upper = wavy(size, seed, definite)
        ours, asked = remembering(objective)
        done = lbfgsb(ours, start, lower, upper, iterations=iterations)
        theirs, expected = remembering(objective)
        options = {"maxiter": iterations, "maxcor": 10, "ftol": 0.0, "gtol": 0.0}
        found = minimize(theirs, start, jac=True, method="L-BFGS-B", bounds=Bounds(lower, upper), options=options)
        assert done == found.nit
        assert len(asked) == len(expected)
        assert all(np.array_equal(a, b) for a, b in zip(asked, expected, strict=True))


def test_an_unknown_version_of_scipy_is_used_by_its_public_function(monkeypatch):
    objective, start, lower, upper = wavy(20, 0, definite=False)
    ours, asked = remembering(objective)
    known = lbfgsb(ours, start, lower, upper, iterations=10)
    module.known_routine.cache_clear()
    monkeypatch.setattr(module.scipy, "__version__", "9.0.1rc2")
    called = []
    monkeypatch.setattr(
        module, "minimize", lambda *a, **k: (called.append(k["options"]["maxiter"]), minimize(*a, **k))[1]
    )
    theirs, expected = remembering(objective)
    assert lbfgsb(theirs, start, lower, upper, iterations=10) == known
    module.known_routine.cache_clear()
    assert called == [10]
    assert all(np.array_equal(a, b) for a, b in zip(asked, expected, strict=True))


def test_this_version_of_scipy_is_known():
    """Where this fails, look at the routine's interface in the new version, and at the test above."""
    assert module.known_routine() is not None


def test_a_start_outside_is_moved_into_the_box_and_not_changed():
    start = np.array([5.0, -5.0])
    asked, seen = remembering(lambda x: (float(x @ x), 2 * x))
    lbfgsb(asked, start, np.array([-1.0, -1.0]), np.array([1.0, 1.0]), iterations=3)
    assert seen[0].tolist() == [1, -1]
    assert start.tolist() == [5, -5]
