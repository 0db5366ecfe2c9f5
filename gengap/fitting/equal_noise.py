"""Whether the runs of a sweep with equal noise match."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from gengap.fitting.table import RunRecord
from gengap.theory.three_factors import ThreeFactors, compare_factors


def equal_noise(records: Sequence[RunRecord], metric: str, *, tolerance: float) -> ThreeFactors | None:
    """Compare settings of equal lr / (B (1 - m)), of the training-set size, optimizer and budget with the most settings.

    Args:
        records: the runs; those that diverged are left out.
        metric: "test_accuracy" or "test_loss".
        tolerance: a difference of the metric that does not matter.

    Returns:
        What decides; None where no run finished.
    """
    groups: dict[Any, list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.finished and getattr(record, metric) is not None:
            groups[record.train_size, record.optimizer, record.budget].append(record)
    if not groups:
        return None
    runs = max(groups.values(), key=lambda own: len({(one.batch_size, one.effective_lr) for one in own}))
    return compare_factors(
        [run.batch_size for run in runs],
        [run.effective_lr for run in runs],
        [getattr(run, metric) for run in runs],
        seeds=[run.seed for run in runs],
        tolerance=tolerance,
        higher_is_better=metric.endswith("accuracy"),
    )
