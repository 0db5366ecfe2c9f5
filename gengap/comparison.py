"""`gengap.compare`: the one function that joins training, measuring and reporting."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

from gengap.core.catalogue import DATA, KESKAR
from gengap.core.errors import BadInput
from gengap.core.events import Listener, silent
from gengap.core.files import write_text
from gengap.core.recipe import Recipe
from gengap.core.remedies import fields_of, names_of, text_of
from gengap.problem.problem import Problem
from gengap.report.document import comparison_document
from gengap.store.store import LEDGER, Store
from gengap.studies.study import (
    Claim,
    InterpolationSpec,
    Measures,
    ScoreSpec,
    SharpnessSpec,
    Study,
    Variant,
    read_study,
)
from gengap.sweeps.local import run_study
from gengap.sweeps.plan import resolve_sizes, spec_of, tasks
from gengap.training.ranks import ALONE, Ranks
from gengap.training.rehearsal import rehearse
from gengap.training.solo import find_device

TOLERANCE = 0.1  # points of accuracy that do not matter to anybody
STUDY = "study.toml"
OPTIMIZERS = get_args(Recipe.model_fields["optimizer"].annotation)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison of two batch sizes found.

    Attributes:
        document: everything, as a JSON value; its form is described in docs/reference/json.md.
        folder: where the store and the report lie; None where the results were not kept.
    """

    document: Mapping[str, Any]
    folder: Path | None

    @property
    def sentence(self) -> str:
        """The answer in one sentence."""
        return str(self.document["sentence"])

    @property
    def verdict(self) -> Mapping[str, str]:
        """The verdict of each claim, by measure."""
        return {name: word for name, word in self.document["verdict"].items() if name != "sentence"}

    @property
    def failures(self) -> list[str]:
        """Runs that diverged or failed, each with its reason."""
        changed = [f"{one['label']}, {text}" for one in self.document.get("remedies") or [] for text in one["failures"]]
        return [*self.document["small"]["failures"], *self.document["large"]["failures"], *changed]

    def report(self, folder: str | Path) -> Path:
        """Write report.html, figures and CSV into a folder, and return the path of the page."""
        from gengap.report.page import write_report

        return write_report(dict(self.document), Path(folder))

    def to_dict(self) -> dict[str, Any]:
        """Give the document."""
        return dict(self.document)

    def __str__(self) -> str:
        from io import StringIO

        from rich.console import Console

        from gengap.report.terminal import print_comparison

        text = StringIO()
        print_comparison(self.document, Console(file=text, width=100, color_system=None))
        return text.getvalue().rstrip()

    __repr__ = __str__


def compare(
    problem: Problem,
    *,
    small: int | str | None = None,
    large: int | str | None = None,
    seeds: int | Sequence[int] = 5,
    recipe: Recipe | Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    **settings: Any,
) -> Comparison:
    """Train a problem with a small and a large batch, measure both minima, and judge the difference.

    Args:
        problem: what is learnt.
        small: the small batch: a number or a share of the training set; by default 256 (digits: 32).
        large: the large batch; by default "10%" (digits: "100%").
        seeds: how many, from 0, or which; both batch sizes start from the same weights for the same seed.
        recipe: what both share, as a `Recipe` (its batch_size and seed are replaced) or as fields without these two; by
            default Adam at 1e-3 for 20 epochs (digits: 60).
        out: folder for the store; finished runs in it are used again, and its remedies stay. None: nothing is kept.
        settings: `remedies` (names, see `gengap list remedies`), `score`, `sharpness` and `interpolation` (their specs, or
            None to leave them out), `evaluations`, `device`, `listen`, as in `comparison_study` and `run_comparison`.

    Returns:
        The comparison. `print` shows it, `.report(folder)` writes the page.

    Raises:
        BadInput: an argument cannot be used.
        Interrupted: Ctrl-C; with `out` what was finished is kept.
    """
    running = {name: settings.pop(name) for name in ("device", "listen") if name in settings}
    study = comparison_study(problem, small=small, large=large, seeds=seeds, recipe=recipe, **settings)
    if out is not None:
        return run_comparison(study, problem, Path(out), **running)
    with TemporaryDirectory(prefix="gengap-") as folder:
        made = run_comparison(study, problem, Path(folder), **running)
    return Comparison(made.document, None)


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


def run_comparison(
    study: Study,
    problem: Problem,
    out: Path,
    *,
    device: str = "cpu",
    listen: Listener = silent,
    command: str = "",
    ranks: Ranks = ALONE,
) -> Comparison:
    """Run a study of two batch sizes and assemble what it found.

    Args:
        study: the comparison.
        problem: what is learnt.
        out: folder of the store; study.toml is written beside the ledger. Remedies of a study that is there stay.
        device: where to train and measure.
        listen: told of the progress.
        command: the command line, for the report.
        ranks: processes that share every batch; this is rank 0, and the others `follow`.

    Returns:
        The comparison.

    Raises:
        BadInput: the study or the problem cannot be used.
        Interrupted: Ctrl-C; what was finished is kept.
    """
    problem.check()  # before anything is written: bad input leaves no folder behind
    find_device(device)
    check_sizes(study, problem)
    study = resolve_sizes(study, problem)
    check_same(study, out)
    study = with_stored_remedies(study, out)
    check_recipes(study, problem)
    with Store(out) as store:
        write_text(out / STUDY, study.to_toml())
        store.remember("command", command)
        run_study(study, problem, store, device=device, listen=listen, ranks=ranks)
        return Comparison(comparison_document(store, study, store.recall("keys"), command=command), out)


def check_recipes(study: Study, problem: Problem) -> None:
    """Refuse what would only be found when its turn comes: a remedy twice, or one that the network or the data cannot have.

    Args:
        study: to be run.
        problem: what is learnt.

    Raises:
        BadInput: a recipe cannot train the problem; a remedy is named.
    """
    one_of_each = {(task.variant, task.recipe.batch_size): task for task in tasks(study, problem)}
    for task in one_of_each.values():
        try:
            rehearse(problem, task.recipe)
        except BadInput as error:
            raise BadInput(f"{task.variant}: {error}" if task.variant else str(error)) from error


def check_sizes(study: Study, problem: Problem) -> None:
    """Refuse a study that compares anything but two batch sizes over seeds.

    Args:
        study: to be run.
        problem: says what a share of the training set is.

    Raises:
        BadInput: it has another number of batch sizes, varies something else too, or has a recipe that does not fit.
    """
    sizes = sorted({int(task.recipe.batch_size) for task in tasks(study, problem) if not task.variant})
    if len(sizes) != 2:
        raise BadInput(f"a comparison needs two batch sizes; this study has {sizes}")
    others = [field for field, values in study.grid.items() if len(values) > 1 and field not in {"batch_size", "seed"}]
    if others:
        raise BadInput(
            f"a comparison varies batch_size and seed; this study also varies {', '.join(others)}: give one value each"
        )


def check_same(study: Study, out: Path) -> None:
    """Refuse to put a comparison of other things into a folder that holds one.

    Args:
        study: to be run.
        out: its folder.

    Raises:
        BadInput: problem, recipe or batch sizes differ; seeds and measures may.
    """
    if not (out / STUDY).exists():
        return
    old, study = read_study(out / STUDY), Study(**tomllib.loads(study.to_toml()))
    for what, ours, theirs in (
        ("problems", study.problem, old.problem),
        ("recipe fields", study.recipe, old.recipe),
        ("batch sizes", study.grid.get("batch_size"), old.grid.get("batch_size")),
    ):
        if ours != theirs:
            raise BadInput(f"{out} holds a comparison with other {what} ({theirs}); choose another folder by --out")


def with_stored_remedies(study: Study, out: Path) -> Study:
    """Add the remedies that a folder holds already: they come first, in their order, and new ones after them."""
    if not (out / STUDY).exists():
        return study
    merged = {variant.name: variant for variant in (*read_study(out / STUDY).variant, *study.variant)}
    return study.model_copy(update={"variant": tuple(merged.values())})


def stored_comparison(folder: Path) -> Comparison:
    """Assemble the comparison that a folder holds, without training anything.

    Args:
        folder: written by `compare` with `out`, or by `gengap compare --out`.

    Returns:
        The comparison, of the runs that are there.

    Raises:
        BadInput: the folder holds none.
    """
    if not (folder / LEDGER).exists() or not (folder / STUDY).exists():
        raise BadInput(
            f"{folder} holds no comparison ({LEDGER} and {STUDY}); name a folder that gengap compare --out wrote"
        )
    study = read_study(folder / STUDY)
    with Store(folder, create=False) as store:
        document = comparison_document(store, study, store.recall("keys") or [], command=store.recall("command") or "")
    return Comparison(document, folder)
