"""The 1,797 handwritten digits that come with scikit-learn: no download, no files."""

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from gengap.core.errors import BadInput
from gengap.problem.dataset import DataSet

SAMPLES = 1797
LARGEST_PIXEL = 16


def load(root: str | Path | None = None, *, train_size: int = 1000) -> DataSet:
    """Split the digits into training and test samples, always in the same way.

    The samples are put in the order of `numpy.random.RandomState(0).permutation(1797)`, a stream that numpy keeps
    unchanged for ever; the first `train_size` train and the others test. So no order in the original set separates
    what is trained from what is tested.

    Args:
        root: not used; the set is embedded.
        train_size: how many train, 1 to 1,796. Smaller training sets are part of larger ones.

    Returns:
        Inputs of shape (N, 1, 8, 8) in [0, 1] (pixels / 16), targets 0 to 9.

    Raises:
        BadInput: `train_size` leaves no sample to train or to test.
    """
    del root
    if not 1 <= train_size < SAMPLES:
        raise BadInput(f"train_size is {train_size}; digits has {SAMPLES} samples, choose 1 to {SAMPLES - 1}")
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(SAMPLES)
    inputs = torch.from_numpy(pixels[order]).to(torch.float32).div_(LARGEST_PIXEL).reshape(-1, 1, 8, 8)
    targets = torch.from_numpy(labels[order]).to(torch.int64)
    train, test = slice(train_size), slice(train_size, None)
    return DataSet((inputs[train], targets[train]), (inputs[test], targets[test]), 10, "digits")
