"""Training on inputs that were moved against the network (the fast gradient sign method)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from gengap.core.errors import BadInput
from gengap.objectives.objective import feed_aside
from gengap.problem.losses import MeanLoss
from gengap.problem.trees import Tree, feed, leaves, map_tensors


@dataclass(frozen=True, slots=True)
class Adversarial:
    r"""The loss on clean inputs, mixed with the loss on inputs moved where it grows fastest.

    .. math::
        J = (1 - s)\,L(x) + s\,L(x'), \qquad x' = x + \epsilon\,\mathrm{sign}(\nabla_x L(x)).

    The move is a constant: no gradient is taken through its making, and `.grad` of the weights is not touched by it. In
    training mode the move is made in the pass over the clean inputs, with its dropout masks and batch statistics; the pass
    over the moved inputs has its own. Batch norm couples the samples of a batch; without it each sample's move is its own.

    Cost of an update: about 5 passes in place of 3 (forward, backward to the inputs, forward, and both backward), and the
    activations of two forward passes at once.

    Attributes:
        epsilon: the largest change of an input number, in the scale of the inputs, > 0; for pixels in 0 to 1 for example 8/255.
        share: s, from 0 to 1; above 0.
        bounds: the smallest and the largest value an input may have; moved inputs are clamped to them. None: no clamping.
        running_statistics: which inputs batch norm's running averages follow: "clean" ones, which are what tests are made on,
            or "both" in turn, as happens where nobody thinks of it.

    Raises:
        BadInput: a value out of its range.

    Source:
        Goodfellow, Shlens & Szegedy 2014, arXiv:1412.6572, sec. 6 with alpha = 1 - s = 0.5. Tried against the generalisation
        gap in Keskar et al. 2017, arXiv:1609.04836, without success.
    """

    epsilon: float
    share: float = 0.5
    bounds: tuple[float, float] | None = None
    running_statistics: Literal["clean", "both"] = "clean"

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < float("inf"):
            raise BadInput(f"epsilon is {self.epsilon}; give how far inputs are moved, more than 0")
        if not 0 < self.share <= 1:
            raise BadInput(f"share is {self.share}; give the weight of moved inputs, above 0 and at most 1")
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise BadInput(f"bounds are {self.bounds}; give the smallest and the largest input, in this order")
        if self.running_statistics not in {"clean", "both"}:
            raise BadInput(f"running_statistics is {self.running_statistics!r}; choose 'clean' or 'both'")

    def __call__(
        self,
        model: nn.Module,
        loss: MeanLoss,
        inputs: Tree,
        targets: Tensor,
        *,
        indices: Tensor | None = None,
        epoch: int = 0,
    ) -> Tensor:
        """Give the mixed loss.

        Args:
            model: in training mode.
            loss: (outputs, targets) to the mean over samples.
            inputs: a tensor, tuple or dict; its floating tensors are moved.
            targets: of B samples.
            indices: not used; nothing is drawn.
            epoch: not used.

        Returns:
            A scalar, mean over samples, in the unit of `loss`.

        Raises:
            BadInput: no input is floating, or gradients are switched off.
        """
        del indices, epoch
        clean, moved = self._move(model, loss, inputs, targets)
        pass_over = feed_aside if self.running_statistics == "clean" else feed
        adversarial = loss(pass_over(model, moved), targets)
        return adversarial if self.share == 1 else (1 - self.share) * clean + self.share * adversarial

    def _move(self, model: nn.Module, loss: MeanLoss, inputs: Tree, targets: Tensor) -> tuple[Tensor, Tree]:
        """Give the clean loss, and the inputs moved."""
        free = map_tensors(lambda x: x.detach().requires_grad_() if x.is_floating_point() else x, inputs)
        movable = [x for x in leaves(free) if x.requires_grad]
        if not movable or not torch.is_grad_enabled():
            why = "gradients are switched off" if movable else "no input is a floating tensor"
            raise BadInput(f"inputs cannot be moved against the network because {why}; use the plain loss here")
        clean = loss(feed(model, free), targets)
        slopes = torch.autograd.grad(clean, movable, retain_graph=self.share < 1, materialize_grads=True)
        slope_of = {id(x): slope for x, slope in zip(movable, slopes, strict=True)}
        return clean, map_tensors(lambda x: self._along(x, slope_of[id(x)]) if id(x) in slope_of else x, free)

    def _along(self, x: Tensor, slope: Tensor) -> Tensor:
        """Take the step in one input tensor."""
        moved = x.detach().add(slope.sign(), alpha=self.epsilon)
        return moved if self.bounds is None else moved.clamp_(*self.bounds)
