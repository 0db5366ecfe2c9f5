"""Which runs can be trained as one fleet."""

from collections.abc import Hashable, Mapping
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from gengap.core.errors import Interrupted
from gengap.core.events import silent
from gengap.core.recipe import Recipe, digest
from gengap.problem.problem import CPU, Problem
from gengap.problem.samples import InMemory
from gengap.training.dense import PACE, is_simple
from gengap.training.fleet_dropout import has_dropout
from gengap.training.fleet_loop import Fleet
from gengap.training.fleet_optimizers import RULES
from gengap.training.interrupt import StopRequest
from gengap.training.network import make_network
from gengap.training.run import Run
from gengap.training.solo import train

OWN = {"lr", "momentum", "weight_decay", "seed"}  # each member's own
SHARED = (PACE - OWN) | {
    "optimizer",
    "betas",
    "eps",
    "decay_norms",
    "clip_norm",
    "ghost_batch",
    "batch_norm",
    "label_smoothing",
    "dropout",
}  # equal for all; any other field that is not at its default keeps a recipe out of every fleet
PLAIN = {
    "optimizer": "sgd",
    "lr": 1e-2,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "nesterov": False,
    "betas": (0.9, 0.999),
    "eps": None,
    "lr_rule": None,
    "batch_schedule": None,
    "regime_adaptation": None,
    "schedule": "constant",
    "warmup": None,
    "dtype": "float64",
}  # of a rehearsal: the network is in question, and not what is done with its gradient
TRIED = ("ghost_batch", "dropout", "label_smoothing", "clip_norm", "decay_norms")  # beside the network
REHEARSED = 6  # samples of a batch
AGREE = 1e-6  # of the largest change of a weight: far above rounding in float64, far below a mistake

_KNOWN: "WeakKeyDictionary[Problem, dict[Hashable, bool]]" = WeakKeyDictionary()


def fleet_key(problem: Problem, recipe: Recipe, *, device: str | torch.device = CPU) -> Hashable | None:
    """Name the fleet that a run can be in.

    A network is not judged by its layers but tried: two members make two small updates in a fleet and alone, and must agree in
    weights, buffers and losses. That costs some milliseconds for a small network, once for each problem and form of network.

    Args:
        problem: what is learnt.
        recipe: of the run.
        device: where it would be trained. Dropout masks of a GPU are drawn inside its kernels, so that networks with dropout
            are for fleets on the CPU.

    Returns:
        A key, equal for runs that can be trained as one fleet; None for a run that can be in none: its data are streamed, its
        recipe asks for more than gradient and step (augmentation, noise, methods, accumulation, bf16, ...), its optimizer is
        not one of sgd, adam, adamw, adagrad and rmsprop, or its network cannot be vectorised.

    Raises:
        BadInput: the batch is larger than the training set.
        Interrupted: Ctrl-C while the network was tried.
    """
    recipe = recipe.resolved(len(problem.samples("train")))
    if not is_simple(recipe, OWN | SHARED) or recipe.optimizer not in RULES:
        return None
    if not all(isinstance(problem.samples(which), InMemory) for which in problem.splits):
        return None
    if torch.device(device).type != "cpu" and has_dropout(make_network(problem, recipe, CPU)):
        return None
    if not can_be_stacked(problem, recipe):
        return None
    shared = recipe.model_dump(mode="json", include=SHARED)
    rule, warmup = recipe.lr_rule, recipe.warmup
    if warmup and warmup.start == "reference" and rule and rule.reference_momentum is not None:
        shared["momentum"] = recipe.momentum  # a factor of its own in every update of the warm-up
    return problem.fingerprint, digest(shared)


def can_be_stacked(problem: Problem, recipe: Recipe) -> bool:
    """Tell whether a network does in a fleet what it does alone; found once, and remembered as long as the problem lives."""
    size = min(int(recipe.batch_size), 2 * recipe.ghost_batch if recipe.ghost_batch else REHEARSED)
    known, form = _KNOWN.setdefault(problem, {}), (size, *(getattr(recipe, name) for name in TRIED))
    if form not in known:
        short = recipe.changed(**PLAIN, batch_size=size, drop_last=True, budget={"steps": 2}, seed=0)
        known[form] = agrees(problem.head(2 * size, size), [short, short.changed(seed=1)])
    return known[form]


def agrees(problem: Problem, recipes: list[Recipe]) -> bool:
    """Train in a fleet and alone, and compare."""
    try:
        alone = [train(problem, recipe, evaluations=1) for recipe in recipes]
        with torch.random.fork_rng(devices=[]):
            fleet = Fleet(problem, recipes, CPU, evaluations=1, listen=silent)
            fleet.begin()
            fleet.run(StopRequest())
    except Exception:  # a user's network may raise anything; what is wrong with it alone is said there
        return False
    if any(run.outcome.kind == "interrupted" for run in alone):
        raise Interrupted("interrupted while trying whether runs can be trained as a fleet; nothing was kept")
    return all(equal(one, other) for one, other in zip(fleet.results(), alone, strict=True))


def equal(one: Run, other: Run) -> bool:
    """Tell whether two runs are the same up to rounding."""
    weights = same(one.params, other.params, other.initial_params)
    losses = [torch.tensor([p.batch_loss or 0.0, p.train_loss, p.test_loss]) for p in (one.final, other.final)]
    scores = torch.allclose(losses[0], losses[1], rtol=AGREE, equal_nan=True)
    return weights and same(one.buffers, other.buffers) and one.outcome == other.outcome and scores


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor], start: Mapping[str, Tensor] | None = None) -> bool:
    """Tell whether tensors agree, next to how far the one that moved most did: some should not move, and do by rounding."""
    moved = [value if start is None else value - start[name] for name, value in other.items()]
    scale = max((float(change.abs().max()) for change in moved if change.numel()), default=0.0)
    return all(bool(((one[name] - value).abs() <= AGREE * scale).all()) for name, value in other.items())
