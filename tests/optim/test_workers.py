# Oracle: the base optimizer alone (one worker), synchronous SGD on the whole batch, and one process against two ranks.
import copy
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim import SGD, Adam
from workers_ranks import BASE, RULES, STEPS, closure, network, numbers

from gengap.core.errors import BadInput
from gengap.optim.mixing import Elastic, PostLocal
from gengap.optim.workers import Workers

NESTEROV = partial(SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
ADAM = partial(Adam, lr=0.01)


@pytest.fixture(scope="module")
def start():
    with torch.random.fork_rng(devices=[]):
        return network()


def together(start, base, rule, count):
    """Train in one process; return the path of the parameters and the method."""
    model = copy.deepcopy(start)
    workers, path = Workers(model.parameters(), base, rule=rule, count=count), []
    for step in range(STEPS):
        workers.step([closure(model, step, k) for k in range(count)])
        path.append(numbers(model.parameters()))
    return np.array(path), workers


def synchronous(start, base, count):
    """The base on the mean of the batches."""
    model = copy.deepcopy(start)
    optimizer, path = base(model.parameters()), []
    for step in range(STEPS):
        gradients = []
        for k in range(count):
            closure(model, step, k)()
            gradients.append([p.grad.clone() for p in model.parameters()])
        for p, *some in zip(model.parameters(), *gradients, strict=True):
            p.grad = sum(some) / count
        optimizer.step()
        path.append(numbers(model.parameters()))
    return np.array(path)


@pytest.mark.parametrize("base", [NESTEROV, ADAM])
@pytest.mark.parametrize("rule", [PostLocal(period=1), PostLocal(period=3, start=4)])
def test_one_worker_is_the_base(start, base, rule):
    np.testing.assert_array_equal(together(start, base, rule, 1)[0], synchronous(start, base, 1))


@pytest.mark.parametrize("base", [NESTEROV, ADAM])
def test_before_the_start_it_is_one_large_batch(start, base):
    found, _ = together(start, base, PostLocal(period=2, start=6), 3)
    wanted = synchronous(start, base, 3)
    np.testing.assert_allclose(found[:6], wanted[:6], rtol=1e-12, atol=1e-14)
    assert np.abs(found[6:] - wanted[6:]).max() > 1e-4


def test_a_mean_after_every_step_is_one_large_batch(start):
    """Exactly so for rules that are linear in the gradient; Adam is not, as each worker scales by its own squares."""
    found, _ = together(start, NESTEROV, PostLocal(period=1), 3)
    np.testing.assert_allclose(found, synchronous(start, NESTEROV, 3), rtol=1e-12, atol=1e-14)
    assert np.abs(together(start, ADAM, PostLocal(period=1), 3)[0] - synchronous(start, ADAM, 3)).max() > 1e-4


def test_workers_without_noise_stay_together(start):
    model = copy.deepcopy(start)
    workers = Workers(model.parameters(), NESTEROV, rule=PostLocal(period=100), count=3)
    alone = copy.deepcopy(start)
    optimizer = NESTEROV(alone.parameters())
    for _ in range(STEPS):
        workers.step([closure(model, 0, 0)] * 3)
        optimizer.step(closure(alone, 0, 0))
    np.testing.assert_array_equal(numbers(model.parameters()), numbers(alone.parameters()))


def test_between_meetings_the_parameters_are_the_mean(start):
    path, workers = together(start, NESTEROV, PostLocal(period=100), 3)
    memory = workers.state_dict()["state"].values()
    own = [np.concatenate([m[f"weights{k}"].flatten().numpy() for m in memory]) for k in range(3)]
    np.testing.assert_allclose(path[-1], np.mean(own, 0), rtol=1e-12)
    assert np.abs(own[0] - own[1]).max() > 1e-3


def test_the_centre_and_the_sum_of_workers_are_kept_by_the_spring():
    """With lr 0, beta = workers * alpha: what the workers lose the centre wins."""
    w = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    workers = Workers([w], partial(SGD, lr=0.0), rule=Elastic(alpha=0.3, beta=0.6), count=2)

    def still():
        w.grad = torch.zeros_like(w)
        return (w**2).sum()

    workers.step([still, still])
    memory = workers.state[w]
    memory["weights0"] += 1.0
    memory["weights1"] -= 0.4
    distance = []
    for _ in range(5):
        workers.step([still, still])
        assert (memory["weights0"] + memory["weights1"] + memory["centre"]).item() == pytest.approx(3.6)
        distance.append((memory["weights0"] - memory["weights1"]).item())
    assert distance == pytest.approx([1.4 * 0.7**n for n in range(1, 6)])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda w: Workers(w, NESTEROV, rule=PostLocal(2), count=0), "count is 0"),
        (lambda w: Workers(w, NESTEROV(w), rule=PostLocal(2), count=2), "every worker needs its own"),
        (lambda w: Workers(w, NESTEROV, rule=PostLocal(2), count=2).step([]), "got 0 closures for 2 workers"),
        (lambda w: PostLocal(0), "period is 0"),
        (lambda w: PostLocal(1, start=-1), "start is -1"),
        (lambda w: Elastic(0.1, period=0), "period is 0"),
        (lambda w: Elastic(1.0), r"alpha is 1\.0"),
        (lambda w: Elastic(0.1, beta=0.0), r"beta is 0\.0"),
    ],
)
def test_refuses(make, words):
    with pytest.raises(BadInput, match=words):
        make([torch.nn.Parameter(torch.ones(1))])


def test_refuses_the_state_of_another_number_of_workers(start):
    states = [together(start, NESTEROV, PostLocal(2), count)[1] for count in (2, 3)]
    with pytest.raises(BadInput, match=r"the state is of Workers\(2, .*; give the state_dict of a Workers\(3"):
        states[1].load_state_dict(states[0].state_dict())


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What both ranks say."""
    folder, script = tmp_path_factory.mktemp("ranks"), Path(__file__).with_name("workers_ranks.py")
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(folder)]
    ranks = [
        subprocess.Popen(
            [*command, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        for rank in (0, 1)
    ]
    said = [process.communicate(timeout=240) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], said
    return [json.loads(out.splitlines()[-1]) for out, _ in said]


@pytest.mark.ranks
@pytest.mark.parametrize("name", RULES)
def test_two_ranks_are_two_workers(found, start, name):
    path, workers = together(start, BASE, RULES[name], 2)
    memory = workers.state_dict()["state"].values()
    for rank in (0, 1):
        own = np.concatenate([m[f"weights{rank}"].flatten().numpy() for m in memory])
        np.testing.assert_allclose(found[rank][name]["own"], own, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(found[rank][name]["result"], path[-1], rtol=1e-11, atol=1e-13)
    assert np.abs(np.subtract(*(found[rank][name]["own"] for rank in (0, 1)))).max() > 1e-3
