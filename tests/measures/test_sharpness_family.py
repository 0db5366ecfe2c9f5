# Oracle: copies made before measuring, compared bit by bit afterwards. One exam for every measure of sharpness.
import random

import numpy as np
import pytest
import torch
from torch import nn

from gengap.core.errors import BadInput
from gengap.measures.sharpness.average_sharpness import average_sharpness
from gengap.measures.sharpness.ball_sharpness import ball_sharpness
from gengap.measures.sharpness.box_sharpness import sharpness
from gengap.measures.sharpness.random_rise import random_rise
from gengap.measures.sharpness.steepness import steep_fraction
from gengap.measures.sharpness.subspace_sharpness import subspace_sharpness
from gengap.problem.problem import Problem

MEASURES = {
    "sharpness": lambda *a, **k: sharpness(*a, iterations=2, **k),
    "profile": lambda *a, **k: sharpness(*a, radius=[1e-3, 1e-2], groups="layer", iterations=2, **k),
    "subspaces": lambda *a, **k: subspace_sharpness(*a, dim=3, repeats=2, iterations=2, **k),
    "ball": lambda *a, **k: ball_sharpness(*a, steps=2, **k),
    "adaptive ball": lambda *a, **k: ball_sharpness(*a, adaptive="filter", steps=2, **k),
    "average": lambda *a, **k: average_sharpness(*a, unit="element", max_pairs=3, **k),
    "random rise": lambda *a, **k: random_rise(*a, samples=3, **k),
    "curvature": lambda *a, **k: steep_fraction(*a, samples=2, steps=3, **k),
    "directions": lambda *a, **k: steep_fraction(*a, along="directions", samples=3, **k),
}
RNG = torch.Generator().manual_seed(0)
INPUTS, TARGETS = torch.randn(23, 3, 6, 6, generator=RNG), torch.randint(0, 4, (23,), generator=RNG)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 4)
    )


@pytest.fixture
def network_at_hand():
    problem = Problem(
        model=network, loss="cross_entropy", train=(INPUTS, TARGETS), test=(INPUTS[:5], TARGETS[:5]), name="small"
    )
    model = problem.model(seed=0)
    model.train()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    return problem.loss_function("train", buffers=dict(model.named_buffers())), model


def states():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


@pytest.mark.parametrize("name", MEASURES)
def test_leaves_everything_as_it_was(name, network_at_hand):
    loss, model = network_at_hand
    before = {n: t.clone() for n, t in model.state_dict().items()}
    buffers, random_states = {n: b.clone() for n, b in loss.buffers.items()}, states()
    found = MEASURES[name](loss, dict(model.named_parameters()))
    assert states() == random_states
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert all(torch.equal(b, buffers[n]) for n, b in loss.buffers.items())
    assert all(p.requires_grad and p.grad.eq(1).all() for p in model.parameters())
    assert model.training
    told = found.conditions
    assert (told.data, told.samples, told.batch_norm, told.dtype) == ("train", 23, "running", "float32")
    assert told.weights == sum(p.numel() for p in model.parameters())
    assert str(told) in str(found)


@pytest.mark.parametrize("name", MEASURES)
def test_is_the_same_when_measured_again_and_in_smaller_chunks(name, network_at_hand):
    loss, model = network_at_hand
    params = {n: p.detach().double() for n, p in model.named_parameters()}
    first, second, chunked = (
        {**MEASURES[name](a_loss, params).to_dict(), "seconds": 0, "peak_memory": 0, "chunk_size": 0}
        for a_loss in (loss, loss, loss.with_chunk(7))
    )
    if name == "profile":
        for found in (first, second, chunked):
            found["records"] = [{**r, "seconds": 0, "peak_memory": 0, "chunk_size": 0} for r in found["records"]]
    assert first == second
    assert flat(chunked) == pytest.approx(flat(first), rel=1e-6, abs=1e-12)


def flat(found):
    """All numbers of a record in order, but for shares at the bound: a weight may stop one rounding before it."""
    if isinstance(found, dict):
        found = [value for key, value in found.items() if key != "share_at_bound"]
    if isinstance(found, list):
        return [x for part in found for x in flat(part)]
    return [found] if isinstance(found, int | float) else []


@pytest.mark.parametrize("name", MEASURES)
def test_refuses_a_loss_that_is_not_deterministic(name, network_at_hand):
    _, model = network_at_hand
    model.eval()[4].train()

    def noisy(p):
        return nn.functional.cross_entropy(torch.func.functional_call(model, dict(p), (INPUTS,)), TARGETS)

    with pytest.raises(BadInput, match="evaluations at the same weights gave"):
        MEASURES[name](noisy, dict(model.named_parameters()))


@pytest.mark.parametrize("name", MEASURES)
def test_measures_the_weights_it_is_told_to(name, network_at_hand):
    loss, model = network_at_hand
    assert MEASURES[name](loss, dict(model.named_parameters()), only="5.*").conditions.weights == 64 * 4 + 4
    with pytest.raises(BadInput, match="no weight is called"):
        MEASURES[name](loss, dict(model.named_parameters()), only="layer.*")


@pytest.mark.parametrize("name", MEASURES)
def test_refuses_a_limit_that_is_too_small(name, network_at_hand):
    loss, model = network_at_hand
    with pytest.raises(BadInput, match=r"memory_limit is 1e\+03 B, but this measure needs at least"):
        MEASURES[name](loss, dict(model.named_parameters()), memory_limit=1000)
