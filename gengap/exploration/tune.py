"""`gengap.tune`: Smith & Le's heuristic for batch size and momentum, as a procedure that runs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gengap.core.errors import BadInput
from gengap.core.estimate import Estimate, mean
from gengap.core.events import Listener, Message, silent
from gengap.core.recipe import Recipe
from gengap.exploration.sweep import stored_sweep, sweep
from gengap.exploration.tuned import Stage, Tried, Tuned, shown
from gengap.problem.problem import Problem
from gengap.problem.validation import parted
from gengap.store.store import Store
from gengap.studies.sweep import Sweep
from gengap.sweeps.plan import spec_of
from gengap.sweeps.problem_sizes import Problems
from gengap.sweeps.resizing import has_accuracy
from gengap.sweeps.sweep_plan import SweepPlan, make_plan

FACTOR = 5  # of the batch in every step of the second stage
LOWEST = 4  # how often the learning rate is divided by 10, at most
MORE = 4  # batch sizes tried beyond an edge of the grid, at most
ERRORS = 2.0  # combined standard errors that a difference must exceed
ENOUGH = {"accuracy": 0.1, "loss": 1e-3}  # what nobody would tune for: points, nats


def tune(  # noqa: PLR0913 - options, by keyword only
    problem: Problem,
    budget: Any,
    *,
    lr: float = 1.0,
    momentum: float = 0.9,
    batch_sizes: Sequence[int] | None = None,
    max_batch: int | None = None,
    poor: float | None = None,
    recipe: Mapping[str, Any] | None = None,
    seeds: int | Sequence[int] = 3,
    validation: float = 0.1,
    out: str | Path | None = None,
    listen: Listener = silent,
    **running: Any,
) -> Tuned:
    """Choose batch size, momentum and learning rate of SGD as Smith & Le propose.

    1. With the learning rate held, the batch size is swept on a logarithmic scale, and the grid grows where the best stands at
       its edge; if the model does poorly, again with a tenth of the rate. What is poor is `poor`; left out, the rate falls as
       long as that is better by more than two standard errors.
    2. The batch is multiplied by 5 and 1 - momentum divided by 5, which keeps the noise scale, until the score falls by more
       than two standard errors or the batch reaches its limit.
    3. The batch is swept on a linear scale around where it is.

    Args:
        problem: what is learnt.
        budget: of every run: {"epochs": 30}, "steps=10000", ... The authors hold the steps.
        lr: learning rate to begin with.
        momentum: to begin with.
        batch_sizes: of the first sweep; by default powers of 2 from 8 to half the training set, at most 4,096.
        max_batch: what the hardware holds; by default the training set.
        poor: a score that is poor: accuracy in percent below it, or loss above it.
        recipe: further fields that all runs share.
        seeds: how many, or which.
        validation: training samples held out to choose by; 0: the test set chooses.
        out: folder for a store; runs in it are not made again. None: nothing is kept.
        listen: told of the progress.
        running: engine, workers, device and data_root, as `gengap.sweep` takes them.

    Returns:
        What was found, with every setting that was tried.

    Raises:
        BadInput: an argument cannot be used, or every setting diverged.
        Interrupted: Ctrl-C; with `out` finished runs are kept.

    Source:
        Smith & Le 2018, arXiv:1710.06451, appendix D. They say "does poorly" and "starts to fall" without numbers; the two
        standard errors are ours.
    """
    fields = further_fields(recipe)
    with TemporaryDirectory(prefix="gengap-") if out is None else nullcontext(str(out)) as folder:
        how = {"recipe": fields, "seeds": seeds, "validation": validation, "out": folder, "listen": listen, **running}
        tuner = Tuner(problem, budget, how, poor=poor, limit=max_batch)
        first = tuner.rate(lr, momentum, sizes_of(batch_sizes, tuner.limit))
        second = tuner.momentum(first.best)
        third = tuner.batch(second.best)
        return tuner.result(
            (*first.stages, *second.stages, *third.stages), third.best, None if out is None else Path(out)
        )


def first_sweep(  # noqa: PLR0913 - options, by keyword only
    problem: Problem,
    budget: Any,
    *,
    lr: float,
    momentum: float,
    batch_sizes: Sequence[int] | None,
    max_batch: int | None,
    recipe: Mapping[str, Any] | None,
    seeds: Sequence[int],
    validation: float,
) -> SweepPlan:
    """Plan the sweep that `tune` begins with, at its first learning rate.

    Args:
        problem: what is learnt.
        budget: as for `tune`, and everything else likewise.
        lr: learning rate to begin with.
        momentum: to begin with.
        batch_sizes: of the sweep; None: those of `tune`.
        max_batch: what the hardware holds, or None.
        recipe: further fields that all runs share.
        seeds: which.
        validation: training samples held out.

    Returns:
        The plan, for `gengap.sweeps.sweep_forecast.forecast_sweep`.

    Raises:
        BadInput: an argument cannot be used.
    """
    sizes = sizes_of(batch_sizes, largest_batch(problem, validation, max_batch))
    grid: dict[str, Any] = {"batch_size": sizes, "lr": [lr], "momentum": [momentum], "seed": list(seeds)}
    fields = further_fields(recipe)
    plan = Sweep(problem=spec_of(problem), recipe=fields, grid=grid, budget=budget, validation=validation)
    return make_plan(plan, Problems(problem, validation=validation))


def further_fields(recipe: Mapping[str, Any] | None) -> dict[str, Any]:
    """Give the fields that all runs share, refusing those that tuning sets itself."""
    fields = dict(recipe or {})
    taken = [name for name in ("lr", "momentum", "batch_size", "budget", "seed") if name in fields]
    if taken or fields.get("optimizer", "sgd") != "sgd":
        raise BadInput(f"recipe sets {taken[0] if taken else 'optimizer'}, which tuning sets itself; leave it out")
    return fields


def sizes_of(given: Sequence[int] | None, limit: int) -> list[int]:
    """Give the batch sizes of the first sweep."""
    sizes = sorted(given) if given else [2**k for k in range(3, 13) if 2**k <= max(8, limit // 2)]
    if sizes[0] < 1 or sizes[-1] > limit:
        raise BadInput(f"batch_sizes is {list(sizes)}; give sizes from 1 to {limit:,}")
    return sizes


@dataclass(frozen=True, slots=True)
class Found:
    """Stages, and where they ended."""

    stages: tuple[Stage, ...]
    best: Tried


class Tuner:
    """The procedure; see `tune` for the arguments."""

    def __init__(
        self, problem: Problem, budget: Any, how: Mapping[str, Any], *, poor: float | None, limit: int | None
    ) -> None:
        self.problem, self.budget, self.how, self.poor = problem, budget, how, poor
        self.metric = "accuracy" if has_accuracy(problem) else "loss"
        self.selection = "validation"
        self.keys: list[str] = []
        self.limit = largest_batch(problem, how["validation"], limit)

    def tries(self, sizes: Iterable[int], lr: float, momentum: float) -> list[Tried]:
        """Train every batch size with one learning rate and momentum."""
        ascending = sorted(sizes)
        grid = {"batch_size": ascending, "lr": [lr], "momentum": [momentum]}
        found = sweep(self.problem, grid, self.budget, extend=0, metric=self.metric, **self.how)
        self.selection = found.document["selection"]
        self.keys += [run["key"] for run in found.runs if run["key"] not in self.keys]
        return [
            self.tried(size, lr, momentum, [run for run in found.runs if run["batch_size"] == size])
            for size in ascending
        ]

    def tried(self, size: int, lr: float, momentum: float, runs: Sequence[Mapping[str, Any]]) -> Tried:
        """Sum up the seeds of one setting."""
        ended = [run for run in runs if run["outcome"] == "finished"]
        score, test = (over(ended, f"{part}_{self.metric}", len(runs)) for part in (self.selection, "test"))
        return Tried(size, lr, momentum, score, test, len(runs), len(runs) - len(ended))

    def rate(self, lr: float, momentum: float, sizes: list[int]) -> Found:
        """Sweep the batch at falling learning rates."""
        stages: list[Stage] = []
        best: Tried | None = None
        for _ in range(1 + LOWEST):
            tried = self.around_the_best(sizes, lr, momentum)
            found = self.best(tried)
            stages.append(Stage("batch and rate", tuple(tried), found, self.said(found, lr)))
            self.how["listen"](Message(stages[-1].why))
            if best is not None and not self.clearly_better(found, best):
                break
            best = found or best
            if self.poor is not None and found is not None and not self.is_poor(found):
                break
            lr = lr / 10
        if best is None:
            raise BadInput(f"every batch size diverged down to a learning rate of {lr * 10:.3g}; begin with a lower lr")
        return Found(tuple(stages), best)

    def around_the_best(self, sizes: list[int], lr: float, momentum: float) -> list[Tried]:
        """Sweep batch sizes, and go on beyond an edge of the grid while the best stands there."""
        tried = self.tries(sizes, lr, momentum)
        for _ in range(MORE):
            best = self.best(tried)
            sizes = [one.batch_size for one in tried]
            if best is None or best.batch_size not in {sizes[0], sizes[-1]}:
                break
            more = max(1, sizes[0] // 2) if best.batch_size == sizes[0] else min(self.limit, 2 * sizes[-1])
            if more in sizes:
                break
            tried = sorted([*tried, *self.tries([more], lr, momentum)], key=lambda one: one.batch_size)
        return tried

    def momentum(self, best: Tried) -> Found:
        """Multiply the batch by 5 and divide 1 - momentum by 5 until the score falls."""
        tried, why = [best], f"5 times batch {best.batch_size:,} is above the limit of {self.limit:,}"
        while FACTOR * tried[-1].batch_size <= self.limit:
            last = tried[-1]
            [larger] = self.tries([FACTOR * last.batch_size], best.lr, 1 - (1 - last.momentum) / FACTOR)
            tried.append(larger)
            if larger.score is None or self.clearly_better(best, larger):
                why = f"at batch {larger.batch_size:,} the {self.selection} {self.metric} is worse"
                break
            best = larger
            why = f"no worse up to batch {larger.batch_size:,}; 5 times that is above the limit of {self.limit:,}"
        self.how["listen"](Message(f"momentum: {why}"))
        return Found((Stage("batch and momentum", tuple(tried), best, why),), best)

    def batch(self, best: Tried) -> Found:
        """Sweep the batch on a linear scale around where it is."""
        middle = best.batch_size
        sizes = sorted({min(self.limit, max(1, round(middle * share))) for share in (0.5, 0.75, 1.0, 1.25, 1.5)})
        tried = self.tries(sizes, best.lr, best.momentum)
        chosen = self.best(tried) or best
        why = f"from {sizes[0]:,} to {sizes[-1]:,}, best at {chosen.batch_size:,}"
        self.how["listen"](Message(f"batch: {why}"))
        return Found((Stage("batch", tuple(tried), chosen, why),), chosen)

    def best(self, tried: Sequence[Tried]) -> Tried | None:
        """Give the setting with the best mean score; None where all diverged."""
        scored = [one for one in tried if one.score is not None]
        return max(scored, key=self.worth, default=None)

    def worth(self, one: Tried) -> float:
        """Give the score with more as better."""
        assert one.score is not None
        return one.score.value if self.metric == "accuracy" else -one.score.value

    def clearly_better(self, one: Tried | None, other: Tried) -> bool:
        """Tell whether one setting is better by more than two combined standard errors, and by more than nothing."""
        if one is None or one.score is None:
            return False
        if other.score is None:
            return True
        error = math.hypot(one.score.stderr or 0.0, other.score.stderr or 0.0)
        return self.worth(one) - self.worth(other) > max(ERRORS * error, ENOUGH[self.metric])

    def is_poor(self, one: Tried) -> bool:
        """Tell whether a score is poor by the user's number."""
        assert self.poor is not None
        return self.worth(one) < (self.poor if self.metric == "accuracy" else -self.poor)

    def said(self, found: Tried | None, lr: float) -> str:
        """Say how a learning rate did."""
        if found is None:
            return f"learning rate {lr:.3g}: every batch size diverged"
        score = f"{self.selection} {self.metric} {shown(found.score, self.metric)}"
        return f"learning rate {lr:.3g}: best at batch {found.batch_size:,}, {score}"

    def result(self, stages: tuple[Stage, ...], chosen: Tried, folder: Path | None) -> Tuned:
        """Put it all together."""
        with Store(self.how["out"], create=False) as store:
            store.remember("sweep_keys", self.keys)
        document = stored_sweep(self.how["out"]).to_dict()
        document["title"] = "Which batch size, momentum and learning rate does tuning choose?"
        recipe = Recipe(
            **self.how["recipe"],
            batch_size=chosen.batch_size,
            lr=chosen.lr,
            momentum=chosen.momentum,
            budget=document["sweep"]["budget"],
            seed=document["runs"][0]["seed"],
        )
        return Tuned(recipe, chosen, stages, self.selection, self.metric, document, folder)


def over(runs: Sequence[Mapping[str, Any]], name: str, wanted: int) -> Estimate | None:
    """Estimate a number over seeds; None where one of them did not come to its end with a number."""
    values = [run[name] for run in runs if run[name] is not None]
    return mean(values) if values and len(values) == wanted else None


def largest_batch(problem: Problem, validation: float, most: int | None) -> int:
    """Give the largest batch: the training set after samples are held out, or what the hardware holds."""
    if most is not None and most < 1:
        raise BadInput(f"max_batch is {most}; give the largest batch that the hardware holds")
    total = len(problem.samples("train"))
    left = total if "validation" in problem.splits else len(parted(validation, total, seed=0)[0])
    return left if most is None else min(left, most)
