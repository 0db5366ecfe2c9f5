"""Runs to be kept, and programs that keep them in processes of their own."""

import subprocess
import sys

import numpy as np

from gengap.store.rows import RunRow


def row(i=0, **changes):
    fields = {
        "key": f"key{i:04d}",
        "problem": "p" * 32,
        "recipe": {"lr": 0.1 + i, "betas": [0.9, 0.999], "schedule": {"name": "constant"}, "warmup": None},
        "outcome": "finished",
        "step": 100,
        "reason": "",
        "cost": {"seconds": 1.5, "steps": 100},
        "environment": {"torch": "2.6", "cores": 2},
        "history": tuple({"step": s, "train_loss": 2.0 / (s + 1), "test_accuracy": None} for s in (0, 50, 100)),
        "created": "2024-01-01T00:00:00Z",
    }
    return RunRow(**{**fields, **changes})


def weights(i=0):
    """Arrays of several dtypes and shapes; none of them alike for two runs."""
    rng = np.random.default_rng(i)
    return {
        "final": {"0.weight": rng.normal(size=(7, 3)).astype(np.float32), "0.bias": rng.normal(size=3)},
        "initial": {"0.weight": rng.normal(size=(7, 3)).astype(np.float32), "0.bias": np.zeros(3)},
        "buffers": {"1.running_mean": rng.normal(size=5), "1.num_batches_tracked": np.array(i, dtype=np.int64)},
    }


def alike(found, expected):
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def whole(store, i):
    """Run i is in the ledger as it was given, with all its files."""
    assert store.run(f"key{i:04d}") == row(i)
    for which, arrays in weights(i).items():
        alike(store.weights(f"key{i:04d}", which), arrays)


BEGIN = """
import sys
sys.path.insert(0, sys.argv[1])
from ledgers_at_hand import row, weights
from gengap.store.store import Store
folder, first, last = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
"""


def program(text, folder, first=0, last=0):
    """Start a Python program beside this one; its lines can be read from `stdout`."""
    here = __file__.rpartition("/")[0]
    arguments = [here, str(folder), str(first), str(last)]
    return subprocess.Popen([sys.executable, "-c", BEGIN + text, *arguments], stdout=subprocess.PIPE, text=True)
