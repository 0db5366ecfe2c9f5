"""Oracle: the catalogue's own table, and for messages what a reader must learn."""

import math

import pytest
import torch

from gengap.core.catalogue import DATA
from gengap.core.errors import BadInput, MissingData
from gengap.core.recipe import Recipe
from gengap.problem.load import load
from gengap.problem.problem import Origin
from gengap.training.solo import train


@pytest.mark.parametrize("name", [name for name, entry in DATA.items() if not entry.files])
def test_what_needs_no_files_loads_and_fits(name):
    problem, entry = load(name), DATA[name]
    problem.check()
    assert (len(problem.samples("train")), len(problem.samples("test"))) == (entry.train, entry.test)
    assert tuple(problem.train[0].shape[1:]) == entry.input_shape
    assert problem.loss.name == entry.loss
    assert problem.name == f"{entry.network} on {name}"
    assert problem.origin == Origin(data=name, network=entry.network)


def test_options_network_and_loss():
    problem = load("digits", network="keskar-f1", loss="mean_square", train_size=300)
    assert len(problem.samples("train")) == 300
    assert problem.loss.name == "mean_square"
    assert problem.origin == Origin(data="digits", network="keskar-f1", options=(("train_size", 300),))


def test_any_training_set_can_be_cut():
    """A smaller choice is part of a larger, and the test set stays."""
    whole, more, few = (load("gaussian-informative", train_size=size, draw_seed=3) for size in (None, 60, 20))
    rows = [{tuple(row.tolist()) for row in problem.train[0]} for problem in (whole, more, few)]
    assert [len(found) for found in rows] == [200, 60, 20]
    assert rows[2] < rows[1] < rows[0]
    assert torch.equal(few.test[0], whole.test[0])
    assert few.origin.options == (("draw_seed", 3), ("train_size", 20))
    again = load(few.origin.data, network=few.origin.network, **dict(few.origin.options))
    assert again.fingerprint == few.fingerprint != more.fingerprint


def test_random_labels():
    clean, noisy, other = (load("digits", random_labels=s, draw_seed=d) for s, d in ((0.0, 0), (0.4, 0), (0.4, 1)))
    assert torch.equal(noisy.train[0], clean.train[0])
    assert torch.equal(noisy.test[1], clean.test[1])
    changed = (noisy.train[1] != clean.train[1]).sum().item()
    assert abs(changed - 400 * 0.9) < 5 * (400 * 0.9 * 0.1) ** 0.5  # one draw in ten gives the old label
    assert not torch.equal(noisy.train[1], other.train[1])
    assert noisy.origin.options == (("random_labels", 0.4),)
    assert noisy.fingerprint != clean.fingerprint


def test_a_language_model_is_a_problem_like_others(tmp_path):
    """Uniform scores have the loss log C; a transformer learns to follow a text that repeats."""
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "input.txt").write_text("hello world. " * 20)
    problem = load("text", root=tmp_path, length=12)
    problem.check()
    loss = problem.loss_function("train")
    params = dict(problem.model(seed=0).named_parameters())
    start = loss.score({name: torch.zeros_like(p) for name, p in params.items()})
    assert start.loss == pytest.approx(math.log(9), rel=1e-6)
    recipe = Recipe(optimizer="adam", lr=3e-3, batch_size=8, budget={"steps": 60}, seed=0)
    end = train(problem, recipe).history[-1]
    assert end.train_loss < 0.3
    assert 90 < end.test_accuracy <= 100


def test_a_network_takes_the_shape_of_the_data():
    model = load("digits", network="smith-le-mlp").model(seed=0)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_a_network_that_does_not_fit_says_so():
    with pytest.raises(BadInput, match="keskar-f1 on digits does not take inputs of shape"):
        load("digits", network="keskar-f1").check()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"data": "mnits"}, "there is no data set called 'mnits'; known are: digits, mnist"),
        ({"data": "digits", "network": "keskar-f9"}, "there is no network called 'keskar-f9'; known are: mlp, convnet"),
        ({"data": "digits", "trian_size": 5}, "data set 'digits' has no option 'trian_size'; it has train_size"),
        ({"data": "gaussian-random", "train_size": 500}, "cannot choose 500 of 200 samples"),
        ({"data": "digits", "random_labels": 2}, "the share of random labels is 2; choose 0 to 1"),
        ({"data": "digits", "loss": "hinge"}, "there is no loss called 'hinge'; known are: cross_entropy"),
    ],
    ids=str,
)
def test_names_that_are_none(given, says):
    with pytest.raises(BadInput) as caught:
        load(**given)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name, entry in DATA.items() if entry.files])
def test_data_that_are_not_there(name, tmp_path, monkeypatch):
    with pytest.raises(MissingData, match=str(tmp_path)):
        load(name, root=tmp_path)
    monkeypatch.setenv("GENGAP_DATA", str(tmp_path))
    with pytest.raises(MissingData, match=str(tmp_path)):
        load(name)
