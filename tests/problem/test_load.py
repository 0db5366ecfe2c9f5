"""Oracle: the catalogue's own table, and for messages what a reader must learn."""

import pytest
import torch

from gengap.core.catalogue import DATA
from gengap.core.errors import BadInput, MissingData
from gengap.problem.load import load
from gengap.problem.problem import Origin


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
        ({"data": "mnist", "train_size": 5}, "data set 'mnist' has no option 'train_size'"),
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
