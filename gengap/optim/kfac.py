"""Kronecker-factored approximate curvature (Martens & Grosse 2015; Grosse & Martens 2016) as an optimizer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from gengap.core.errors import BadInput
from gengap.core.seeds import stream
from gengap.optim.arguments import check_decay, check_not_negative, check_positive
from gengap.optim.kfac_blocks import inverses, joined, parted
from gengap.optim.kfac_factors import FactorTap, Layer, is_factored, trained_weights
from gengap.optim.kfac_scores import LIKELIHOODS, Likelihood, scores
from gengap.optim.per_tensor import kept
from gengap.optim.wrapping import Closure

Average = Callable[[Tensor], None]


@dataclass(frozen=True, slots=True)
class Curvature:
    """How the Fisher matrix is estimated, averaged and inverted.

    Attributes:
        damping: added to the matrix, in units of curvature of the mean loss; weight decay comes on top.
        likelihood: what the outputs mean: "softmax" (logits of shape (B, C, ...), for cross-entropy), "bernoulli" (one logit for
            every output) or "gaussian" (for half the squared error).
        samples: labels drawn from the model's prediction for every sample, each a backward pass to the layers' outputs;
            None for the exact matrix, one such pass for every output.
        factor_decay: highest coefficient of the running average of the factors; the k-th average uses at most 1 - 1/k.
        factor_every: steps between two readings of the factors.
        inverse_every: steps between two inversions.
        kl_clip: highest predicted change of the outputs' distribution in a step (twice the divergence, nats); None for no limit.
        seed: of the drawn labels.
    """

    damping: float = 1e-3
    likelihood: Likelihood = "softmax"
    samples: int | None = 1
    factor_decay: float = 0.95
    factor_every: int = 1
    inverse_every: int = 10
    kl_clip: float | None = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive(damping=self.damping, factor_every=self.factor_every, inverse_every=self.inverse_every)
        check_decay(factor_decay=self.factor_decay)
        optional = {"samples": self.samples, "kl_clip": self.kl_clip}
        check_positive(**{name: value for name, value in optional.items() if value is not None})
        if self.likelihood not in LIKELIHOODS:
            raise BadInput(f"likelihood is {self.likelihood!r}; choose one of {', '.join(LIKELIHOODS)}")


class Kfac(Optimizer):
    r"""Natural gradient with a Kronecker product for every linear and convolutional layer.

    For a layer with weights W, inputs a and output gradients s the Fisher block is about :math:`A \otimes G`, with
    :math:`A = E[a a^\top]` and :math:`G = E[s s^\top]`; the bias is a weight of an input that is 1. Then

    .. math::
        U = (G + \tfrac{\gamma}{\pi} I)^{-1} (\nabla W + \beta W) (A + \pi \gamma I)^{-1}, \quad
        \gamma = \sqrt{\lambda + \beta}, \quad
        \pi^2 = \frac{\mathrm{tr} A / \dim A}{\mathrm{tr} G / \dim G},

    all U are shortened by one factor to respect `kl_clip`, and :math:`v \leftarrow m v + U`,
    :math:`w \leftarrow w - \eta v`. The labels behind G are drawn from the model's prediction, so that this is the Fisher
    matrix and not the scatter of the batch's gradients.

    All other weights (norm layers, embeddings, convolutions in groups) take plain momentum steps with the same rate; give
    them a group of their own for another one. The training loop is the usual one: the model is called as a whole in
    training mode, `backward`, `step`. With accumulation the factors are those of all passes since the last step.

    Cost, beside SGD: in every step that reads, a product of the inputs with themselves in every layer and `samples` backward
    passes without weight gradients; every `inverse_every` steps two Cholesky factorisations for every layer. Memory: four
    matrices (A, G and their inverses) for every layer.

    Not distributed by itself: with several processes give `average`, or each of them preconditions with its own factors and
    the weights drift apart. No half-precision weights. Other hooks on the layers' outputs see its backward passes too.

    Args:
        model: the network; hooks are put on it (`close` takes them away).
        lr: learning rate.
        momentum: heavy-ball coefficient, in [0, 1).
        weight_decay: L2 coefficient.
        curvature: of the Fisher matrix.
        params: groups of the model's weights; None for one group of all that are trained.
        average: called with every new factor to replace it, in place, by its mean over processes.

    Raises:
        BadInput: a number is out of its range, no layer is factored, or a weight is of half precision.

    Source:
        Martens & Grosse 2015, arXiv:1503.05671, sections 5 and 6.3; convolutions: Grosse & Martens 2016, arXiv:1602.01407;
        kl_clip: Ba, Grosse & Martens 2017, ICLR. Without their exact Gauss-Newton choice of lr, momentum and damping.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        curvature: Curvature | None = None,
        params: ParamsT | None = None,
        average: Average | None = None,
    ) -> None:
        check_not_negative(lr=lr, weight_decay=weight_decay)
        check_decay(momentum=momentum)
        trained = [p for p in model.parameters() if p.requires_grad] if params is None else params
        super().__init__(trained, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.curvature, self._average = curvature or Curvature(), average
        held = {p for group in self.param_groups for p in group["params"]}
        self._layers = [m for m in model.modules() if is_factored(m) and held.issuperset(trained_weights(m))]
        if not self._layers:
            raise BadInput("the model has no linear or convolutional layer to train; use another optimizer")
        if bad := [p.dtype for p in held if p.dtype not in {torch.float32, torch.float64}]:
            raise BadInput(f"K-FAC inverts matrices and needs weights in float32 or float64, not {bad[0]}")
        self._passes = 0
        # torch's cross-entropy has classes second
        axis = 1 if self.curvature.likelihood == "softmax" else -1
        self._tap = FactorTap(model, self._layers, self._scores, self._is_reading_step, axis=axis)

    def close(self) -> None:
        """Take the hooks off the model."""
        self._tap.close()

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor | None:  # type: ignore[override] # the loss is a tensor
        """Move every weight that has a gradient.

        Args:
            closure: zeroes the gradients, computes the loss, goes backward and returns the loss; None where that was done.

        Returns:
            What the closure returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._update_factors()
        directions = self._directions()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                direction = directions.get(weight)
                if direction is None:
                    direction = decayed(weight, group)
                velocity = kept(self.state[weight], "momentum_buffer", weight).mul_(group["momentum"]).add_(direction)
                weight.sub_(velocity, alpha=group["lr"])
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state back.

        Args:
            state_dict: what `state_dict` gave.
        """
        super().load_state_dict(state_dict)
        # Matrices of a file may begin at any byte, and products of such are rounded differently.
        for memory in self.state.values():
            memory.update({name: value.clone() for name, value in memory.items() if isinstance(value, Tensor)})

    def _update_factors(self) -> None:
        """Bring averages and inverses up to date, each where its turn is."""
        sums, groups = self._tap.take(), self._groups()
        self._passes = 0
        for layer in self._layers:
            memory = self.state[layer.weight]
            if layer in sums:
                self._add_to_average(memory, sums[layer].factors())
            # A layer that was not used in its first steps is inverted as soon as it has factors.
            is_turn = memory.get("step", 0) % self.curvature.inverse_every == 0 or "A_inverse" not in memory
            if is_turn and "A" in memory:
                damping = self.curvature.damping + groups[layer.weight]["weight_decay"]
                memory["A_inverse"], memory["G_inverse"] = inverses(memory["A"], memory["G"], damping)
            memory["step"] = memory.get("step", 0) + 1

    def _add_to_average(self, memory: dict[str, Any], factors: tuple[Tensor, Tensor]) -> None:
        """Take new factors into the running averages."""
        memory["readings"] = memory.get("readings", 0) + 1
        old = min(1 - 1 / memory["readings"], self.curvature.factor_decay)
        for name, factor in zip(("A", "G"), factors, strict=True):
            if self._average is not None:
                self._average(factor)
            kept(memory, name, factor).lerp_(factor, 1 - old)

    def _directions(self) -> dict[Tensor, Tensor]:
        """Precondition the gradients of all layers and shorten them together."""
        directions: dict[Tensor, Tensor] = {}
        change, groups = [], self._groups()
        for layer in self._layers:
            weights = trained_weights(layer)
            if any(weight.grad is None for weight in weights):
                continue
            slopes = [decayed(weight, groups[weight]) for weight in weights]
            for weight, slope, part in zip(weights, slopes, self._preconditioned(layer, slopes), strict=True):
                directions[weight] = part
                change.append(groups[weight]["lr"] ** 2 * (part * slope).sum())
        if self.curvature.kl_clip is not None and change:
            whole = torch.stack(change).sum()
            shorter = (self.curvature.kl_clip / whole.clamp_min(torch.finfo(whole.dtype).tiny)).sqrt().clamp(max=1.0)
            for direction in directions.values():
                direction.mul_(shorter)
        return directions

    def _preconditioned(self, layer: Layer, slopes: list[Tensor]) -> list[Tensor]:
        """Multiply the gradient of a layer by the inverse of its block."""
        memory = self.state[layer.weight]
        if "A_inverse" not in memory:
            raise BadInput(
                f"K-FAC saw no pass through {layer}, which has a gradient; call the whole model in training mode"
            )
        return parted(memory["G_inverse"] @ joined(slopes) @ memory["A_inverse"], slopes)

    def _groups(self) -> dict[Tensor, dict[str, Any]]:
        return {weight: group for group in self.param_groups for weight in group["params"]}

    def _is_reading_step(self) -> bool:
        return self._steps() % self.curvature.factor_every == 0

    def _steps(self) -> int:
        return int(self.state[self._layers[0].weight].get("step", 0))

    def _scores(self, outputs: Tensor) -> list[Tensor]:
        """Make the gradients of one pass; their draws depend on seed, step and number of the pass only."""
        source = torch.Generator(outputs.device)
        source.manual_seed(stream(self.curvature.seed, "kfac", self._steps(), self._passes))
        self._passes += 1
        return scores(self.curvature.likelihood, outputs, self.curvature.samples, source)


def decayed(weight: Tensor, group: dict[str, Any]) -> Tensor:
    """Give the gradient of a weight with that of the decay term."""
    assert weight.grad is not None  # callers have looked
    return weight.grad.add(weight, alpha=group["weight_decay"])
