"""From the words of a recipe to an optimizer, with whatever method is put around it."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from gengap.core.catalogue import resolve
from gengap.core.errors import BadInput
from gengap.core.recipe import Recipe
from gengap.core.recipe.methods import (
    AdaptiveSam,
    Conservative,
    ElasticAveraging,
    EntropySgd,
    PostLocalSgd,
    Sam,
    Svrg,
)
from gengap.optim.catalogue import OPTIMIZERS
from gengap.optim.groups import no_decay_groups
from gengap.optim.kfac import Curvature, Kfac
from gengap.optim.lbfgs import Lbfgs
from gengap.optim.momentum_correction import correct_momentum
from gengap.optim.wrapping import Group, plain_optimizers

LIKELIHOODS: dict[str, Literal["softmax", "bernoulli", "gaussian"]] = {
    "cross_entropy": "softmax",
    "binary_cross_entropy": "bernoulli",
    "mean_square": "gaussian",
}
# torch's optimizers with one kernel for all tensors, and the devices that have it
FUSED = {"sgd": {"cpu", "cuda"}, "adam": {"cpu", "cuda"}, "adamw": {"cpu", "cuda"}, "adagrad": {"cpu"}}


def build(
    recipe: Recipe,
    trained: nn.Module | Iterable[nn.Parameter],
    *,
    updates_in: Callable[[float], int] = round,
    loss: str = "cross_entropy",
    average: Callable[[Tensor], None] | None = None,
) -> Optimizer:
    """Make the optimizer of a recipe.

    Args:
        recipe: its optimizer, method and their settings are used.
        trained: the network, or its weights, all on one device.
        updates_in: gives the updates in a number of epochs, for what is counted in them.
        loss: name of the problem's loss, which says what the outputs mean to K-FAC.
        average: replaces a tensor by its mean over processes, where K-FAC shares its factors.

    Returns:
        An optimizer; where it has `needs_closure` its step asks for gradients itself.

    Raises:
        BadInput: weights were given where the optimizer needs the network, or K-FAC does not know the loss.
    """
    groups = groups_of(recipe, trained)
    if OPTIMIZERS[recipe.optimizer].takes == "model":
        if not isinstance(trained, nn.Module):
            raise BadInput(f"{recipe.optimizer} looks at layers; give it the network and not its weights")
        return kfac(recipe, groups, trained, loss=loss, average=average)
    base = partial(plain, recipe)
    return base(groups) if recipe.method is None else around(recipe, base, groups, updates_in)


def groups_of(recipe: Recipe, trained: nn.Module | Iterable[nn.Parameter]) -> list[Group]:
    """Put the weights into groups: one, or two where biases and norm layers are not decayed."""
    if isinstance(trained, nn.Module) and recipe.weight_decay and not recipe.decay_norms:
        return no_decay_groups(trained, recipe.weight_decay)
    weights = trained.parameters() if isinstance(trained, nn.Module) else trained
    return [{"params": list(weights)}]


def kfac(
    recipe: Recipe, groups: list[Group], model: nn.Module, *, loss: str, average: Callable[[Tensor], None] | None
) -> Optimizer:
    """Make K-FAC for a loss that is a likelihood."""
    if loss not in LIKELIHOODS:
        raise BadInput(f"kfac needs a loss that is a likelihood ({', '.join(LIKELIHOODS)}), not {loss}")
    curvature = Curvature(likelihood=LIKELIHOODS[loss], seed=recipe.seed)
    return Kfac(
        model,
        recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        curvature=curvature,
        params=groups,
        average=average,
    )


def plain(recipe: Recipe, groups: list[Group]) -> Optimizer:
    """Make the optimizer itself, with the settings that it knows."""
    entry = OPTIMIZERS[recipe.optimizer]
    said = {name: getattr(recipe, name) for name in entry.arguments}
    options: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    first = groups[0]["params"][0]
    whole = not hasattr(first, "to_local")  # parts of tensors have no fused kernels for all of these
    if whole and first.device.type in FUSED.get(recipe.optimizer, ()):
        options["fused"] = True
    make: Callable[..., Optimizer] = resolve(entry.builder)
    return make(groups, **options)


def around(
    recipe: Recipe,
    base: Callable[[list[Group]], Optimizer],
    groups: list[Group],
    updates_in: Callable[[float], int],
) -> Optimizer:
    """Put the method of a recipe around its optimizer."""
    method = recipe.method
    match method:
        case Sam() | AdaptiveSam():
            from gengap.optim import sam

            return sam.Sam(groups, base, rho=method.rho, adaptive=isinstance(method, AdaptiveSam))
        case Conservative():
            return conservative(method, recipe, base, groups)
        case EntropySgd():
            from gengap.optim import entropy_sgd

            walk = entropy_sgd.Walk(method.steps, method.inner_lr, method.noise, method.average)
            return entropy_sgd.EntropySgd(
                groups, base, gamma=method.scope, scoping=method.scoping, walk=walk, seed=recipe.seed
            )
        case Svrg():
            from gengap.optim import svrg

            return svrg.Svrg(groups, base)
        case ElasticAveraging() | PostLocalSgd():
            return apart(method, base, groups, updates_in)
    raise BadInput(f"there is no method {method!r}")


def conservative(
    method: Conservative, recipe: Recipe, base: Callable[[list[Group]], Optimizer], groups: list[Group]
) -> Optimizer:
    """Make conservative training with the inner solver that a recipe names."""
    from gengap.optim import conservative as module

    steps, fresh = method.iterations, False
    if method.inner == "gd":
        base = partial(SGD, lr=recipe.lr, weight_decay=recipe.weight_decay)
    elif method.inner == "lbfgs":
        base = partial(Lbfgs, lr=1.0, weight_decay=recipe.weight_decay, max_iter=steps)
        steps, fresh = 1, True
    return module.Conservative(groups, base, lam=method.penalty, inner_steps=steps, fresh=fresh)


def apart(
    method: ElasticAveraging | PostLocalSgd,
    base: Callable[[list[Group]], Optimizer],
    groups: list[Group],
    updates_in: Callable[[float], int],
) -> Optimizer:
    """Make workers that train apart and meet now and then."""
    from gengap.optim.mixing import Elastic, MixingRule, PostLocal
    from gengap.optim.workers import Workers

    rule: MixingRule
    if isinstance(method, ElasticAveraging):
        rule = Elastic(method.pull / max(method.workers, 2), method.pull, method.period)
    else:
        rule = PostLocal(method.period, updates_in(method.start))
    return Workers(groups, base, rule=rule, count=method.workers)


def set_lr(optimizer: Optimizer, lr: float, *, corrected: bool = False) -> None:
    """Change the learning rate of every group.

    Args:
        optimizer: whose.
        lr: the new rate.
        corrected: rescale a velocity that has the rate inside (Goyal et al. 2017, remark 2).
    """
    if corrected:
        for inner in plain_optimizers(optimizer):
            correct_momentum(inner, inner.param_groups[0]["lr"], lr)
    for group in optimizer.param_groups:
        group["lr"] = lr
