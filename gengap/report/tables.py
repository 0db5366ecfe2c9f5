"""What the tables say, in words and numbers ready to be read; page and terminal show the same rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gengap.report import numbers

Document = Mapping[str, Any]
ARMS = ("small", "large")
MEASURES = (
    ("test_accuracy", "Test accuracy", "%"),
    ("train_accuracy", "Train accuracy", "%"),
    ("test_loss", "Test loss", "nats"),
    ("train_loss", "Train loss", "nats"),
    ("sharpness", "Sharpness", "%"),
    ("distance", "Distance from start", ""),
    ("seconds", "Time of a run", "s"),
)
RATIOS = ("sharpness", "distance")


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in one place of the table: the number, and its interval or its n in smaller type."""

    text: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One measure: each batch size, and how they differ."""

    name: str
    unit: str
    small: Cell
    large: Cell
    difference: Cell


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that was set, for each batch size."""

    name: str
    small: str
    large: str

    @property
    def differs(self) -> bool:
        """Tell whether the two batch sizes were treated differently."""
        return self.small != self.large


def rows(document: Document) -> list[Row]:
    """Say every measure that was made.

    Args:
        document: the comparison.

    Returns:
        One row for each measure with a value in at least one arm, then how many runs were finished.
    """
    found = [
        Row(name, unit, cell(document["small"], key), cell(document["large"], key), difference(document, key))
        for key, name, unit in MEASURES
        if any(known(document[role].get(key)) for role in ARMS)
    ]
    return [*found, Row("Runs finished", "", finished(document["small"]), finished(document["large"]), Cell(""))]


def usual_n(arm: Mapping[str, Any]) -> int:
    """Count the seeds behind most numbers of an arm: the n that its heading gives."""
    return max((arm[key]["n"] for key, _, _ in MEASURES if known(arm.get(key))), default=0)


def known(estimate: Mapping[str, Any] | None) -> bool:
    """Tell whether there is a number at all."""
    return estimate is not None and estimate["value"] is not None


def cell(arm: Mapping[str, Any], key: str) -> Cell:
    """Say an estimate as mean ± standard deviation, with its n where it is not that of the heading."""
    estimate = arm.get(key)
    if estimate is None or not known(estimate):
        return Cell(numbers.MISSING)
    return Cell(numbers.spread(estimate), "" if estimate["n"] == usual_n(arm) else f"n = {estimate['n']}")


def finished(arm: Mapping[str, Any]) -> Cell:
    """Say how many runs came to their end."""
    runs = arm["runs"]
    return Cell(f"{sum(run['outcome'] == 'finished' for run in runs)} of {len(runs)}")


def difference(document: Document, key: str) -> Cell:
    """Say the paired difference, or the paired ratio where only ratios compare."""
    found = document["difference"].get(key)
    if found is None:
        return Cell("")
    if key in RATIOS:
        return paired(found["ratio"], numbers.times(found["ratio"]), numbers.ratio_interval(found["ratio"]))
    estimate = found["estimate"]
    return paired(estimate, f"{numbers.difference(estimate)} {found['unit']}", numbers.interval(estimate))


def paired(estimate: Mapping[str, Any] | None, text: str, interval: str) -> Cell:
    """Add the interval to a difference, or say that there is none."""
    if estimate is None or not known(estimate):
        return Cell(numbers.MISSING)
    return Cell(text, interval or "no interval")


def settings(document: Document) -> list[Setting]:
    """Put the two recipes side by side; what differs comes first."""
    small, large = (document[role]["recipe"] for role in ARMS)
    names = [*small, *(name for name in large if name not in small)]
    found = [Setting(name, plain(small.get(name)), plain(large.get(name))) for name in names]
    steps = Setting("steps", numbers.whole(document["small"]["steps"]), numbers.whole(document["large"]["steps"]))
    return sorted([*found, steps], key=lambda setting: not setting.differs)


def plain(value: Any) -> str:
    """Write a setting; a mapping as "name value, name value"."""
    if value is None:
        return numbers.MISSING
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(inner) for inner in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return numbers.whole(value) if isinstance(value, int) else str(value)


def context(document: Document) -> str:
    """Say in one line what was trained on what."""
    problem = document["problem"]
    said = [
        f"{problem['data']}: {numbers.whole(problem['train_samples'])} training and "
        f"{numbers.whole(problem['test_samples'])} test samples",
        f"{problem['network']}: {numbers.whole(problem['parameters'])} weights",
    ]
    if problem.get("batch_norm") not in {None, "none"}:
        said.append(f"batch norm: {NORMALISED[problem['batch_norm']]}")
    return " · ".join([*said, str(document["created"])[:10]])


NORMALISED = {
    "running": "running averages",
    "batch": "statistics of batches",
    "recompute": "statistics of the training set",
}
RUN_COLUMNS = ("Batch", "Remedy", "Seed", "Outcome", *(name for _, name, _ in MEASURES), "Search", "Record")


def every_arm(document: Document) -> list[Mapping[str, Any]]:
    """Give every way of training: small batch, large batch, then the remedies in the order they were named."""
    return [*(document[role] for role in ARMS), *document.get("remedies", [])]


def remedy_of(arm: Mapping[str, Any]) -> str:
    """Name the remedy of an arm; "" for the two batch sizes as they are."""
    return str(arm["label"]) if "to_large" in arm else ""


def run_rows(document: Document) -> list[list[str]]:
    """Say every run: one row each, in the order of `RUN_COLUMNS`."""
    return [run_row(arm, run) for arm in every_arm(document) for run in arm["runs"]]


def run_row(arm: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    """Say one run."""
    outcome = f"{run['outcome']}: {run['reason']}" if run["reason"] else run["outcome"]
    found = run["sharpness"]
    return [
        numbers.whole(arm["batch_size"]),
        remedy_of(arm),
        str(run["seed"]),
        outcome,
        *(numbers.number(run[key], 4) for key, _, _ in MEASURES[:4]),
        numbers.number(found["percent"]) if found else numbers.MISSING,
        numbers.number(run["distance"]),
        numbers.seconds(run["seconds"]),
        search(found) if found else numbers.MISSING,
        str(run["key"])[:10],
    ]


def search(found: Mapping[str, Any]) -> str:
    """Say how a sharpness was searched and how far it can be trusted."""
    said = [str(found["search"]), f"{numbers.whole(found.get('evaluations'))} evaluations"]
    if found.get("share_at_bound") is not None:
        said.append(f"{100 * found['share_at_bound']:.0f} % at the bound")
    if found.get("agreement") is not None:
        said.append(f"searches agree to {found['agreement']:.2f}")
    return ", ".join(said)


def failures(document: Document) -> Sequence[str]:
    """List what went wrong, with the arm in front."""
    return [f"{arm['label']}, {text}" for arm in every_arm(document) for text in arm["failures"]]
