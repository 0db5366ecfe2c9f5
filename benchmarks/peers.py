"""The tools others use for the curvature of networks, called as their manuals say.

PyHessian 0.1 calls `torch.eig`, which torch has removed; it is given `torch.linalg.eigh` under that name, which is faster
for its symmetric matrices. Nothing else of it is changed.
"""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


def pyhessian(model: nn.Module, arrays: tuple[Tensor, Tensor]) -> Any:
    """Give PyHessian's object for one batch of all samples, which is its fastest form: the graph is kept."""
    from pyhessian import hessian

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about backward(create_graph=True)
        return hessian(model, cross_entropy, data=arrays, cuda=False)


@contextmanager
def with_eig() -> Iterator[None]:
    """Let PyHessian find `torch.eig`."""

    def eig(matrix: Tensor, eigenvectors: bool = True) -> tuple[Tensor, Tensor]:  # noqa: ARG001
        values, vectors = torch.linalg.eigh(matrix)
        return torch.stack([values, torch.zeros_like(values)], 1), vectors

    torch.eig, before = eig, torch.eig
    try:
        yield
    finally:
        torch.eig = before


class TookTooLong(Exception):  # noqa: N818 (it says what happened)
    """A peer was stopped."""


class Counted:
    """PyHessian's products, counted; after `until` on the clock of CPU time the next one raises `TookTooLong`."""

    def __init__(self, until: float = float("inf")) -> None:
        module: Any = import_module("pyhessian.hessian")  # the package puts a class under that name
        self.module, self.original, self.products, self.until = module, module.hessian_vector_product, 0, until

    def __enter__(self) -> "Counted":
        def product(*arguments: Any) -> Any:
            if time.process_time() > self.until:
                raise TookTooLong
            self.products += 1
            return self.original(*arguments)

        self.module.hessian_vector_product = product
        return self

    def __exit__(self, *error: object) -> None:
        self.module.hessian_vector_product = self.original


def curvlinops_hessian(model: nn.Module, arrays: tuple[Tensor, Tensor], chunk: int) -> Any:
    """Give the Hessian of curvlinops, in chunks."""
    from curvlinops import HessianLinearOperator

    inputs, targets = arrays
    data = list(zip(inputs.split(chunk), targets.split(chunk), strict=True))
    params = [p for p in model.parameters() if p.requires_grad]
    return HessianLinearOperator(model, nn.CrossEntropyLoss(), params, data, check_deterministic=False)


def largest_by_scipy(operator: Any, tolerance: float, seed: int) -> float:
    """Find the largest eigenvalue by ARPACK."""
    from scipy.sparse.linalg import eigsh

    start = np.random.default_rng(seed).normal(size=operator.shape[0]).astype(operator.dtype)
    return float(eigsh(operator, k=1, which="LA", tol=tolerance, v0=start, return_eigenvectors=False)[0])
