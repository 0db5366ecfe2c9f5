"""Settings under which torch can differentiate a network twice."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def differentiable_twice(wanted: bool = True) -> Iterator[None]:
    """Use only kernels that have a second derivative: the fused ones of attention and of recurrent nets have none."""
    with ExitStack() as stack:
        if wanted:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield
