"""Oracle: plain indexing of the tensors, `x[order[i : i + size]]`, compared bit by bit."""

import numpy as np
import pytest
import torch
from problems_at_hand import N, Pairs, data
from torch.utils.data import TensorDataset

from gengap.core.errors import BadInput
from gengap.problem.samples import InMemory, Streamed, as_samples, parse_bytes
from gengap.problem.trees import leaves

FORMS = {
    "tensor": lambda x: x,
    "tuple": lambda x: (x[..., :2], x[..., 2:]),
    "dict": lambda x: {"left": x[..., :3], "right": x[..., 3:]},
}
SOURCES = ["tensors", "data set in memory", "data set streamed"]


def split_of(source, form):
    x, y = data()
    if source == "tensors":
        return as_samples((FORMS[form](x), y), "train", "4 GiB")
    return as_samples(Pairs(x, y, FORMS[form]), "train", "4 GiB" if source == "data set in memory" else 10)


def equal(tree, other):
    """Same structure, same dtype, same bits."""
    assert type(tree) is type(other)
    if isinstance(tree, dict):
        assert list(tree) == list(other)
    for a, b in zip(leaves(tree), leaves(other), strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


@pytest.mark.parametrize("shuffled", [False, True], ids=["as stored", "shuffled"])
@pytest.mark.parametrize("size", [1, 5, N, 100])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_the_same_batches(source, form, size, shuffled):
    samples, (x, y) = split_of(source, form), data()
    assert isinstance(samples, Streamed if source == "data set streamed" else InMemory)
    assert len(samples) == N
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3)) if shuffled else None
    rows = torch.arange(N) if order is None else order
    found = list(samples.batches(size, order))
    assert [len(targets) for _, targets in found] == [size] * (N // size) + [N % size] * (N % size > 0)
    for i, (inputs, targets) in enumerate(found):
        chosen = rows[i * size : (i + 1) * size]
        equal(inputs, FORMS[form](x[chosen]))
        equal(targets, y[chosen])


@pytest.mark.parametrize("size", [7, 1000, 4096, 5000])
def test_orders_longer_than_what_is_copied_at_once(size):
    x, y = torch.arange(9001.0)[:, None], torch.arange(9001)
    order = torch.randperm(9001, generator=torch.Generator().manual_seed(0))
    found = list(InMemory(x, y).batches(size, order))
    assert [len(b) for _, b in found] == [len(b) for b in order.split(size)]
    assert torch.equal(torch.cat([b for _, b in found]), order)
    assert torch.equal(torch.cat([a for a, _ in found])[:, 0], order.float())


@pytest.mark.parametrize("source", SOURCES)
def test_subset_and_place(source):
    samples, (x, y) = split_of(source, "dict"), data()
    chosen = torch.tensor([30, 2, 2, 7])
    part = samples.subset(chosen).to(torch.device("cpu"), torch.float64)
    assert len(part) == 4
    ((inputs, targets),) = part.batches(10)
    equal(inputs, FORMS["dict"](x[chosen].double()))
    equal(targets, y[chosen])
    ((inputs, _),) = samples.subset(chosen).batches(10)
    assert inputs["left"].dtype == torch.float32


def test_streaming_draws_no_random_numbers():
    before = torch.get_rng_state()
    list(split_of("data set streamed", "tensor").batches(5))
    assert torch.equal(torch.get_rng_state(), before)


def test_numpy_and_python_numbers_become_tensors():
    samples = as_samples([(np.float32([i, i + 1]), i % 3) for i in range(5)], "train", "1 MiB")
    ((inputs, targets),) = samples.batches(9)
    equal(inputs, torch.tensor([[0.0, 1], [1, 2], [2, 3], [3, 4], [4, 5]]))
    equal(targets, torch.tensor([0, 1, 2, 0, 1]))


def test_a_tensor_data_set_is_not_copied():
    x, y = data()
    samples = as_samples(TensorDataset(x, y), "train", 0)
    assert samples.inputs is x
    assert samples.targets is y


def test_a_data_set_that_just_fits_is_read_and_one_byte_less_streams_it():
    x, y = data()
    size = x.nbytes + y.nbytes
    assert isinstance(as_samples(Pairs(x, y), "train", size), InMemory)
    assert isinstance(as_samples(Pairs(x, y), "train", size - 1), Streamed)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((torch.ones(3, 1), torch.ones(2)), "different numbers of samples: [2, 3]"),
        (((torch.ones(3), torch.ones(4)), torch.ones(3)), "different numbers of samples: [3, 4]"),
        ((torch.ones(0, 1), torch.ones(0)), "no samples"),
        ([], "train has no samples"),
        (iter([1]), "train is a list_iterator; give a pair of tensors"),
        (5, "train is a int; give a pair of tensors"),
        ([("text", 1), ("more", 2)], "train[0] is not an (input, target) pair"),
        ([3, 4], "train[0] is not an (input, target) pair"),
        ([(torch.ones(1), None)] * 2, "train[0] is not an (input, target) pair"),
        ((np.ones((3, 2)), np.ones(3)), "train has targets in a ndarray; make inputs and targets tensors"),
        ((np.ones((3, 2)), torch.ones(3)), "inputs hold a ndarray; give tensors, or tuples or dicts of them"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_data_that_are_none(given, says):
    with pytest.raises(BadInput) as caught:
        as_samples(given, "train", "1 MiB")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("4 GiB", 4 * 1024**3),
        ("512MiB", 512 * 1024**2),
        (" 1.5 KiB ", 1536),
        ("1.5kb", 1500),
        ("2 MB", 2_000_000),
        ("1 GB", 10**9),
        ("10 B", 10),
        (77, 77),
    ],
)
def test_sizes(text, bytes_):
    assert parse_bytes(text) == bytes_


@pytest.mark.parametrize("text", ["", "4", "GiB", "4 TiB", "-1 B", "4 GiB or so", "4 iB"])
def test_sizes_that_are_none(text):
    with pytest.raises(BadInput, match=r"memory_limit is .*'4 GiB'"):
        parse_bytes(text)
