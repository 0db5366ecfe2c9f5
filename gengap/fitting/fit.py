"""`gengap.fit`: from the runs of a sweep to its laws, each with an interval or with the reason why not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gengap.core.estimate import finite
from gengap.core.records import Record, json_form
from gengap.fitting import wording
from gengap.fitting.cells import Cell, cells_of, parted
from gengap.fitting.choices import chosen_metric, chosen_selection, chosen_target
from gengap.fitting.equal_noise import equal_noise
from gengap.fitting.groups import GroupFit, MomentumFit, choose, fit_group, fit_momenta
from gengap.fitting.series import BestBatchSeries, BudgetFit, best_batches, budget_fits
from gengap.fitting.table import RunRecord, Runs, reaching, read_document, run_records
from gengap.fitting.target import Target
from gengap.theory.critical_batch import Bounded
from gengap.theory.least_squares import Coefficient
from gengap.theory.three_factors import ThreeFactors

POINTS = 0.1  # of accuracy that do not matter to anybody
SHARE = 0.01  # of a loss, likewise
NO_TARGET = (
    "no target: the runs have no history, or what all batch sizes reach is met before training; name one by target"
)


@dataclass(frozen=True, slots=True)
class Fits(Record):
    """What the runs of a sweep say.

    Attributes:
        metric: "test_accuracy" or "test_loss".
        selection: "validation" or "test": on what the best learning rates were selected.
        selection_note: a sentence where that is optimistic, or "".
        target: of the critical batch size; None where the runs have no history.
        tolerance: a difference of the metric that does not matter.
        groups: fits over batch sizes, for each momentum, training-set size, optimizer and budget, those with the most batch
            sizes first; the first one answers for all.
        momenta: each momentum against the largest.
        optimal_batch: best batch sizes against lr, N and momentum.
        optimal_lr: best learning rates against the budget.
        three_factors: whether settings of equal noise match, of the way of training with the most settings; None where no run
            finished.
        cells: the table they rest on.
    """

    metric: str
    selection: str
    selection_note: str
    target: Target | None
    tolerance: float
    groups: tuple[GroupFit, ...]
    momenta: tuple[MomentumFit, ...]
    optimal_batch: tuple[BestBatchSeries, ...]
    optimal_lr: tuple[BudgetFit, ...]
    three_factors: ThreeFactors | None
    cells: tuple[Cell, ...]

    @property
    def answers(self) -> list[str]:
        """What could be concluded, as sentences."""
        return wording.answers(self)

    @property
    def unresolved(self) -> list[str]:
        """What could not be concluded, each with its reason."""
        return wording.unresolved(self)

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form: every fit is an estimate, or null with the reason why not."""
        first = self.groups[0] if self.groups else None
        return {
            "metric": self.metric,
            "selection": self.selection,
            "target": None if self.target is None else self.target.to_dict(),
            **over_batches(first),
            "optimal_batch": best_by_axis(self.optimal_batch),
            "optimal_lr": [budget_form(each) for each in self.optimal_lr],
            "three_factors": None if self.three_factors is None else self.three_factors.to_dict(),
            "groups": [group_form(each) for each in self.groups],
            "momentum": [momentum_form(each) for each in self.momenta],
            "answers": self.answers,
            "unresolved": self.unresolved,
        }

    def __str__(self) -> str:
        lines = self.answers or ["Nothing could be concluded."]
        open_ = [f"  {sentence}" for sentence in self.unresolved]
        return "\n".join([*lines, *(["What could not be concluded", *open_] if open_ else [])])

    __repr__ = __str__


def fit(
    runs: Runs,
    *,
    target: Target | str | None = None,
    metric: str | None = None,
    selection: str = "validation",
    tolerance: float | None = None,
) -> Fits:
    """Fit the laws of large-batch training to the runs of a sweep.

    Critical batch size (McCandlish, Shallue), the two regimes (accuracy flat and then falling, best learning rate
    growing and then constant, SGD equal to momentum and then worse), best batch size against lr, N and momentum, and the
    best learning rate against the budget: what the runs vary is fitted, and what they cannot tell is a verdict with its
    reason.

    Args:
        runs: a store or its folder, a sweep's JSON document or its file, or lines of its table.
        target: of the critical batch size, such as "test_accuracy=95"; None: what all but the worst fifth of the batch
            sizes reach, named in the result.
        metric: "test_accuracy" or "test_loss"; None: the accuracy where runs have one.
        selection: what the best learning rates are selected on, "validation" (if every run has it) or "test".
        tolerance: a difference of the metric that does not matter; None: 0.1 points, or 1 % of the loss.

    Returns:
        The fits. Takes about a tenth of a second for each group of batch sizes.

    Source:
        Smith & Le 2018, arXiv:1710.06451; Smith, Elsen & De 2020, arXiv:2006.15081; McCandlish et al. 2018,
        arXiv:1812.06162; Shallue et al. 2019, arXiv:1811.03600.
    """
    if isinstance(runs, str | Path) and Path(runs).is_file():
        runs = read_document(Path(runs))
    told = runs.get("target") if isinstance(runs, Mapping) else None
    _, found = fit_records(
        parted(run_records(runs)),
        metric=metric,
        selection=selection,
        target=target,
        tolerance=tolerance,
        already=Target(**told) if told else None,
    )
    return found


def fit_records(
    records: Sequence[RunRecord],
    *,
    metric: str | None,
    selection: str,
    target: Target | str | None,
    tolerance: float | None = None,
    already: Target | None = None,
) -> tuple[Sequence[RunRecord], Fits]:
    """Choose what a table is fitted by, and fit it.

    Args:
        records: the runs.
        metric: as of `fit`.
        selection: as of `fit`.
        target: as of `fit`.
        tolerance: as of `fit`.
        already: the target that the runs were put to before, for runs without histories.

    Returns:
        The runs, put to the target, and the fits.

    Raises:
        BadInput: a choice is not possible, or runs of one cell differ in more than learning rate and seed.
    """
    metric = chosen_metric(records, metric)
    selection, note = chosen_selection(records, metric, selection)
    measure = metric if selection == "test" else metric.replace("test", "validation")
    wanted = chosen_target(records, measure, target)
    if wanted is not None:
        records = reaching(records, wanted)
    cells = cells_of(records, measure)
    within = tolerance_of(cells, metric) if tolerance is None else tolerance
    groups = choose(records, cells)
    reached = any(record.samples_to_target is not None for record in records)
    fits = [fit_group(key, own, metric, target=reached, tolerance=within) for key, own in groups.items()]
    return records, Fits(
        metric=metric,
        selection=selection,
        selection_note=note,
        target=wanted or already,
        tolerance=within,
        groups=tuple(sorted(fits, key=lambda each: (-len(each.batch_sizes), -each.runs))),
        momenta=tuple(fit_momenta(groups, metric, tolerance=within)),
        optimal_batch=tuple(best_batches(records, metric)),
        optimal_lr=tuple(budget_fits(records, cells)),
        three_factors=equal_noise(records, metric, tolerance=within),
        cells=tuple(cells),
    )


def tolerance_of(cells: Sequence[Cell], metric: str) -> float:
    """Give the difference that does not matter."""
    if metric.endswith("accuracy"):
        return POINTS
    losses = [cell.test_loss.value for cell in cells if cell.test_loss is not None]
    return SHARE * min(losses) if losses else 0.0


def over_batches(group: GroupFit | None) -> dict[str, Any]:
    """Give the JSON form of the fits over batch sizes."""
    if group is None:
        missing = form(None, "not resolvable", "no batch size has a run that finished")
        return dict.fromkeys(("b_crit", "e_min", "s_min", "lr_exponent", "lr_transition", "regimes"), missing)
    rates, transition = group.rates, group.transition
    lr_reason = rates.reason
    return {
        "b_crit": critical_form(group, "b_crit"),
        "e_min": critical_form(group, "e_min"),
        "s_min": critical_form(group, "s_min"),
        "lr_exponent": form(rates.exponent, rates.law, lr_reason) | {"n_bounds": rates.bounds},
        "lr_transition": form(rates.batch_size, rates.verdict, lr_reason) | {"plateau": rates.plateau},
        "regimes": form(transition.batch_size, transition.verdict, transition.reason)
        | {"bound": json_form(transition.interval), "level": transition.level, "drop": transition.drop}
        | {"shape": transition.shape},
    }


def critical_form(group: GroupFit, name: str) -> dict[str, Any]:
    """Give the JSON form of one number of the critical batch size."""
    found = group.critical
    if found is None:
        return form(None, "not resolvable", NO_TARGET)
    estimate: Bounded | None = getattr(found, name)
    return form(estimate, found.verdict, found.reason)


def form(estimate: Coefficient | Bounded | None, verdict: str, reason: str) -> dict[str, Any]:
    """Give an estimate with its verdict, or null with the reason why not."""
    if estimate is None:
        return {"value": None, "interval": None, "verdict": verdict, "reason": reason}
    named: dict[str, Any] = estimate.to_dict()
    ends = None if estimate.interval is None else [finite(end) for end in estimate.interval]
    return named | {"interval": ends, "verdict": verdict, "reason": reason}


def group_form(group: GroupFit) -> dict[str, Any]:
    """Give the JSON form of a group, with the whole record of its critical batch size."""
    named = {name: getattr(group, name) for name in ("momentum", "train_size", "optimizer", "budget", "runs")}
    whole = None if group.critical is None else group.critical.to_dict()
    return {
        **named,
        "batch_sizes": list(group.batch_sizes),
        **over_batches(group),
        "loss_lr_exponent": form(group.loss_rates.exponent, group.loss_rates.law, group.loss_rates.reason),
        "critical_batch": whole,
    }


def momentum_form(fitted: MomentumFit) -> dict[str, Any]:
    """Give the JSON form of two momenta side by side."""
    found = fitted.separation
    named = {name: getattr(fitted, name) for name in ("lower", "higher", "train_size", "optimizer", "budget")}
    return {
        **named,
        **form(found.transition.batch_size, found.verdict, found.reason),
        "sizes": list(found.sizes),
        "differences": [each.to_dict() for each in found.differences],
        "equal_below": found.equal_below,
        "worse_from": found.worse_from,
    }


def best_by_axis(series: Sequence[BestBatchSeries]) -> dict[str, Any]:
    """Give the JSON form of the best batch sizes: for each axis its first series, with the others of that axis."""
    found: dict[str, Any] = {}
    for axis in ("lr", "train_size", "momentum"):
        own = [series_form(each) for each in series if each.axis == axis]
        if own:
            found[axis] = own[0] | {"others": own[1:]}
        else:
            found[axis] = form(None, "not resolvable", f"the runs do not vary {axis} at three batch sizes or more")
    return found


def series_form(series: BestBatchSeries) -> dict[str, Any]:
    """Give the JSON form of one series."""
    fitted = series.proportion
    return {
        **form(fitted.slope, fitted.verdict, fitted.reason),
        "axis": series.axis,
        "shared": series.shared,
        "intercept": fitted.intercept,
        "constant": None if fitted.constant is None else fitted.constant.to_dict(),
        "centre": fitted.centre,
        "centre_stderr": fitted.stderr,
        "on_grid": form(series.on_grid.slope, series.on_grid.verdict, series.on_grid.reason),
        "points": [{"value": each.value, "x": each.x, **each.peak.to_dict()} for each in series.points],
    }


def budget_form(fitted: BudgetFit) -> dict[str, Any]:
    """Give the JSON form of the best learning rates against one kind of budget."""
    both = {}
    for name, found in (("train_loss", fitted.train_loss), ("metric", fitted.metric)):
        fold = None if found.fold is None else found.fold.to_dict()
        both[name] = form(found.exponent, found.law, found.reason) | {"factor": found.factor, "fold": fold}
    return {"kind": fitted.kind, **fitted.shared, **both, "points": [dict(point) for point in fitted.points]}
