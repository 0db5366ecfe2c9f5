"""Warm starts. Oracle: the same two runs made one after the other by hand."""

import pytest
import torch

import gengap
from gengap.core.errors import BadInput
from gengap.training.piggyback import piggyback
from gengap.training.solo import train


def problem():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 5, generator=g), torch.randint(3, (40,), generator=g)

    def model():
        return torch.nn.Sequential(
            torch.nn.Linear(5, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        )

    return gengap.Problem(model=model, loss="cross_entropy", train=(x, y), test=(x, y))


SMALL = gengap.Recipe(optimizer="adam", lr=1e-2, batch_size=4, budget={"epochs": 3}, dtype="float64")
LARGE = gengap.Recipe(optimizer="adam", lr=1e-2, batch_size=20, budget={"epochs": 2}, dtype="float64")


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in b)


def test_equals_two_runs_by_hand():
    found = piggyback(problem(), SMALL, LARGE, [0, 2, 3])
    assert list(found.large) == [0, 2, 3]
    for epochs, run in found.large.items():
        start = None
        if epochs:
            start = train(problem(), SMALL.changed(budget={"epochs": epochs}))
            assert same(run.initial_params, start.params)
        expected = train(problem(), LARGE, start=start)
        assert same(run.params, expected.params)
        assert same(run.buffers, expected.buffers)
    assert same(found.small.params, train(problem(), SMALL).params)


def test_what_was_done_is_used_again(tmp_path):
    first = piggyback(problem(), SMALL, LARGE, [1], out=tmp_path)
    told = []
    second = piggyback(problem(), SMALL, LARGE, [1, 2], out=tmp_path, listen=told.append)
    assert same(first.large[1].params, second.large[1].params)
    assert first.large[1].cost == second.large[1].cost
    assert any("trained again" in getattr(event, "text", "") for event in told)


def test_a_checkpoint_of_another_start_is_refused(tmp_path):
    file = tmp_path / "run.safetensors"
    start = train(problem(), SMALL)
    train(problem(), LARGE, start=start, checkpoint=file)
    with pytest.raises(BadInput, match="belongs to another recipe"):
        train(problem(), LARGE, checkpoint=file)


@pytest.mark.parametrize("epochs", [[], [4], [-1], [1, 1]])
def test_numbers_of_epochs_that_cannot_be(epochs):
    with pytest.raises(BadInput, match="different numbers from 0 to the 3"):
        piggyback(problem(), SMALL, LARGE, epochs)


def test_weights_of_another_network_are_refused():
    with pytest.raises(BadInput, match="do not fit the network"):
        train(problem(), LARGE, start={"0.weight": torch.zeros(1, 1)})
    with pytest.raises(BadInput, match="give a run, a snapshot"):
        train(problem(), LARGE, start=3)
