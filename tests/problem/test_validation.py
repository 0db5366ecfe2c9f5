"""Samples held out. Oracles: sets of sample numbers counted by hand, and scoring the finished network by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gengap
from gengap.problem.dataset import DataSet
from gengap.problem.load import cut
from gengap.problem.validation import hold_out, parted


def numbered(n: int = 40) -> gengap.Problem:
    """A problem whose inputs are the numbers of its samples."""
    inputs, targets = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n) % 2
    return gengap.Problem(
        model=lambda: nn.Linear(1, 2), loss="cross_entropy", train=(inputs, targets), test=(inputs[:3], targets[:3])
    )


def numbers(problem: gengap.Problem, which: str) -> set[int]:
    return {int(x) for x in problem.samples(which).inputs.flatten()}


@pytest.mark.parametrize(("asked", "count"), [(0.25, 10), (7, 7), (0.01, 0)])
def test_samples_held_out_do_not_train(asked: float, count: int) -> None:
    if not count:
        with pytest.raises(gengap.BadInput, match=r"validation is 0\.01"):
            hold_out(numbered(), asked)
        return
    found = hold_out(numbered(), asked, seed=3)
    train, held = numbers(found, "train"), numbers(found, "validation")
    assert len(held) == count
    assert not train & held
    assert train | held == set(range(40))
    assert held != numbers(hold_out(numbered(), asked, seed=4), "validation")
    assert found.fingerprint != numbered().fingerprint


def test_smaller_training_sets_never_touch_what_is_held_out() -> None:
    from gengap.data.order import subset

    rest, held = parted(0.2, 50, seed=5)
    for size in (1, 10, 40):
        assert not set(subset(5, 50, size).tolist()) & set(held.tolist())
    assert len(rest) + len(held) == 50


def test_nothing_held_out_is_the_same_problem() -> None:
    problem = numbered()
    assert hold_out(problem, 0) is problem
    assert problem.splits == ("train", "test")


@pytest.mark.parametrize("bad", [-0.1, 1.5, 40, 41, float("nan"), float("inf")])
def test_what_cannot_be_held_out_is_refused(bad: float) -> None:
    with pytest.raises(gengap.BadInput, match="validation is"):
        hold_out(numbered(), bad)


def test_holding_out_twice_is_refused() -> None:
    with pytest.raises(gengap.BadInput, match="choose by already"):
        hold_out(hold_out(numbered(), 0.5), 0.5)


def test_a_run_scores_the_samples_held_out() -> None:
    problem = hold_out(numbered(), 0.25)
    run = gengap.train(
        problem, gengap.Recipe(lr=1e-3, batch_size=10, budget={"epochs": 2}, dtype="float64"), evaluations=2
    )
    inputs, targets = problem.samples("validation").inputs, problem.samples("validation").targets
    outputs = inputs @ run.params["weight"].t() + run.params["bias"]
    assert run.final.validation_loss == pytest.approx(float(F.cross_entropy(outputs, targets)), rel=1e-12)
    assert run.final.validation_accuracy == pytest.approx(100 * float((outputs.argmax(1) == targets).double().mean()))
    assert all(point.validation_loss is not None for point in run.history)


def test_a_run_without_them_says_none() -> None:
    run = gengap.train(numbered(), gengap.Recipe(lr=1e-3, batch_size=10, budget={"steps": 1}), evaluations=1)
    assert run.final.validation_loss is None
    assert run.final.validation_accuracy is None


def test_the_catalogue_holds_out() -> None:
    found = gengap.load("digits", validation=0.1)
    assert len(found.samples("validation")) == 100
    assert len(found.samples("train")) == 900
    assert dict(found.origin.options) == {"validation": 0.1}
    assert "100 validation samples" in repr(found)


def test_what_is_held_out_is_the_same_for_every_training_size() -> None:
    rows = torch.arange(30.0)[:, None], torch.arange(30)
    found = DataSet(rows, rows, 30, "counted")
    held = [cut(found, 0.2, size, seed=1) for size in (None, 5, 24)]
    assert [len(one.train[1]) for one, _ in held] == [24, 5, 24]
    assert len({tuple(split[1].tolist()) for _, split in held}) == 1
    assert all(not set(one.train[1].tolist()) & set(split[1].tolist()) for one, split in held)
    with pytest.raises(gengap.BadInput, match="train on 24 or less"):
        cut(found, 0.2, 25, seed=1)
