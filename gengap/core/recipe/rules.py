"""Which fields of a recipe go together."""

from typing import Any

from gengap.core.recipe.schedules import ENDING

WITH_MOMENTUM = {"sgd", "rmsprop", "lars", "kfac", "rmsprop-warmup"}
WITH_NESTEROV = {"sgd", "lars"}
WITH_BETAS = {"adam", "adamw", "lamb"}
WITH_EPS = {"adam", "adamw", "adagrad", "rmsprop", "lars", "lamb", "rmsprop-warmup", "adaqn"}
WHOLE_BATCH = {"lbfgs", "full-batch-gd"}  # search along a line, which needs the same loss at every point
ASKING = {*WHOLE_BATCH, "adaqn"}  # evaluate the loss themselves
AVERAGING = {"elastic-averaging", "post-local-sgd"}


def check_rules(recipe: Any) -> None:
    """Refuse fields that contradict each other.

    Args:
        recipe: a `Recipe` whose fields are each valid.

    Raises:
        ValueError: two of them do not go together; one sentence.
    """
    check_optimizer(recipe)
    check_batches(recipe)
    check_methods(recipe)
    if recipe.budget.converged and recipe.schedule.name in ENDING:
        raise ValueError(
            f"schedule {recipe.schedule.name!r} needs a budget of epochs or steps: it ends with the budget"
        )


def check_optimizer(recipe: Any) -> None:
    """Refuse settings of another optimizer."""
    name = recipe.optimizer
    if name not in WITH_MOMENTUM and (recipe.momentum or recipe.nesterov):
        raise ValueError(f"momentum and nesterov belong to {words(WITH_MOMENTUM)}, not to {name}; leave them out")
    if recipe.nesterov and name not in WITH_NESTEROV:
        raise ValueError(f"nesterov belongs to {words(WITH_NESTEROV)}, not to {name}; leave it out")
    if recipe.nesterov and not recipe.momentum:
        raise ValueError("nesterov needs a momentum above 0")
    if name not in WITH_BETAS and recipe.betas != (0.9, 0.999):
        raise ValueError(f"betas belong to {words(WITH_BETAS)}, not to {name}; leave them out")
    if name != "lars" and recipe.trust != 0.001:
        raise ValueError(f"trust belongs to lars, not to {name}; leave it out")
    if name != "lars" and recipe.momentum_correction:
        raise ValueError(
            f"momentum_correction is for a velocity that has the learning rate inside, as that of lars; that of {name} has not"
        )


def check_batches(recipe: Any) -> None:
    """Refuse batch sizes that contradict each other."""
    size, piece, warmup = recipe.batch_size, recipe.micro_batch, recipe.warmup
    if isinstance(size, int) and isinstance(piece, int) and piece > size:
        raise ValueError(f"micro_batch {piece} is larger than batch_size {size}")
    if warmup and warmup.start == "reference" and not recipe.lr_rule:
        raise ValueError("a warm-up from the reference needs an lr_rule, which names the reference batch")
    if recipe.regime_adaptation and recipe.budget.epochs is None:
        raise ValueError("regime_adaptation stretches a budget of epochs; give budget={'epochs': ...}")
    if recipe.regime_adaptation and recipe.batch_schedule:
        raise ValueError("regime_adaptation and batch_schedule both decide the number of updates; give one of them")
    noise = recipe.gradient_noise
    chosen = [name for name, given in (("adversarial", recipe.adversarial), ("stability", recipe.stability)) if given]
    if noise and noise.name == "multiplicative":
        chosen.append("multiplicative gradient_noise")
    if len(chosen) > 1:
        raise ValueError(f"{' and '.join(chosen)} both change the loss of a batch; give one of them")
    if noise and noise.name == "multiplicative" and (noise.sigma is None) == (noise.reference_batch is None):
        raise ValueError("multiplicative gradient noise needs either sigma or the reference_batch to match")


def check_methods(recipe: Any) -> None:
    """Refuse a method that does not fit the rest."""
    method, name = recipe.method, recipe.optimizer
    if method and name in ASKING:
        raise ValueError(f"{name} and the method {method.name} both decide how to step; give one of them")
    if method and name == "kfac":
        raise ValueError(f"the method {method.name} asks for gradients that kfac's curvature does not belong to")
    if name in WHOLE_BATCH and (recipe.gradient_noise or recipe.clip_norm):
        raise ValueError(f"{name} searches along the loss itself; leave gradient_noise and clip_norm out")
    noise = recipe.gradient_noise
    several = method.name if method else name if name in ASKING else None
    if several and noise and noise.name == "isotropic":
        raise ValueError(f"isotropic noise goes with one gradient in an update, and {several} takes several")
    check_gradients(recipe)
    if recipe.quirks and method:
        raise ValueError(
            f"the quirks of bigbatch are those of its own updates; leave quirks or the method {method.name} out"
        )
    if recipe.quirks and (recipe.batch_schedule or recipe.micro_batch):
        raise ValueError("the quirks of bigbatch cut every batch into ghosts; leave batch_schedule and micro_batch out")
    if recipe.quirks and name != "sgd":
        raise ValueError(f"the quirks of bigbatch are those of sgd, not of {name}")


def check_gradients(recipe: Any) -> None:
    """Refuse what would be done to gradients that are no gradients of a batch's loss."""
    method, noise = recipe.method, recipe.gradient_noise
    if method and method.name == "svrg" and recipe.clip_norm:
        raise ValueError(
            "svrg corrects gradients after they are made, so that clip_norm would not cut its steps; leave it out"
        )
    if method and method.name == "svrg" and noise:
        raise ValueError("svrg takes the noise off that gradient_noise adds; leave one of them out")
    if method and method.name in AVERAGING and recipe.clip_norm:
        raise ValueError(f"clip_norm would cut the gradient of each worker of {method.name} by itself; leave it out")
    if recipe.optimizer == "kfac" and recipe.dtype == "bf16":
        raise ValueError("kfac inverts matrices, which bf16 is too coarse for; take float32")
    if recipe.eps is not None and recipe.optimizer not in WITH_EPS:
        raise ValueError(f"eps belongs to {words(WITH_EPS)}, not to {recipe.optimizer}; leave it out")
    piece, ghost = recipe.micro_batch, recipe.ghost_batch
    if isinstance(piece, int) and ghost and piece % ghost:
        raise ValueError(f"micro_batch {piece} cuts ghosts of {ghost} apart; choose a multiple of ghost_batch")


def words(names: set[str]) -> str:
    """Join names."""
    first, *rest = sorted(names)
    return f"{', '.join([first, *rest[:-1]])} and {rest[-1]}" if rest else first
