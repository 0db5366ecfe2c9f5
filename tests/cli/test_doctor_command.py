"""gengap doctor: exit codes and JSON. Oracle: the loop of the package has no faults, and the one of this file has one."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def make_model():
    return nn.Linear(3, 2)


def make_data():
    rng = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(30, 3, generator=rng), torch.randint(2, (30,), generator=rng))


def train(model, data, *, batch_size):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for inputs, targets in DataLoader(data, batch_size, shuffle=True, drop_last=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()


@pytest.mark.ranks
def test_the_loop_of_the_package_is_healthy_on_two_processes(gengap):
    found = gengap(
        "doctor", "--train", "gengap.diagnosis.example:train", "--json", "--norm-batch", 32, "--lr-rule", "linear"
    )
    assert found.code == 0
    document = found.json()
    assert document["healthy"] is True
    assert [one["name"] for one in document["findings"] if one["state"] == "not checked"] == ["gradient clipping"]


def test_a_fault_ends_with_1_and_says_what_to_change(gengap):
    found = gengap("doctor", "--train", "test_doctor_command:train", "--processes", 1)
    assert found.code == 1
    assert "train: 1 fault in " in found.out
    assert "leaves out" in found.out
    assert "drop_last=False" in found.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--train", "absent:train"], "cannot import 'absent'"),
        (["--train", "test_doctor_command:train", "--model", "test_doctor_command:net"], "has no function 'net'"),
        (["--train", "test_doctor_command:train", "--lr-rule", "cubic"], "lr_rule is 'cubic'"),
    ],
)
def test_bad_input_ends_with_2(words, says, gengap):
    found = gengap("doctor", "--quiet", *words)
    assert found.code == 2
    assert says in found.err
