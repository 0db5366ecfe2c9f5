"""`gengap.sweep`: batch size against learning rate, momentum, training-set size and seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gengap.core.errors import BadInput
from gengap.core.events import Listener, silent
from gengap.core.files import write_text
from gengap.core.recipe import Recipe
from gengap.exploration.sweep_document import document_of
from gengap.fitting.fit import Fits, fit
from gengap.problem.problem import Problem
from gengap.report.sweep.sentence import answer
from gengap.report.sweep.view import read
from gengap.store.store import LEDGER, Store
from gengap.studies.grid import BATCH, LR, SEED
from gengap.studies.study import ProblemSpec
from gengap.studies.sweep import Sweep, read_sweep
from gengap.sweeps.drive import run_sweep
from gengap.sweeps.plan import spec_of
from gengap.sweeps.problem_sizes import Problems
from gengap.sweeps.sweep_plan import make_plan
from gengap.sweeps.ways import Engines, Means
from gengap.training.solo import find_device

SWEEP = "sweep.toml"


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep found.

    Attributes:
        document: everything, as a JSON value of the form gengap.sweep/1.
        folder: where the store and the report lie; None where the runs were not kept.
    """

    document: Mapping[str, Any]
    folder: Path | None

    @property
    def sentence(self) -> str:
        """The answer in one sentence."""
        return answer(read(self.document))

    @property
    def runs(self) -> Sequence[Mapping[str, Any]]:
        """One line for each run."""
        return self.document["runs"]  # type: ignore[no-any-return]

    @property
    def cells(self) -> Sequence[Mapping[str, Any]]:
        """One line for each batch size, momentum, training-set size and budget, at its best learning rate."""
        return self.document["cells"]  # type: ignore[no-any-return]

    @property
    def failures(self) -> list[str]:
        """Runs that failed, each with its reason; a run that diverged is a result, and counted in its cell."""
        return [
            f"batch {run['batch_size']:,}, lr {run['lr']:.4g}, seed {run['seed']}: {run['reason']}"
            for run in self.runs
            if run["outcome"] == "failed"
        ]

    def report(self, folder: str | Path) -> Path:
        """Write the page with its figures and tables into a folder, and return the path of the page."""
        from gengap.report.sweep.page import write_page

        return write_page(self.document, folder)

    def fit(self, **settings: Any) -> Fits:
        """Fit the laws of large-batch training to the runs; `settings` as in `gengap.fitting.fit.fit`."""
        return fit(self.document, **settings)

    def to_dict(self) -> dict[str, Any]:
        """Give the document."""
        return dict(self.document)

    def __str__(self) -> str:
        from gengap.report.sweep.terminal import print_sweep
        from gengap.report.terminal import as_text

        return as_text(print_sweep, self.document)

    __repr__ = __str__


def sweep(
    problem: Problem,
    grid: Mapping[str, Any],
    budget: Any = None,
    *,
    recipe: Recipe | Mapping[str, Any] | None = None,
    seeds: int | Sequence[int] = 5,
    out: str | Path | None = None,
    **settings: Any,
) -> SweepResult:
    """Train a problem by every recipe of a grid, and find the best learning rate of each batch size.

    Args:
        problem: what is learnt. Where it has no validation samples, some of its training samples are held out; a problem of
            the catalogue is loaded again for that.
        grid: field -> values, as a list or as text ("8:4096:x2"): batch_size, lr, momentum, train_size, ...
        budget: {"epochs": 30}, "epochs=30", "steps=10000" or "converged"; None: it is in the grid.
        recipe: what all runs share, as a `Recipe` (its batch size, lr, seed and budget are not used) or as fields.
        seeds: how many, from 0, or which; the grid may name them too.
        out: folder for the store; finished runs in it are used again. None: nothing is kept.
        settings: `lr_follows`, `validation`, `metric`, `extend`, `evaluations`, `weights` and `title`, as in `Sweep`;
            `engine` ("auto", "solo", "fleet", "pool", "ray", "slurm"), `workers`, `options`, `device` and `data_root`, as in
            `Means`; and `listen`, told of the progress.

    Returns:
        The sweep. `print` shows it, `.report(folder)` writes the page.

    Raises:
        BadInput: an argument cannot be used.
        Interrupted: Ctrl-C; with `out` what was finished is kept.
    """
    if not isinstance(grid, Mapping):
        raise BadInput(
            f"grid is {grid!r}; give a dict of fields and their values, such as {{'batch_size': [8, 32], 'lr': [0.1]}}"
        )
    means = Means(**{name.name: settings.pop(name.name) for name in fields(Means) if name.name in settings})
    listen = settings.pop("listen", silent)
    shared = dict(recipe) if isinstance(recipe, Mapping) else shared_fields(recipe, grid)
    own = {} if SEED in grid else {SEED: list(range(seeds)) if isinstance(seeds, int) else list(seeds)}
    plan = Sweep(problem=spec_of(problem), recipe=shared, grid={**grid, **own}, budget=budget, **settings)
    problems = Problems(problem, validation=plan.validation, data_root=means.data_root)
    if out is not None:
        return explore(plan, problems, Path(out), means=means, listen=listen)
    with TemporaryDirectory(prefix="gengap-") as folder:
        found = explore(plan, problems, Path(folder), means=means, listen=listen)
    return SweepResult(found.document, None)


def shared_fields(recipe: Recipe | None, grid: Mapping[str, Any]) -> dict[str, Any]:
    """Give the fields of a whole recipe that a sweep does not set itself."""
    if recipe is None:
        return {}
    whole = recipe.model_dump(mode="json", exclude_defaults=True)
    return {name: value for name, value in whole.items() if name not in {BATCH, LR, SEED, "budget", *grid}}


def explore(
    plan: Sweep,
    problems: Problems,
    out: Path,
    *,
    means: Means = Means(),  # noqa: B008 - frozen
    listen: Listener = silent,
    command: str = "",
) -> SweepResult:
    """Make the runs of a sweep that are missing in a folder, and assemble what it found.

    Args:
        plan: the sweep.
        problems: makes its problem for each size of the training set.
        out: folder of the store; sweep.toml is written beside the ledger.
        means: where and as what runs are made.
        listen: told of the progress.
        command: the command line, for the report.

    Returns:
        The sweep.

    Raises:
        BadInput: the sweep or the problem cannot be used; nothing was trained.
        Interrupted: Ctrl-C; what was finished is kept.
    """
    find_device(means.device)
    cells = make_plan(plan, problems)
    check_same(cells.sweep, out)
    with Engines(means, out, evaluations=plan.evaluations) as engines, Store(out) as store:
        write_text(out / SWEEP, cells.sweep.to_toml())
        store.remember("sweep_command", command)
        store.remember("sweep_notes", list(cells.notes))
        run_sweep(cells, store, engines.choosing(store), device=means.device, data_root=means.data_root, listen=listen)
        return SweepResult(document_of(store, cells.sweep), out)


def stored_sweep(folder: str | Path) -> SweepResult:
    """Assemble the sweep that a folder holds, without training anything.

    Args:
        folder: written by `sweep` with `out`, or by `gengap sweep --out`.

    Returns:
        The sweep, of the runs that are there.

    Raises:
        BadInput: the folder holds none.
    """
    folder = Path(folder)
    if not (folder / LEDGER).exists() or not (folder / SWEEP).exists():
        raise BadInput(f"{folder} holds no sweep ({LEDGER} and {SWEEP}); name a folder that gengap sweep --out wrote")
    with Store(folder, create=False) as store:
        return SweepResult(document_of(store, read_sweep(folder / SWEEP)), folder)


def check_same(plan: Sweep, out: Path) -> None:
    """Refuse to put a sweep of other things into a folder that holds one.

    Args:
        plan: to be run.
        out: its folder.

    Raises:
        BadInput: the problem, the recipe or what is held out differs; grid, budget and seeds may.
    """
    if not (out / SWEEP).exists():
        return
    old, new = read_sweep(out / SWEEP), Sweep(**plan.model_dump())
    for what, ours, theirs in (
        ("another problem", named(new.problem), named(old.problem)),
        ("other recipe fields", new.recipe, old.recipe),
        ("another validation", new.validation, old.validation),
    ):
        if ours != theirs:
            raise BadInput(f"{out} holds a sweep with {what} ({theirs} there, {ours} here); choose another folder")


def named(problem: ProblemSpec) -> dict[str, Any]:
    """Give the fields that say which problem it is."""
    return {name: value for name, value in problem.model_dump().items() if value}
