"""Settings of torch under which a network is one function, whatever is asked of it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from gengap.core.errors import BadInput


@contextmanager
def consistent_kernels(*, twice: bool) -> Iterator[None]:
    """Use kernels that give the same function with and without a gradient.

    Without one, torch takes a fast path through transformer layers that sets padded positions to zero, which the other
    path does not: the value would not be that of the function whose gradient is taken.

    Args:
        twice: also leave out kernels that have no second derivative: the fused ones of attention, and cuDNN's
            recurrent nets.

    Yields:
        Nothing.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        if twice:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        torch.backends.mha.set_fastpath_enabled(False)
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        yield


@contextmanager
def second_derivative_needed() -> Iterator[None]:
    """Say it in a sentence where torch has no second derivative.

    Yields:
        Nothing.

    Raises:
        BadInput: an operation of the network or of the loss can be differentiated only once.
        RuntimeError: whatever else torch raises.
    """
    try:
        yield
    except RuntimeError as error:  # and NotImplementedError, which is one
        text = str(error).partition("\n")[0]
        if "is not implemented" not in text and "double backward" not in text:
            raise
        raise BadInput(
            f"torch cannot differentiate an operation of the network or of the loss twice ({text}); replace the operation, or "
            f"measure what needs gradients only"
        ) from error
