"""A run that starts from a snapshot with the optimizer's memory. Oracle: the run that was never cut."""

import pytest
import torch

import gengap
from gengap import Probe, Recipe


def cut_at(problem: gengap.Problem, recipe: Recipe, step: int, *, memory: bool) -> gengap.Snapshot:
    seen = []
    gengap.train(problem, recipe, evaluations=1, probe=Probe(seen.append, at=[step], memory=memory))
    return seen[0]


@pytest.fixture(scope="module")
def digits() -> gengap.Problem:
    return gengap.load("digits").head(64, 10)


@pytest.mark.parametrize(
    "fields", [{"optimizer": "adam", "lr": 1e-3}, {"lr": 0.05, "momentum": 0.9}, {"optimizer": "adamw", "lr": 1e-3}]
)
def test_the_whole_batch_goes_on_as_if_never_cut(digits: gengap.Problem, fields: dict) -> None:
    # with the whole set as one batch the order of samples does not matter, so that the end of one run is that of the other
    recipe = Recipe(**fields, batch_size=64, budget={"steps": 6}, dtype="float64")
    straight = gengap.train(digits, recipe, evaluations=1)
    half = cut_at(digits, recipe, 3, memory=True)
    rest = gengap.train(digits, recipe.changed(budget={"steps": 3}), evaluations=1, start=half)
    for name, value in straight.params.items():
        torch.testing.assert_close(rest.params[name], value, rtol=0, atol=1e-9)
    forgotten = cut_at(digits, recipe, 3, memory=False)
    other = gengap.train(digits, recipe.changed(budget={"steps": 3}), evaluations=1, start=forgotten)
    assert any(not torch.allclose(other.params[name], value, atol=1e-5) for name, value in straight.params.items())


def test_its_own_learning_rate_stays(digits: gengap.Problem) -> None:
    recipe = Recipe(lr=0.05, momentum=0.9, batch_size=64, budget={"steps": 2}, dtype="float64")
    snapshot = cut_at(digits, recipe, 2, memory=True)
    run = gengap.train(digits, recipe.changed(lr=1e-12, momentum=0.0, budget={"steps": 1}), start=snapshot)
    assert run.history[-1].lr == 1e-12
    for name, value in snapshot.params.items():
        torch.testing.assert_close(run.params[name], value, rtol=0, atol=1e-8)


def test_the_memory_of_another_optimizer_is_refused(digits: gengap.Problem) -> None:
    snapshot = cut_at(digits, Recipe(lr=0.05, momentum=0.9, batch_size=64, budget={"steps": 1}), 1, memory=True)
    with pytest.raises(gengap.BadInput, match="memory of another optimizer"):
        gengap.train(
            digits, Recipe(optimizer="adam", lr=1e-3, batch_size=64, budget={"steps": 1}), start=snapshot, evaluations=1
        )
