"""Warm starts: the small batch for some epochs, then the large one, for several numbers of epochs at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gengap.core.errors import BadInput, Interrupted
from gengap.core.events import Listener, Message, silent
from gengap.core.recipe import Recipe
from gengap.problem.problem import Problem
from gengap.schedules.budget import plan
from gengap.training.run import Run
from gengap.training.snapshots import Probe, Snapshot
from gengap.training.solo import train


@dataclass(frozen=True, slots=True)
class Piggyback:
    """Large-batch runs that began where a small-batch run was after some epochs.

    Attributes:
        small: the one run of the small batch.
        large: the runs of the large batch, by the number of small-batch epochs before; 0 begins with fresh weights.
    """

    small: Run
    large: Mapping[int, Run]

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form, without the weights."""
        return {"small": self.small.to_dict(), "large": {str(k): run.to_dict() for k, run in self.large.items()}}

    def __str__(self) -> str:
        rows = [f"{'small-batch epochs':>18}  {'test accuracy':>13}  {'train loss':>10}"]
        for epochs, run in self.large.items():
            last = run.final
            accuracy = "-" if last.test_accuracy is None else f"{last.test_accuracy:.2f} %"
            rows.append(f"{epochs:>18}  {accuracy:>13}  {last.train_loss:>10.3g}")
        return "\n".join(rows)


def piggyback(
    problem: Problem,
    small: Recipe,
    large: Recipe,
    epochs: Sequence[int],
    *,
    device: str = "cpu",
    out: str | Path | None = None,
    listen: Listener = silent,
) -> Piggyback:
    """Train with the small batch once, and with the large batch from each of several of its epochs on.

    Args:
        problem: what is learnt.
        small: the recipe of the small batch, for a number of epochs.
        large: the recipe of the large batch; its schedules begin anew at the warm start, with an empty memory of the
            optimizer, as in the authors' code.
        epochs: after how many small-batch epochs to begin; 0 for fresh weights.
        device: where to train.
        out: folder for checkpoints; large-batch runs that are finished there are not trained again, the small batch is
            where its weights on the way are asked for. None: nothing is kept.
        listen: told of the progress.

    Returns:
        The runs. The small batch is trained once for the largest number of epochs that its recipe says, and not once
        for each start.

    Raises:
        BadInput: a number of epochs is negative, stands there twice, or is more than the small batch is trained for.
        Interrupted: Ctrl-C; with `out` what was done is kept.

    Source:
        Keskar et al. 2017, arXiv:1609.04836, section 4, figure 5: 100 epochs of each.
    """
    steps = starts(problem, small, epochs)
    snapshots: dict[int, Snapshot] = {}

    def keep(snapshot: Snapshot) -> None:
        snapshots[steps[snapshot.step]] = snapshot

    folder = Path(out) if out is not None else None
    probe = Probe(keep, at=sorted(steps))
    first = whole(train(problem, small, device=device, probe=probe, checkpoint=beside(folder, "small"), listen=listen))
    if len(snapshots) < len(steps):  # a finished run shows nothing again
        listen(Message("the small batch is trained again for its weights on the way"))
        first = whole(train(problem, small, device=device, probe=probe, listen=listen))
    runs = {}
    for count in sorted(epochs):
        listen(Message(f"large batch after {count} epochs of the small one"))
        checkpoint = beside(folder, f"large-after-{count}")
        runs[count] = whole(
            train(problem, large, device=device, start=snapshots[count], checkpoint=checkpoint, listen=listen)
        )
    return Piggyback(first, runs)


def starts(problem: Problem, small: Recipe, epochs: Sequence[int]) -> dict[int, int]:
    """Give the update after which each number of epochs is over.

    Args:
        problem: what is learnt.
        small: the recipe of the small batch.
        epochs: numbers of epochs.

    Returns:
        Update to number of epochs.

    Raises:
        BadInput: a number of epochs cannot be used.
    """
    total = small.budget.epochs
    if not total or small.batch_schedule or small.regime_adaptation:
        raise BadInput("the small batch of a piggyback needs a budget of epochs and a batch that stays")
    whole_numbers = isinstance(epochs, Sequence) and all(type(count) is int for count in epochs)
    if not whole_numbers or not epochs or len(set(epochs)) != len(epochs) or not all(0 <= k <= total for k in epochs):
        raise BadInput(f"epochs is {epochs}; give different numbers from 0 to the {total} of the small batch")
    per_epoch = plan(small, len(problem.samples("train"))).per_epoch
    return {count * per_epoch: count for count in epochs}


def whole(run: Run) -> Run:
    """Let a run pass that was not interrupted."""
    if run.outcome.kind == "interrupted":
        raise Interrupted(f"{run}; with out it can be gone on with")
    return run


def beside(folder: Path | None, name: str) -> Path | None:
    """Name the checkpoint of one run."""
    return folder / f"{name}.safetensors" if folder is not None else None
