"""Tuning. Oracle: an accuracy that depends on the noise scale alone, with a known optimum, in place of training."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

import gengap
from gengap.exploration import tune as module
from gengap.exploration.tune import tune

N = 900  # digits, after a tenth is held out


def accuracy(batch: int, lr: float, momentum: float, seed: int, *, best: float, ceiling: float) -> float | None:
    """Peak where lr N / (B (1 - m)) is `best`; nothing trains above the stable rate of `ceiling` for lr / (1 - m)."""
    if lr / (1 - momentum) > ceiling:
        return None
    noise = lr * N / (batch * (1 - momentum))
    return 90 - 8 * math.log10(noise / best) ** 2 + 0.01 * seed


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch):
    """Put a known accuracy in place of sweeps; give the settings that were asked for."""
    asked: list[tuple] = []

    def using(**truth: float) -> list[tuple]:
        def sweep(problem: Any, grid: dict, budget: Any, **how: Any) -> SimpleNamespace:
            runs = []
            for batch in grid["batch_size"]:
                (lr,), (momentum,) = grid["lr"], grid["momentum"]
                asked.append((batch, lr, momentum))
                for seed in range(how["seeds"]):
                    value = accuracy(batch, lr, momentum, seed, **truth)
                    runs.append({
                        "key": f"{batch}/{lr}/{momentum}/{seed}",
                        "batch_size": batch,
                        "seed": seed,
                        "outcome": "diverged" if value is None else "finished",
                        "validation_accuracy": value,
                        "test_accuracy": value,
                    })
            return SimpleNamespace(runs=runs, document={"selection": "validation", "runs": runs, "sweep": {}})

        monkeypatch.setattr(module, "sweep", sweep)
        monkeypatch.setattr(module.Tuner, "result", lambda self, stages, chosen, folder: (stages, chosen))
        return asked

    return using


@pytest.fixture(scope="module")
def digits() -> gengap.Problem:
    return gengap.load("digits")


def test_it_ends_at_the_best_noise_scale(simulated: Any, digits: gengap.Problem) -> None:
    simulated(best=0.1 * N / (60 * 0.1), ceiling=2.0)  # batch 60 at rate 0.1 and momentum 0.9
    stages, chosen = tune(digits, "steps=10", seeds=3)
    assert chosen.lr == pytest.approx(0.1)
    noise = chosen.lr * N / (chosen.batch_size * (1 - chosen.momentum))
    assert abs(math.log2(noise / (0.1 * N / (60 * 0.1)))) < 0.5
    assert [stage.name for stage in stages] == ["batch and rate"] * 3 + ["batch and momentum", "batch"]


def test_momentum_keeps_the_noise_scale(simulated: Any, digits: gengap.Problem) -> None:
    asked = simulated(best=0.1 * N / (32 * 0.1), ceiling=5.5)  # stable up to momentum 0.98 at rate 0.1
    stages, _ = tune(digits, "steps=10", seeds=2)
    [grown] = [stage for stage in stages if stage.name == "batch and momentum"]
    sizes = [(one.batch_size, round(one.momentum, 6)) for one in grown.tried]
    assert sizes == [(32, 0.9), (160, 0.98), (800, 0.996)]
    assert grown.chosen.batch_size == 160
    assert grown.tried[-1].score is None
    assert "worse" in grown.why
    assert (160, 0.1, pytest.approx(0.98)) in asked


def test_the_grid_goes_on_beyond_its_edge(simulated: Any, digits: gengap.Problem) -> None:
    asked = simulated(best=0.1 * N / (8 * 0.1), ceiling=1.5)
    tune(digits, "steps=10", seeds=2, lr=0.1, batch_sizes=[64, 128], poor=50.0)
    assert {size for size, *_ in asked} >= {32, 16, 8, 4}


def test_a_score_that_is_not_poor_keeps_the_rate(simulated: Any, digits: gengap.Problem) -> None:
    asked = simulated(best=1.0 * N / (60 * 0.1), ceiling=20.0)
    _, chosen = tune(digits, "steps=10", seeds=2, poor=80.0)
    assert {lr for _, lr, _ in asked} == {1.0}
    assert chosen.lr == 1.0


def test_nothing_that_trains_is_refused(simulated: Any, digits: gengap.Problem) -> None:
    simulated(best=1.0, ceiling=0.0)
    with pytest.raises(gengap.BadInput, match="every batch size diverged"):
        tune(digits, "steps=10", seeds=2)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"recipe": {"lr": 1.0}}, "recipe sets lr"),
        ({"recipe": {"optimizer": "adam"}}, "recipe sets optimizer"),
        ({"batch_sizes": [2000]}, "batch_sizes is"),
        ({"max_batch": 0}, "max_batch is 0"),
    ],
)
def test_what_cannot_be_used_is_refused(digits: gengap.Problem, how: dict, said: str) -> None:
    with pytest.raises(gengap.BadInput, match=said):
        tune(digits, "steps=10", **how)


def test_a_real_one_on_few_digits(tmp_path) -> None:
    problem = gengap.load("digits", network="smith-le-mlp", train_size=200)
    how = {"batch_sizes": [32, 64], "seeds": 1, "poor": 20.0, "lr": 0.1, "engine": "solo", "out": tmp_path / "tuned"}
    found = tune(problem, "steps=20", **how)
    assert found.recipe.lr == pytest.approx(0.1)
    assert found.recipe.batch_size == found.chosen.batch_size
    assert found.chosen.test.value > 50
    assert "chosen on the validation set" in str(found)
    assert found.to_dict()["recipe"]["optimizer"] == "sgd"
    assert len(found.document["runs"]) == len({run["key"] for run in found.document["runs"]})
    assert {run["batch_size"] for run in found.document["runs"]} >= {32, 64, found.chosen.batch_size}
