# Oracles: a plain loop that puts the stored gradients of the parts of every batch into McCandlish's two equations; a problem
# whose gradient and covariance are known; the same run without readings, or without a break.
import json
import os
import signal
from dataclasses import replace

import pytest
import torch
from noise_by_hand import by_hand
from torch import nn
from training_problems import (
    Counted,
    assert_same_run,
    busy,
    normed,
    problem,
    recipe,
    smooth,
)

import gengap
from gengap.optim.build import build
from gengap.training.gradient import Gradient
from gengap.training.noise_readings import NoiseReadings
from gengap.training.objective import make_objective
from gengap.training.ranks import Ranks

EPOCHS = {"budget": {"epochs": 5}}


def read(problem, recipe, **more):
    return gengap.train(problem, recipe, **{"evaluations": 2, "noise_scale": True, "noise_overhead": 1.0, **more})


@pytest.mark.parametrize(
    ("net", "fields", "cut"),
    [
        (smooth, {"batch_size": 10}, lambda total: [5, 5]),
        (smooth, {"batch_size": 13}, lambda total: [total // 2, total - total // 2]),
        (smooth, {"batch_size": 10, "micro_batch": 4}, lambda total: [4, 4, 2]),
        (smooth, {"batch_size": 10, "micro_batch": 4, "clip_norm": 1e9}, lambda total: [4, 4, 2]),
    ],
    ids=["halves", "uneven halves", "pieces", "clipped pieces"],
)
def test_the_last_reading_is_what_two_equations_give(net, fields, cut):
    run = read(problem(net), recipe(**fields, **EPOCHS))
    expected = by_hand(problem(net).model(0, dtype=torch.float64), cut, batch=fields["batch_size"], epochs=5)
    last = run.noise_scale[-1]
    assert last.squared_gradient_norm.value == pytest.approx(expected["norm"], rel=1e-9)
    assert last.trace_covariance.value == pytest.approx(expected["trace"], rel=1e-9)
    assert (last.observations, last.steps) == (expected["observations"], expected["steps"])
    assert last.samples == run.final.samples
    assert not last.dropped


class Point(nn.Module):
    """Weights w; with half the squared distance as loss the gradient of a sample x is w - x."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(40))

    def forward(self, x):
        return self.w.expand(len(x), -1)


def distance(outputs, targets):
    return (outputs - targets).square().sum(1).mean() / 2


@pytest.mark.parametrize("fields", [{}, {"micro_batch": 8}, {"method": "sam"}], ids=["halves", "pieces", "sam"])
def test_unbiased_where_gradient_and_covariance_are_known(fields):
    rng = torch.Generator().manual_seed(3)
    x = 0.5 + torch.randn(11_200, 40, generator=rng, dtype=torch.float64) * torch.linspace(0.5, 1.5, 40)
    cloud = gengap.Problem(model=Point, loss=distance, train=(x, x), test=(x[:10], x[:10]), name="cloud")
    run = read(cloud, recipe(lr=1e-12, batch_size=32, budget={"steps": 350}, **fields), evaluations=1)
    last, start = run.noise_scale[-1], cloud.model(0, dtype=torch.float64).w.detach()
    norm = float((start - x.mean(0)).square().sum())
    for found, truth in ((last.trace_covariance, float(x.var(0).sum())), (last.squared_gradient_norm, norm)):
        assert abs(found.value - truth) < 5 * found.stderr
        assert found.stderr < 0.03 * truth  # a bias of 10 % would fail
    assert last.simple.interval[0] < float(x.var(0).sum()) / norm < last.simple.interval[1]


@pytest.mark.parametrize(
    ("net", "fields"),
    [
        (busy, {"momentum": 0.9}),
        (busy, {"micro_batch": 3, "optimizer": "adam"}),
        (busy, {"ghost_batch": 2, "clip_norm": 0.5}),
        (busy, {"ghost_batch": 4, "quirks": "bigbatch"}),
        (smooth, {"batch_schedule": {"name": "dynamic", "theta": 0.5}}),
        (smooth, {"method": "sam", "micro_batch": 3}),
        (smooth, {"method": "svrg"}),
        (smooth, {"method": "conservative", "optimizer": "adam"}),
        (smooth, {"optimizer": "lbfgs", "lr": 0.5}),
        (smooth, {"optimizer": "kfac", "lr": 0.01, "micro_batch": 4}),
        (lambda: nn.Linear(3, 2), {"momentum": 0.9, "dtype": "float32"}),
    ],
    ids=lambda part: str(part) if isinstance(part, dict) else "",
)
def test_the_run_has_the_same_bits_as_without(net, fields):
    how = recipe(**fields)
    run = read(problem(net), how)
    assert_same_run(run, gengap.train(problem(net), how, evaluations=2))
    assert run.noise_scale[-1].observations == run.cost.steps - 3
    assert not run.noise_scale[-1].dropped


def test_one_reading_for_every_point_but_the_first_and_none_unless_asked():
    run = read(problem(), recipe(**EPOCHS), evaluations=4)
    assert [reading.steps for reading in run.noise_scale] == [point.step for point in run.history[1:]]
    assert run.to_dict()["noise_scale"][-1]["simple"] == run.noise_scale[-1].to_dict()["simple"]
    silent = gengap.train(problem(), recipe())
    assert silent.noise_scale == ()
    assert "noise_scale" not in silent.to_dict()


def test_a_run_that_goes_on_has_the_readings_of_one_that_never_stopped(tmp_path):
    def pressed(update, loss):
        if update == 41:  # backward passes: some of the readings, and about 15 updates
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    how, file = recipe(**EPOCHS), tmp_path / "run"
    straight = read(problem(normed), how)
    stopped = read(problem(normed, loss=Counted(pressed)), how, checkpoint=file)
    assert stopped.outcome.kind == "interrupted"
    resumed = read(problem(normed, loss=Counted()), how, checkpoint=file)
    assert_same_run(resumed, straight)
    assert [timeless(reading) for reading in resumed.noise_scale] == [timeless(one) for one in straight.noise_scale]
    assert not gengap.train(problem(normed, loss=Counted()), how, evaluations=2, checkpoint=file).noise_scale


def timeless(reading):
    return replace(reading, overhead=0.0)


def test_a_checkpoint_without_readings_can_go_on_with_them(tmp_path):
    def pressed(update, loss):
        if update == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    how, file = recipe(**EPOCHS), tmp_path / "run"
    gengap.train(problem(loss=Counted(pressed)), how, evaluations=2, checkpoint=file)
    assert read(problem(loss=Counted()), how, checkpoint=file).noise_scale[-1].steps == 20


@pytest.mark.parametrize(
    ("net", "fields", "said"),
    [
        (smooth, {"batch_size": 1}, "a batch is one sample; choose a larger batch_size"),
        (normed, {"ghost_batch": 8}, "a batch is one ghost batch of 8 samples"),
        (
            smooth,
            {"optimizer": "kfac", "lr": 0.01},
            "kfac takes part in every pass through the network; set micro_batch to 4",
        ),
        (
            smooth,
            {"method": {"name": "post-local-sgd", "workers": 2}},
            "post-local-sgd trains 2 apart; leave noise_scale out",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_to_do(net, fields, said):
    with pytest.raises(gengap.BadInput, match=said):
        read(problem(net), recipe(**fields))


def test_batch_norm_over_processes_is_refused():
    how, net = recipe(batch_norm="all"), problem(normed).model(0)
    together = Gradient(net, make_objective(net, problem(normed).loss, how), how, Ranks(0, 2))
    with pytest.raises(
        gengap.BadInput, match="batch norm over all of them makes depend on each other; set ghost_batch or"
    ):
        NoiseReadings(together, build(how, net), most=1.0, clock=lambda: 0.0)


def test_readings_are_json():
    run = read(problem(), recipe(**EPOCHS))
    assert json.loads(json.dumps(run.to_dict()))["noise_scale"][0]["steps"] == run.history[1].step


def test_a_share_of_the_time_out_of_range_is_refused():
    with pytest.raises(gengap.BadInput, match=r"noise_overhead is 0; choose a share of the time in \(0, 1\]"):
        read(problem(), recipe(), noise_overhead=0)
