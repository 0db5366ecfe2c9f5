"""Branches of a run. Oracle: the same run and branch as plain torch loops in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gengap
from gengap.data.order import permutation
from gengap.exploration import branching
from gengap.exploration.branching import critical_batch
from gengap.store.store import Store

N = 32


@pytest.fixture(scope="module")
def problem() -> gengap.Problem:
    torch.manual_seed(0)
    inputs = torch.randn(N, 5, dtype=torch.float64)
    targets = (inputs[:, 0] + 0.5 * torch.randn(N, dtype=torch.float64) > 0).long()
    return gengap.Problem(
        model=lambda: nn.Linear(5, 2),
        loss="cross_entropy",
        train=(inputs, targets),
        test=(inputs, targets),
        name="line",
    )


RECIPE = gengap.Recipe(lr=0.1, momentum=0.9, batch_size=8, budget={"epochs": 4}, dtype="float64", seed=3)


def by_hand(problem: gengap.Problem, before: int, size: int, lr: float, steps: int) -> float:
    """The run for some updates, then whole batches, with one optimizer throughout."""
    inputs, targets = problem.samples("train").inputs, problem.samples("train").targets
    model = problem.model(3, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    batches = [order for epoch in range(4) for order in permutation(3, epoch, N).split(8)][:before]
    batches += [torch.arange(N)[:size]] * steps
    for i, rows in enumerate(batches):
        if i == before:
            optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        F.cross_entropy(model(inputs[rows]), targets[rows]).backward()
        optimizer.step()
    return float(F.cross_entropy(model(inputs), targets).detach())


def test_a_branch_goes_on_from_the_run_with_its_memory_and_the_scaled_rate(problem: gengap.Problem) -> None:
    found = critical_batch(
        problem, RECIPE, at=[0.5], batch_sizes=[N], rule="linear", branch_samples=2 * N, seeds=1, noise_samples=0
    )
    [point] = found.points
    assert (point.step, point.samples, point.lr) == (8, 64, 0.1)
    whole = point.crossing.sizes[-1]
    assert whole.batch_size == N
    assert whole.loss.value == pytest.approx(by_hand(problem, 8, N, 0.1 * N / 8, 2), rel=1e-9)
    assert found.memory


def test_the_square_root_is_the_rule_of_adaptive_steps(problem: gengap.Problem) -> None:
    recipe = RECIPE.changed(optimizer="adam", momentum=0.0, lr=1e-3)
    assert (
        branching.Branching(
            problem, recipe, at=[1.0], batch_sizes=None, rule=None, branch_samples=None, seeds=1, device="cpu"
        ).rule.name
        == "sqrt"
    )


def test_what_is_there_is_not_trained_again(problem: gengap.Problem, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = branching.train

    def counted(*args, **kwargs):
        made.append(kwargs.get("start"))
        return original(*args, **kwargs)

    monkeypatch.setattr(branching, "train", counted)
    how = {"at": [0.25, 1.0], "batch_sizes": [16, 32], "branch_samples": 64, "seeds": 2, "out": tmp_path}
    first = critical_batch(problem, RECIPE, **how)
    assert sum(start is not None for start in made) == 2 * 3 * 2
    made.clear()
    again = critical_batch(problem, RECIPE, **how)
    assert [start for start in made if start is not None] == []
    assert again.to_dict() == first.to_dict()


def test_a_rate_that_diverges_is_beyond(problem: gengap.Problem) -> None:
    square = gengap.Problem(
        model=lambda: nn.Linear(5, 1),
        loss="mean_square",
        train=(problem.samples("train").inputs, problem.samples("train").inputs[:, :1]),
        test=(problem.samples("test").inputs, problem.samples("test").inputs[:, :1]),
        name="square",
    )
    recipe = RECIPE.changed(momentum=0.0, lr=0.3, dtype="float64")
    found = critical_batch(
        square, recipe, at=[1.0], batch_sizes=[32], branch_samples=40_000, seeds=1, noise_samples=0, rule="linear"
    )
    [_, large] = found.points[0].crossing.sizes
    assert large.loss is None
    assert large.standing == "beyond"
    assert math.isfinite(found.points[0].crossing.value)


def test_a_forecast_counts_what_is_missing(problem: gengap.Problem, tmp_path) -> None:
    """Batches of 5 leave 2 of 32 samples over in every epoch, and the rate falls: a branch is known only by both."""
    recipe = RECIPE.changed(batch_size=5, schedule="cosine")
    how = {"at": [0.3, 0.8], "batch_sizes": [16], "branch_samples": 64}
    planned = branching.Branching(problem, recipe, **how, rule=None, seeds=3, device="cpu")
    assert [row.count for row in planned.forecast(None)] == [1, 2 * 3, 2 * 3]
    critical_batch(problem, recipe, **how, seeds=2, noise_samples=0, out=tmp_path)
    with Store(tmp_path, create=False) as store:
        assert [row.count for row in planned.forecast(store)] == [1, 2, 2]


def test_a_moment_without_a_learning_rate_is_refused_before_the_run(problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branching, "train", lambda *_, **__: pytest.fail("it was trained"))
    with pytest.raises(gengap.BadInput, match="at is 1, where the learning rate of the run is 0"):
        critical_batch(problem, RECIPE.changed(schedule="cosine"), at=[0.5, 1.0], branch_samples=64)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"at": [0.0]}, "at is"),
        ({"at": []}, "at is"),
        ({"batch_sizes": [4]}, "sizes above the run's own"),
        ({"batch_sizes": [33]}, "not above the training set"),
        ({"seeds": 0}, "seeds is 0"),
        ({"tolerance": -1}, "tolerance is -1"),
        ({"branch_samples": 2}, "branch_samples is 2"),
    ],
)
def test_what_cannot_be_used_is_refused(problem: gengap.Problem, how: dict, said: str) -> None:
    with pytest.raises(gengap.BadInput, match=said):
        critical_batch(problem, RECIPE, **{"branch_samples": 64} | how)


def test_a_batch_that_changes_is_refused(problem: gengap.Problem) -> None:
    changing = RECIPE.changed(batch_schedule={"name": "geometric", "growth": 2.0})
    with pytest.raises(gengap.BadInput, match="batch stays"):
        critical_batch(problem, changing)
