"""Noise added on purpose: multiplicative (Hoffer et al. 2017) and isotropic (stochastic gradient Langevin dynamics)."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from gengap.core.errors import BadInput
from gengap.core.seeds import stream
from gengap.optim.arguments import check_not_negative


class MultiplicativeNoise:
    r"""Factors drawn from :math:`N(1, \sigma^2)` that leave the mean gradient as it is and add to its scatter.

    `weights` is the published form: one factor for every sample, so that the gradient is
    :math:`\frac1B \sum_n z_n g_n`, whose covariance is that of the batch plus :math:`\frac{\sigma^2}{B}\, E[g g^\top]`. With
    `matched_sigma` that is the covariance of a smaller batch. It is used on the losses of the samples:

        loss = (noise.weights(len(losses), step=step) * losses).mean()

    `scale_gradients` is another noise, for loops that see only the mean gradient: one factor for every entry of it. Its
    covariance is :math:`\sigma^2 \mathrm{diag}(\bar g^2)`, which vanishes with the mean gradient and matches no batch size.

    Nothing is remembered: the same seed and step give the same factors, also after a run was resumed.

    Args:
        sigma: standard deviation of the factors.
        seed: of the run.

    Raises:
        BadInput: sigma is negative or not finite.

    Source:
        Hoffer, Hubara & Soudry 2017, arXiv:1705.08741, section 4.
    """

    def __init__(self, sigma: float, *, seed: int) -> None:
        check_not_negative(sigma=sigma)
        self.sigma, self.seed = sigma, seed

    def weights(
        self, samples: int, *, step: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Draw one factor for every sample of a batch.

        Args:
            samples: B.
            step: number of the update; with accumulation draw once for the whole batch, and split.
            device: of the losses.
            dtype: of the losses.

        Returns:
            Factors of mean 1, some of them negative where sigma is large, shape (B,).
        """
        drawn = torch.randn(samples, generator=generator(self.seed, "sample-weights", step), dtype=dtype)
        return drawn.mul_(self.sigma).add_(1).to(device)

    @torch.no_grad()
    def scale_gradients(self, weights: Iterable[Tensor], *, step: int) -> None:
        """Multiply every entry of the gradients by a factor of its own, in place.

        Args:
            weights: parameters; those without a gradient are left out.
            step: number of the update.
        """
        source = generator(self.seed, "gradient-factors", step)
        for weight in weights:
            if weight.grad is not None:
                weight.grad.mul_(normal_like(weight.grad, source).mul_(self.sigma).add_(1))


def matched_sigma(batch: int, small: int, n: int | None = None) -> float:
    r"""Compute the noise on sample losses that gives a large batch the gradient covariance of a small one.

    With batches drawn independently :math:`\sigma^2 = B/b - 1`; with batches without replacement from n samples it is
    :math:`(B/b - 1)\, n / (n - 1)`: the finite-population terms of the two batches cancel but for that factor. Both are
    exact where the mean gradient is zero and leave out :math:`\sigma^2 \bar g \bar g^\top / B` elsewhere.

    Args:
        batch: B, the batch that is used.
        small: b, the batch whose noise is wanted.
        n: samples of the training set, for batches without replacement; None where n is far above B.

    Returns:
        Standard deviation for `MultiplicativeNoise`.

    Raises:
        BadInput: not 1 <= b <= B, or B above n.

    Source:
        Hoffer, Hubara & Soudry 2017, arXiv:1705.08741, section 4.
    """
    if not 1 <= small <= batch:
        raise BadInput(f"noise can only be added: small is {small} and batch is {batch}; give 1 <= small <= batch")
    if n is not None and not max(batch, 2) <= n:
        raise BadInput(f"a batch of {batch} cannot be drawn from {n} samples without replacement; give a larger n")
    return math.sqrt((batch / small - 1) * (1 if n is None else n / (n - 1)))


class IsotropicNoise:
    r"""Gaussian noise of equal strength in all directions, scaled so that training samples from a Gibbs distribution.

    Added to the gradient with variance :math:`2 T (1 - m) / \eta` (rate :math:`\eta`, momentum m), so that for small rates
    the weights are distributed as :math:`\exp(-L(w) / T)`, L being the mean loss: around a minimum of curvature h with
    variance T / h. At a finite rate without momentum it is :math:`2T / (h (2 - \eta h))`. T = 1 / n, n samples, is the
    Bayesian posterior of Welling & Teh, where weight decay is the prior and their step is :math:`\epsilon = 2\eta / n`.
    The noise of the batch itself comes on top.

    This holds for the form of `torch.optim.SGD` without Nesterov and dampening. Under a preconditioner (Adam, LARS) it is
    no Langevin dynamics; such optimizers are not refused.

    Args:
        temperature: T, in nats of the mean loss; 0 adds nothing.
        seed: of the run.

    Raises:
        BadInput: the temperature is negative or not finite.

    Source:
        Welling & Teh 2011, ICML, "Bayesian learning via stochastic gradient Langevin dynamics".
    """

    def __init__(self, temperature: float, *, seed: int) -> None:
        check_not_negative(temperature=temperature)
        self.temperature, self.seed = temperature, seed

    @torch.no_grad()
    def add_to_gradients(self, optimizer: Optimizer, *, step: int) -> None:
        """Add the noise of one update to the gradients, between backward and the optimizer's step.

        Args:
            optimizer: its weights, rates and momenta are read; groups with rate 0 are left out.
            step: number of the update; the same seed and step give the same noise, also after a run was resumed.
        """
        source = generator(self.seed, "langevin", step)
        for group in optimizer.param_groups:
            lr, momentum = float(group["lr"]), group.get("momentum", 0.0)
            strength = math.sqrt(2 * self.temperature * (1 - momentum) / lr) if lr else 0.0
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.grad.add_(normal_like(weight.grad, source), alpha=strength)

    def attach(self, optimizer: Optimizer, *, start: int = 0) -> RemovableHandle:
        """Add noise before every step of an optimizer from now on.

        Args:
            optimizer: one whose gradients are there when `step` is called (not one that takes a closure).
            start: updates done so far; give it when a run is resumed.

        Returns:
            A handle; its `remove()` ends the noise.
        """
        done = start

        def before(found: Optimizer, _args: object, _options: object) -> None:
            nonlocal done
            self.add_to_gradients(found, step=done)
            done += 1

        hook: Callable[..., RemovableHandle] = optimizer.register_step_pre_hook
        return hook(before)


def generator(seed: int, name: str, step: int) -> torch.Generator:
    """Make the source of one update's noise, on the CPU: every device sees the same draws."""
    return torch.Generator().manual_seed(stream(seed, name, step))


def normal_like(tensor: Tensor, source: torch.Generator) -> Tensor:
    """Draw standard normal numbers of a tensor's shape, dtype and device."""
    return torch.randn(tensor.shape, generator=source, dtype=tensor.dtype).to(tensor.device)
