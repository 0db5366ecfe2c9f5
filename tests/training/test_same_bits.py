"""Same recipe, same bits; and what must not matter to them. Oracle: the run itself, made under other circumstances."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from training_problems import Rows, assert_same_run, busy, points, problem, recipe, smooth, timeless

import gengap
from gengap.data.order import permutation

ADAM = {"optimizer": "adam", "lr": 0.01}


def test_the_same_recipe_gives_the_same_bits():
    first = gengap.train(problem(busy), recipe(**ADAM))
    torch.manual_seed(987)
    assert_same_run(gengap.train(problem(busy), recipe(**ADAM)), first)


def test_how_often_it_is_measured_changes_nothing():
    rare, often = (gengap.train(problem(busy), recipe(**ADAM), evaluations=n) for n in (1, 15))
    assert timeless(rare.history)[1:] == timeless(often.history)[-1:]
    assert all(torch.equal(rare.params[name], often.params[name]) for name in rare.params)


def test_the_seed_changes_weights_order_and_masks():
    zero, one = (gengap.train(problem(busy), recipe(seed=seed)) for seed in (0, 1))
    for name in ("0.weight", "4.weight"):
        assert not torch.equal(zero.initial_params[name], one.initial_params[name])
    assert not torch.equal(permutation(0, 0, 40), permutation(1, 0, 40))
    assert zero.final.batch_loss != one.final.batch_loss


def test_dropout_acts_while_training_only():
    without = nn.Sequential(*[part for part in busy() if not isinstance(part, nn.Dropout)])
    names = dict(zip(dict(without.named_parameters()), dict(busy().named_parameters()), strict=True))
    run = gengap.train(problem(busy), recipe())
    plain = gengap.train(
        problem(lambda: nn.Sequential(*[m for m in busy() if not isinstance(m, nn.Dropout)])), recipe()
    )
    assert all(torch.equal(plain.initial_params[a], run.initial_params[b]) for a, b in names.items())
    assert plain.history[0].train_loss == run.history[0].train_loss
    assert plain.history[1].batch_loss != run.history[1].batch_loss


def test_the_order_of_samples_does_not_depend_on_the_batch_size():
    orders = []
    for size in (1, 8, 12, 40):
        seen = []

        class Watched(nn.Module):
            def __init__(self, seen=seen):
                super().__init__()
                self.layer, self.seen = nn.Linear(3, 2), seen

            def forward(self, x):
                if torch.is_grad_enabled():
                    self.seen += x[:, 0].tolist()
                return self.layer(x)

        gengap.train(problem(Watched), recipe(batch_size=size))
        orders.append(seen)
    expected = torch.cat([points()[0][permutation(0, epoch, 40), 0] for epoch in range(3)]).tolist()
    assert all(order == expected for order in orders)


def test_the_global_generators_are_left_alone():
    torch.manual_seed(11)
    random.seed(11)
    np.random.seed(11)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    gengap.train(problem(busy), recipe())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]


def test_they_are_left_alone_when_a_run_fails():
    def fall(outputs, targets):
        if outputs.requires_grad:
            raise RuntimeError("fell")
        return nn.functional.cross_entropy(outputs, targets)

    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="fell"):
        gengap.train(problem(busy, loss=fall), recipe())
    assert torch.equal(torch.get_rng_state(), before)


def test_what_the_user_made_is_not_trained():
    made = []

    def factory():
        made.append(smooth())
        return made[-1]

    x, y = points()
    p = problem(factory, train=(x, y))
    first = gengap.train(p, recipe())
    keep = {name: value.clone() for name, value in first.params.items()}
    again = gengap.train(p, recipe())
    assert_same_run(again, first)
    assert all(torch.equal(first.params[name], keep[name]) for name in keep)
    assert torch.equal(x, points()[0])
    assert len({id(net) for net in made}) == len(made)


@pytest.mark.parametrize(
    "fields", [{}, {"batch_size": 12}, {"micro_batch": 2, "batch_size": 12}, {"drop_last": True, "batch_size": 12}]
)
def test_streamed_equals_in_memory(fields):
    whole = gengap.train(problem(busy), recipe(**ADAM, **fields))
    rows = Rows(*points())
    streamed = problem(busy, train=rows, test=Rows(*points(20, seed=1)), memory_limit=1)
    before = rows.read
    assert_same_run(gengap.train(streamed, recipe(**ADAM, **fields)), whole)
    assert rows.read > before + 3 * 36


def test_inputs_may_be_tuples_or_dicts():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, a, b):
            return self.layer(torch.cat([a, b], 1))

    class One(Two):
        def forward(self, x):
            return self.layer(x)

    plain = gengap.train(problem(One), recipe())
    for wrap in (lambda x: (x[:, :1], x[:, 1:]), lambda x: {"b": x[:, 1:], "a": x[:, :1]}):
        train, test = ((wrap(x), y) for x, y in (points(), points(20, seed=1)))
        assert_same_run(gengap.train(problem(Two, train=train, test=test), recipe()), plain)
