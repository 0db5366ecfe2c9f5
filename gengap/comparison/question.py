"""From two batch sizes to a study: what is trained, what is measured, and what is claimed."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from gengap.core.catalogue import DATA, KESKAR
from gengap.core.errors import BadInput
from gengap.core.recipe import Recipe
from gengap.core.remedies import fields_of, names_of, text_of
from gengap.problem.problem import Problem
from gengap.studies.study import Claim, InterpolationSpec, Measures, ScoreSpec, SharpnessSpec, Study, Variant
from gengap.sweeps.plan import spec_of

TOLERANCE = 0.1  # points of accuracy that do not matter to anybody
OPTIMIZERS = get_args(Recipe.model_fields["optimizer"].annotation)


def comparison_study(  # noqa: PLR0913 - the parts of a study
    problem: Problem,
    *,
    small: int | str | None = None,
    large: int | str | None = None,
    seeds: int | Sequence[int] = 5,
    recipe: Recipe | Mapping[str, Any] | None = None,
    score: ScoreSpec | Mapping[str, Any] | None = ScoreSpec(),  # noqa: B008 - frozen
    sharpness: SharpnessSpec | Mapping[str, Any] | None = SharpnessSpec(),  # noqa: B008 - frozen
    interpolation: InterpolationSpec | Mapping[str, Any] | None = InterpolationSpec(),  # noqa: B008 - frozen
    evaluations: int = 20,
    remedies: Sequence[str] = (),
) -> Study:
    """Write a comparison as a study with numbers in place of shares and defaults.

    Args:
        problem: what is learnt.
        small: see `compare`.
        large: see `compare`.
        seeds: see `compare`.
        recipe: see `compare`.
        score: statistics of batch norm for the final loss and accuracy; None: running averages.
        sharpness: how it is measured, a spec or its fields; None: not at all.
        interpolation: the line between the two minima, a spec or its fields; None: not measured.
        evaluations: how often loss and accuracy are measured while training.
        remedies: the large batch is trained once more with each: names of `gengap list remedies`, joined by "+" where they
            go together.

    Returns:
        The study.

    Raises:
        BadInput: the small batch is not smaller than the large one, or another argument cannot be used.
    """
    refuse_varied(recipe)
    entry = DATA.get(problem.origin.data or "")
    small = small if small is not None else entry.small if entry else 256
    large = large if large is not None else entry.large if entry else "10%"
    shared = recipe_fields(recipe, entry.epochs if entry else 20)
    samples = len(problem.samples("train"))
    sizes = [int(Recipe(**shared, batch_size=size).resolved(samples).batch_size) for size in (small, large)]
    if sizes[0] >= sizes[1]:
        raise BadInput(
            f"the small batch is {sizes[0]:,} and the large batch {sizes[1]:,} of {samples:,} samples; "
            f"choose a small one below the large one (--small, --large)"
        )
    return Study(
        title=f"Does a larger batch generalise worse? {problem.name}",
        source=KESKAR,
        evaluations=evaluations,
        problem=spec_of(problem),
        recipe=shared,
        grid={"batch_size": sizes, "seed": seed_list(seeds)},
        measures=Measures(
            score=ScoreSpec(**score) if isinstance(score, Mapping) else score,
            sharpness=SharpnessSpec(**sharpness) if isinstance(sharpness, Mapping) else sharpness,
            interpolation=InterpolationSpec(**interpolation) if isinstance(interpolation, Mapping) else interpolation,
        ),
        claim=claims(problem, sizes, sharp=sharpness is not None),
        variant=variants(remedies, shared, sizes),
    )


def variants(remedies: Sequence[str], shared: Mapping[str, Any], sizes: Sequence[int]) -> tuple[Variant, ...]:
    """Write remedies down as variants of the large batch."""
    small, large = sizes
    return tuple(
        Variant(
            name=name,
            text=text_of(name),
            where={"batch_size": large},
            recipe=fields_of(name, shared, small=small, large=large),
        )
        for name in names_of(",".join(remedies) or "none")
    )


def refuse_varied(recipe: Recipe | Mapping[str, Any] | None) -> None:
    """Refuse fields that a comparison varies; a whole recipe has them always, but who writes fields means them."""
    if recipe is None or isinstance(recipe, Recipe):
        return
    for field, instead in (("batch_size", "small and large (--small, --large)"), ("seed", "seeds (--seed, --seeds)")):
        if field in recipe:
            raise BadInput(f"{field} is {recipe[field]!r}, but a comparison varies it; leave it out and give {instead}")


def recipe_fields(recipe: Recipe | Mapping[str, Any] | None, epochs: int) -> dict[str, Any]:
    """Give the fields that both batch sizes share; those that differ from their defaults, where a recipe is given."""
    if isinstance(recipe, Recipe):
        fields = recipe.model_dump(mode="json", exclude_defaults=True)
    else:
        fields = dict(recipe or {})
        fields.setdefault("optimizer", "adam")
        if fields["optimizer"] == "adam":
            fields.setdefault("lr", 1e-3)
        fields.setdefault("budget", {"epochs": epochs})
    chosen = fields.get("optimizer", "sgd")
    if chosen not in OPTIMIZERS:
        raise BadInput(f"optimizer is {chosen!r}; choose one of {', '.join(OPTIMIZERS)}")
    if "lr" not in fields:
        raise BadInput(f"lr is missing; {chosen} has no learning rate that suits every problem, choose one")
    return {name: value for name, value in fields.items() if name not in {"batch_size", "seed"}}


def seed_list(seeds: int | Sequence[int]) -> list[int]:
    """Give the seeds.

    Args:
        seeds: how many, from 0, or which.

    Returns:
        The seeds.

    Raises:
        BadInput: there is none, or one stands there twice.
    """
    found = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not found or len(set(found)) != len(found):
        raise BadInput(f"seeds is {seeds}; give at least one, and each once")
    return found


def claims(problem: Problem, sizes: Sequence[int], *, sharp: bool) -> tuple[Claim, ...]:
    """Write down what Keskar et al. say of small and large batches, for these two."""
    inputs, targets = next(iter(problem.samples("test").batches(1)))
    del inputs
    counts = problem.loss.name != "mean_square" and not (
        targets.is_floating_point() and "binary" not in problem.loss.name
    )
    pair = {"batch_size": (sizes[0], sizes[1])}
    names = f"batch {sizes[0]:,}", f"batch {sizes[1]:,}"
    found = []
    if counts:
        text = f"{names[1].capitalize()} tests worse than {names[0]}"
        found.append(
            Claim(measure="test_accuracy", text=text, expect="first > second", tolerance=TOLERANCE, **common(pair))
        )
    else:
        text = f"{names[1].capitalize()} has a higher test loss than {names[0]}"
        found.append(Claim(measure="test_loss", text=text, expect="first < second", **common(pair)))
    if sharp:
        text = f"The minimum of {names[1]} is sharper"
        found.append(Claim(measure="sharpness", text=text, expect="first < second", **common(pair)))
    text = f"{names[1].capitalize()} ends nearer to its start"
    found.append(Claim(measure="distance", text=text, expect="first > second", **common(pair)))
    return tuple(found)


def common(pair: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """Give the fields that all claims share."""
    return {"compare": pair, "source": KESKAR}
