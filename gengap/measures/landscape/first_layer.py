"""The outputs of a first linear layer, blended from point to point instead of multiplied anew."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gengap.measures.landscape.positions import Place
from gengap.measures.protocols import Chunked, LossFunction

FEWEST = 128  # inputs of a layer below which multiplying costs no more than reading the kept outputs
Key = tuple[Any, ...]


class FirstLayer(TorchFunctionMode):
    """While active, a linear layer that sees the stored samples themselves is not multiplied again.

    The output of such a layer is linear in its weights, so at a point that is a blend of trees it is the same blend of
    the outputs for these trees. They are kept for every chunk of samples, as long as `room` lasts. A layer takes part
    where its weight is the very tensor of the point, and its input is a view of the samples as they are stored; the
    others, and all samples that are read or changed on the way, are computed as always. Results differ by rounding.

    Args:
        place: where the weights come from.
        samples: tensors whose storages hold the samples.
        room: bytes that the outputs may take.
    """

    def __init__(self, place: Place, samples: Sequence[Tensor], room: int) -> None:
        super().__init__()
        self._place, self._room = place, room
        self._samples = list(samples)  # held, so that no other tensor gets their address
        self._storages = {address(x) for x in self._samples}
        self._names = {id(p): name for name, p in place.point.items()}
        self._kept: dict[Key, list[Tensor | None]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.linear and not kwargs and self._takes(*args[:2]):
            found = self._blended(*args)
            if found is not None:
                return found
        return func(*args, **(kwargs or {}))

    def _takes(self, inputs: Tensor, weight: Tensor) -> bool:
        return (
            self._place.blended
            and id(weight) in self._names
            and weight.shape[-1] >= FEWEST
            and inputs.dtype == weight.dtype
            and inputs.is_contiguous()
            and not inputs.is_inference()
            and address(inputs) in self._storages
            and not torch.is_autocast_enabled(inputs.device.type)
        )

    def _blended(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
        name = self._names[id(weight)]
        bias_name = None if bias is None else self._names.get(id(bias))
        if (bias is None) != (bias_name is None):
            return None  # a bias that does not move with the weights
        # A version counts changes in place, which would make what is kept wrong.
        key = (name, inputs.data_ptr(), tuple(inputs.shape), inputs._version)
        if key not in self._kept:
            parts = self._place.parts
            needed = len(parts) * inputs.numel() // inputs.shape[-1] * weight.shape[0] * weight.element_size()
            if needed > self._room:
                return None
            self._room -= needed
            self._kept[key] = [output(inputs, part, name, bias_name) for part in parts]
        return self._place.blend(self._kept[key])


def output(inputs: Tensor, part: Mapping[str, Tensor], weight: str, bias: str | None) -> Tensor | None:
    """Return the output of a layer with the weights of one part, None for zeros."""
    w, b = part.get(weight), None if bias is None else part.get(bias)
    if w is not None:
        return F.linear(inputs, w, b)
    return b  # is added to every sample


def address(x: Tensor) -> int:
    """Return where the storage of a tensor lies."""
    return x.untyped_storage().data_ptr()


def stored_samples(functions: Sequence[LossFunction], params: Mapping[str, Tensor]) -> list[Tensor]:
    """Find the samples that losses hold in memory, as single tensors that stay where they are.

    Args:
        functions: the losses.
        params: any weights, by name.

    Returns:
        A tensor for each such loss. One that recomputes statistics is left out: asking it for samples costs a pass.
    """
    found = []
    for f in functions:
        if not isinstance(f, Chunked) or f.describe().get("batch_norm") == "recompute":
            continue
        first, again = (next(iter(f.chunks(params))).inputs for _ in range(2))
        if isinstance(first, Tensor) and isinstance(again, Tensor) and address(first) == address(again):
            found.append(first)
    return found
