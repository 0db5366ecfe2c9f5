"""How runs end, and what is refused. Oracle: the rule of the budget simulated by hand, and losses that misbehave when told."""

import math
import os
import signal
import threading

import pytest
import torch
from torch import nn
from training_problems import Counted, Rows, points, problem, recipe, smooth

import gengap
from gengap import BadInput
from gengap.core.events import Message, Progress


def simulate(means, *, patience, tolerance):
    """After how many epochs the rule ends, or None."""
    best, stale = math.inf, 0
    for i, mean in enumerate(means):
        better = mean < best * (1 - tolerance)
        best, stale = (mean, 0) if better else (best, stale + 1)
        if stale >= patience:
            return i + 1
    return None


@pytest.mark.parametrize(("patience", "tolerance"), [(1, 0.05), (2, 0.05), (3, 0.02), (1, 0.2), (2, 0.0)])
@pytest.mark.parametrize("evaluations", [5, 60])
def test_converged_ends_by_its_rule(patience, tolerance, evaluations):
    rule = {"patience": patience, "tolerance": tolerance, "max_epochs": 60}
    run = gengap.train(problem(), recipe(lr=0.5, budget={"converged": rule}), evaluations=evaluations)
    straight = gengap.train(problem(), recipe(lr=0.5, budget={"epochs": 60}), evaluations=60)
    means = [p.batch_loss for p in straight.history[1:]]
    end = simulate(means, patience=patience, tolerance=tolerance)
    if end is None:
        assert run.outcome.reason == "not converged within its epochs"
        end = 60
    else:
        assert run.outcome.reason == f"converged: no better for {patience} epochs"
    assert (run.outcome.kind, run.outcome.step, run.cost.samples) == ("finished", 5 * end, 40 * end)
    assert run.final.step == 5 * end
    assert run.final.batch_loss == pytest.approx(means[end - 1], rel=1e-12)
    assert run.final.train_loss == pytest.approx(straight.history[end].train_loss, rel=1e-12)


@pytest.mark.parametrize("step", [0, 1, 7, 31, 32, 40, 77])
def test_a_divergence_names_its_update(step):
    loss = Counted(lambda update, loss: loss * math.inf if update == step else loss)
    run = gengap.train(problem(loss=loss), recipe(budget={"epochs": 20}), evaluations=10)
    assert (run.outcome.kind, run.outcome.step) == ("diverged", step)
    assert run.outcome.reason == "the loss was inf; try a smaller lr or a warm-up"
    assert [p.step for p in run.history] == [s for s in range(0, 101, 10) if s <= step]
    assert all(math.isfinite(p.train_loss) for p in run.history)


def test_a_learning_rate_that_is_too_large():
    def linear():
        return nn.Linear(3, 1)

    x, y = points()
    p = problem(linear, loss="mean_square", train=(x, y.double()[:, None]), test=(x, y.double()[:, None]))
    run = gengap.train(p, recipe(lr=1e30, batch_size=40, budget={"epochs": 40}), evaluations=40)
    net = linear().double()
    net.load_state_dict(run.initial_params)
    optimizer, expected = torch.optim.SGD(net.parameters(), 1e30), 0
    while math.isfinite((loss := nn.functional.mse_loss(net(x), y.double()[:, None])).item()):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected += 1
    assert run.outcome.kind == "diverged"
    assert run.outcome.step == expected
    assert "diverged at step" in str(run)
    assert run.final.train_accuracy is None


def test_a_first_loss_that_is_not_finite_is_refused():
    x, y = points()
    x[17, 1] = math.nan
    with pytest.raises(BadInput, match=r"untrained network is nan on the training set.*not finite"):
        gengap.train(problem(train=(x, y)), recipe())
    with pytest.raises(BadInput, match=r"nan on the test set"):
        gengap.train(problem(test=(x, y)), recipe())


def test_a_test_loss_alone_that_is_not_finite_stops_nothing():
    class Limited(nn.Module):
        """Breaks on the test set once it was trained."""

        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)
            self.register_buffer("updates", torch.zeros(()))

        def forward(self, x):
            if self.training:
                self.updates += 1
            return self.layer(x) + (math.nan if len(x) == 20 and self.updates > 6 else 0)

    run = gengap.train(problem(Limited), recipe(), evaluations=3)
    assert run.outcome.kind == "finished"
    assert math.isnan(run.final.test_loss)
    assert run.final.to_dict()["test_loss"] is None


SENTENCES = {
    "batch": ({"batch_size": 41}, {}, "batch_size is 41, but there are only 40 training samples; choose 40 or less"),
    "pieces": ({"batch_size": "10%", "micro_batch": 9}, {}, "micro_batch 9 is larger than batch_size 4"),
    "device": ({}, {"device": "abacus"}, "device 'abacus' cannot be used .*; choose 'cpu' or one this machine has"),
    "meta": ({}, {"device": "meta"}, "device 'meta' cannot be used .*; choose 'cpu' or one this machine has"),
    "looks": ({}, {"evaluations": 0}, "evaluations is 0; measure at least once"),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_bad_arguments(name):
    fields, arguments, text = SENTENCES[name]
    with pytest.raises(BadInput, match=text) as caught:
        gengap.train(problem(), recipe(**fields), **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there():
    with pytest.raises(BadInput, match="device 'cuda' cannot be used"):
        gengap.train(problem(), recipe(), device="cuda")


@pytest.mark.parametrize("k", [0, 3, 4, 14])
def test_ctrl_c_ends_after_the_update_at_work(k):
    def press(update, loss):
        if update == k:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    before = signal.getsignal(signal.SIGINT)
    run = gengap.train(problem(loss=Counted(press)), recipe(), evaluations=1)
    assert (run.outcome.kind, run.outcome.step) == ("interrupted", k + 1)
    assert signal.getsignal(signal.SIGINT) is before
    assert run.cost.samples == 8 * (k + 1)


def test_a_second_ctrl_c_does_not_wait():
    def press(update, loss):
        signal.raise_signal(signal.SIGINT)  # not os.kill: two signals pending in another thread would count as one
        signal.raise_signal(signal.SIGINT)
        return loss

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        gengap.train(problem(loss=Counted(press)), recipe())
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread():
    runs = []
    thread = threading.Thread(target=lambda: runs.append(gengap.train(problem(), recipe())))
    thread.start()
    thread.join()
    assert runs[0].outcome.kind == "finished"


def test_progress_is_told():
    events = []
    gengap.train(problem(), recipe(seed=4), evaluations=3, listen=events.append)
    assert all(isinstance(event, Progress) for event in events)
    assert {(e.what, e.total, e.unit) for e in events} == {("batch 8, seed 4", 3.0, "epochs")}
    done = [e.done for e in events]
    assert done == sorted(done)
    assert done[-1] == 3.0
    assert "test accuracy" in events[-1].note


def test_a_stateful_data_set_is_read_once_per_look_and_epoch():
    train = Rows(*points())
    p = problem(train=train, memory_limit=1)
    before = train.read
    messages = []
    gengap.train(p, recipe(), evaluations=1, listen=lambda e: messages.append(e) if isinstance(e, Message) else None)
    assert train.read - before == 40 * (3 + 2)
    assert not messages


def test_a_run_prints_and_becomes_json():
    import json

    run = gengap.train(problem(), recipe(seed=2))
    text = json.dumps(run.to_dict(), allow_nan=False)
    assert gengap.Recipe(**json.loads(text)["recipe"]) == run.recipe
    assert str(run).startswith("blobs, batch 8, seed 2: finished at step 15; train loss 0.")
    assert run.final is run.history[-1]


def test_smooth_is_what_the_others_are_compared_with():
    assert gengap.train(problem(smooth), recipe(lr=0.5, budget={"epochs": 20})).final.train_accuracy > 85
