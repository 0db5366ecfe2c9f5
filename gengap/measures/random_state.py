"""The global random generators, seeded for a while."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from gengap.problem.random_state import kept

__all__ = ["kept", "seeded"]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block with all global generators seeded, and put them back afterwards."""
    with kept():
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        yield
