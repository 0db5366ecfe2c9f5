# Oracle: dictionaries written by hand, and Python's own JSON parser with numbers that are not finite forbidden.
import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from gengap.core.estimate import Estimate, mean
from gengap.core.records import Record
from gengap.measures.records import Conditions

CONDITIONS = Conditions("train", 1200, "running", 500, "float32", 42, 1.25, 2**30, None)
SPREAD = {
    "data": "train",
    "samples": 1200,
    "batch_norm": "running",
    "chunk_size": 500,
    "dtype": "float32",
    "weights": 42,
    "seconds": 1.25,
    "memory_limit": 2**30,
    "peak_memory": None,
}


@dataclass(frozen=True, slots=True)
class Inner:
    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Outer(Record):
    values: object
    conditions: Conditions | None = CONDITIONS


@pytest.mark.parametrize(
    ("values", "written"),
    [
        (1.5, 1.5),
        (math.inf, None),
        ((1, math.nan, -math.inf), [1, None, None]),
        (Inner("a", math.nan), {"name": "a", "value": None}),
        ([Inner("a", 1.0), None], [{"name": "a", "value": 1.0}, None]),
        ({"x": {1: (True, "text")}}, {"x": {"1": [True, "text"]}}),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([[1.0, np.nan], [2.0, np.inf]]), [[1.0, None], [2.0, None]]),
        (mean([1.0, 3.0]), mean([1.0, 3.0]).to_dict()),
        ({"layer": Estimate(1.0, None, 1, None, "one")}, {"layer": Estimate(1.0, None, 1, None, "one").to_dict()}),
        ((), []),
        ({}, {}),
    ],
    ids=repr,
)
def test_what_is_written(values, written):
    found = Outer(values).to_dict()
    assert found == {"values": written, **SPREAD}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(
    "tensors",
    [torch.ones(2), (torch.ones(2),), {"w": torch.ones(2)}, ({"w": torch.ones(2)}, {"w": torch.ones(2)})],
    ids=type,
)
def test_tensors_are_left_out(tensors):
    assert Outer(tensors).to_dict() == SPREAD


def test_a_record_without_conditions_has_none():
    assert Outer(2, None).to_dict() == {"values": 2}


def test_conditions_in_words():
    assert str(CONDITIONS) == "data train (1,200 samples), batch norm running, float32, 1.25 s"
    assert (
        str(replace(CONDITIONS, samples=None, seconds=0.00123)) == "data train, batch norm running, float32, 0.00123 s"
    )
