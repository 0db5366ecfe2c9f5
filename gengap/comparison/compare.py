"""`gengap.compare`: the one function that joins training, measuring and reporting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gengap.comparison.checks import STUDY, check_recipes, check_same, check_sizes, with_stored_remedies
from gengap.comparison.question import comparison_study
from gengap.core.errors import BadInput
from gengap.core.events import Listener, silent
from gengap.core.files import write_text
from gengap.core.recipe import Recipe
from gengap.problem.problem import Problem
from gengap.report.document import comparison_document
from gengap.store.store import LEDGER, Store
from gengap.studies.study import Study, read_study
from gengap.sweeps.local import run_study
from gengap.sweeps.plan import resolve_sizes
from gengap.training.ranks import ALONE, Ranks
from gengap.training.solo import find_device


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
        from gengap.report.terminal import as_text, print_comparison

        return as_text(print_comparison, self.document)

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
