"""The doctor on least squares. Oracles: gradients in closed form with numpy, torch's own functions before and after, and
random states before and after."""

import pickle
from functools import partial

import numbers_loop as loops
import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from gengap.core.errors import BadInput
from gengap.diagnosis.doctor import doctor, if_possible
from gengap.diagnosis.loop import Loop
from gengap.diagnosis.run import follow, watched_data
from gengap.diagnosis.sketch import LENGTH, Sketch
from gengap.diagnosis.trace import Sizes


def diagnosed(train, **how):
    how = {"model": loops.make_model, "data": loops.make_data, "processes": 1, **how}
    return doctor(train, **how)


def named(found, name):
    return next(finding for finding in found.findings if finding.name == name)


def squares_gradient(weights, samples, x, y):
    """Of the mean of (w x - y)^2 over samples: 2 x (w x - y)."""
    x, y = x[list(samples)], y[list(samples)]
    return (2 * x * (x @ weights - y)).mean(0)


def test_gradients_and_expectations_are_those_of_the_formula():
    it = Loop(loops.train, loops.make_model, loops.make_data)
    data = watched_data(it, 19, 0)
    trace = if_possible(it, data, Sizes(4, 3), 0)
    x, y = (part.numpy() for part in loops.make_data().tensors)
    x, y = x[data.chosen], y[data.chosen]
    assert [len(u.passes) for u in trace.updates] == [3, 2, 3, 2]
    for update in trace.updates:
        parts = [squares_gradient(trace.start[:, None], p.samples, x, y) for p in update.passes]
        np.testing.assert_allclose(update.gradient, np.sum(parts, 0) / 3, rtol=1e-12)


@pytest.mark.parametrize(("divide", "scale"), [(True, 2 / 3), (False, 2.0)])
def test_the_difference_is_that_of_the_formula(divide, scale):
    """Full updates are right or three times as long; an update of 4 + 3 samples gets the sum of two means, over 3 or 1."""
    it = Loop(partial(loops.train, divide=divide), loops.make_model, loops.make_data)
    found = diagnosed(it.train)
    data = watched_data(it, 19, 0)
    updates = follow(it, data, Sizes(4, 3), seed=0).updates
    x, y = (part.numpy()[data.chosen] for part in loops.make_data().tensors)
    assert named(found, "accumulation").state == ("ok" if divide else "fault")
    assert named(found, "accumulation").difference == pytest.approx(0 if divide else 2, abs=1e-9)
    weights = weights_at_start(it)
    differences = []
    for update in updates[1::2]:
        whole = squares_gradient(weights, update.samples, x, y)
        parts = [squares_gradient(weights, p.samples, x, y) for p in update.passes]
        differences.append(np.linalg.norm(scale * np.mean(parts, 0) - whole) / np.linalg.norm(whole))
    assert named(found, "last window").difference == pytest.approx(max(differences), rel=1e-9)
    assert named(found, "last window").state == "fault"


def weights_at_start(it):
    return follow(it, watched_data(it, 19, 0), Sizes(4), seed=0).start[:, None]


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("make_model", "cannot be told"),
        ("make_wide_model", "the least of their weights is -"),
        ("make_model_of_two", "no weights explain"),
    ],
)
def test_samples_that_depend_on_each_other_are_not_judged(model, why):
    found = diagnosed(loops.coupled, model=getattr(loops, model))
    finding = named(found, "loss reduction")
    assert finding.state == "not checked"
    assert why in finding.compared
    assert named(found, "accumulation").state == "not checked"


def test_a_noisy_loop_is_not_judged():
    found = diagnosed(loops.noisy)
    assert "differ by" in named(found, "loss reduction").compared
    assert "has no parameter accumulate" in named(found, "accumulation").compared


def test_an_endless_loop_is_stopped_and_its_words_are_no_result(capsys):
    found = diagnosed(loops.endless)
    assert found.passes > 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "begin" in said.err


def test_nothing_stays_changed():
    kept = [torch.autograd.backward, functional.dropout, functional.batch_norm, functional.scaled_dot_product_attention]
    kept += [
        DataLoader.__init__,
        DataLoader.__iter__,
        torch.autocast.__init__,
        torch.amp.GradScaler.step,
        torch.compile,
    ]
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    diagnosed(loops.train)
    now = [torch.autograd.backward, functional.dropout, functional.batch_norm, functional.scaled_dot_product_attention]
    now += [DataLoader.__init__, DataLoader.__iter__, torch.autocast.__init__, torch.amp.GradScaler.step, torch.compile]
    assert all(a is b for a, b in zip(kept, now, strict=True))
    assert torch.equal(state[0], torch.get_rng_state())
    assert np.array_equal(state[1], np.random.get_state()[1])


def test_functions_that_no_other_process_can_import_are_not_compared():
    found = diagnosed(lambda model, data, *, batch_size: loops.train(model, data, batch_size=batch_size), processes=2)
    assert "write them with def in a module" in named(found, "gradient of processes").compared


def test_a_diagnosis_prints_and_converts():
    found = diagnosed(partial(loops.train, divide=False))
    assert str(found).startswith("train: 2 faults in ")
    document = found.to_dict()
    assert document["healthy"] is False
    assert document["findings"][1]["name"] == "accumulation"
    assert document["findings"][1]["difference"] == pytest.approx(2)
    assert pickle.loads(pickle.dumps(found)) == found


class Endless(IterableDataset):
    def __iter__(self):
        return iter(())


BAD = {
    "signature": (loops.wrong_signature, {}, "cannot be called as wrong_signature(model, data, batch_size=4)"),
    "idle": (loops.idle, {}, "made no step of an optimizer"),
    "broken": (loops.broken, {}, "raised RuntimeError: out of coffee"),
    "closure": (loops.with_closure, {}, "computes gradients by itself"),
    "batch": (loops.train, {"batch_size": 1}, "batch_size is 1; give 2 or more"),
    "processes": (loops.train, {"processes": 0}, "processes is 0; give 1 or more"),
    "norm": (loops.train, {"norm_batch": 0}, "norm_batch is 0; give 1 or more"),
    "rule": (loops.train, {"lr_rule": "cubic"}, "lr_rule is 'cubic'; known are: constant, sqrt, linear"),
    "few samples": (loops.train, {"batch_size": 5}, "the data has 19 samples, but 24 are needed"),
    "iterable": (loops.train, {"data": Endless}, "the data is a Endless; give a map-style data set"),
    "model": (loops.train, {"model": loops.broken}, "the function that makes the model raised TypeError"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name):
    train, how, says = BAD[name]
    with pytest.raises(BadInput) as error:
        diagnosed(train, **how)
    assert says in str(error.value)


@pytest.mark.parametrize("sizes", [(3, 4), (4000, 6000)])
def test_a_sketch_is_linear_and_keeps_lengths(sizes):
    sketch, rng = Sketch(sizes, seed=0), torch.Generator().manual_seed(0)
    a, b = ([torch.randn(n, generator=rng, dtype=torch.float64) for n in sizes] for _ in range(2))
    both = [2 * u - 3 * v for u, v in zip(a, b, strict=True)]
    np.testing.assert_allclose(sketch(both), 2 * sketch(a) - 3 * sketch(b), atol=1e-10)
    length = torch.cat(a).norm().item()
    # the squared length has relative standard deviation sqrt(2 / 4096) at most, the length half of that
    assert np.linalg.norm(sketch(a)) == pytest.approx(
        length, rel=5 * np.sqrt(2 / LENGTH) / 2 if sum(sizes) > LENGTH else 1e-12
    )
    assert np.array_equal(sketch([None, a[1]]), sketch([torch.zeros(sizes[0]), a[1]]))
