"""The critical batch size along a run, by branches: what the largest batch is that loses nothing, and when."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gengap.core.errors import BadInput, Interrupted
from gengap.core.events import Event, Listener, Message, Progress, silent
from gengap.core.recipe import Recipe, digest
from gengap.core.recipe.schedules import LrRule
from gengap.core.records import Record
from gengap.data.order import subset
from gengap.measures.noise.noise_scale import noise_scale
from gengap.problem.problem import Problem
from gengap.schedules.budget import Plan, plan
from gengap.schedules.lr import learning_rate, rule_factor
from gengap.store.rows import RunRow
from gengap.store.store import Store
from gengap.sweeps.forecast import Row, runs_row
from gengap.sweeps.plan import Task, facts
from gengap.sweeps.work import row_from
from gengap.theory.branch_crossing import Crossing, branch_crossing
from gengap.training.snapshots import Probe, Snapshot
from gengap.training.solo import find_device, train

ADAPTIVE = {"adam", "adamw", "adagrad", "rmsprop", "lamb", "rmsprop-warmup", "adaqn"}  # steps of a length of their own
REMEMBERED = {"sgd", "adam", "adamw", "adagrad", "rmsprop", "lars", "lamb"}  # memory is a tensor for each weight
UNBRANCHED = {
    "schedule": "constant",
    "warmup": None,
    "lr_rule": None,
    "batch_schedule": None,
    "regime_adaptation": None,
    "drop_last": True,  # every update of a branch has the batch that it is about
}
RuleName = Literal["linear", "sqrt"]


@dataclass(frozen=True, slots=True)
class BranchPoint(Record):
    """What branches say at one moment of a run.

    Attributes:
        step: updates of the run before.
        samples: training samples used before.
        share: of the run's budget.
        lr: learning rate of the run there.
        crossing: the critical batch with all branches.
        noise_scale: tr(Sigma) / |G|^2 of the weights there, the guess of McCandlish et al.; None where it is not resolvable.
        noise_interval: its 95 % interval; None likewise.
        noise_reason: why there is none, or "".
    """

    step: int
    samples: int
    share: float
    lr: float
    crossing: Crossing
    noise_scale: float | None
    noise_interval: tuple[float, float] | None
    noise_reason: str


@dataclass(frozen=True, slots=True)
class CriticalBatch(Record):
    """The critical batch size along a run.

    Attributes:
        points: in the order of the run.
        rule: how the learning rate of a branch follows from that of the run.
        samples: training samples of each branch.
        tolerance: excess of the training loss that counts as none, nats.
        seeds: branches of each batch size.
        memory: whether branches went on with the optimizer's memory.
        base: recipe of the run.
    """

    points: tuple[BranchPoint, ...]
    rule: RuleName
    samples: int
    tolerance: float
    seeds: int
    memory: bool
    base: dict[str, Any]

    def __str__(self) -> str:
        head = f"{'share':>6}  {'updates':>8}  {'noise scale':>12}  critical batch"
        rows = [
            f"{point.share:6.0%}  {point.step:8,}  {said(point):>12}  {point.crossing.reason}" for point in self.points
        ]
        return "\n".join([head, *rows])

    __repr__ = __str__


def said(point: BranchPoint) -> str:
    """Write the noise scale of a point."""
    return "-" if point.noise_scale is None else f"{point.noise_scale:,.4g}"


def critical_batch(  # noqa: PLR0913 - options, by keyword only
    problem: Problem,
    recipe: Recipe,
    *,
    at: Sequence[float] = (0.1, 0.3, 0.6, 1.0),
    batch_sizes: Sequence[int] | None = None,
    rule: RuleName | None = None,
    branch_samples: int | None = None,
    tolerance: float = 0.01,
    seeds: int = 3,
    noise_samples: int = 1000,
    device: str = "cpu",
    out: str | Path | None = None,
    listen: Listener = silent,
) -> CriticalBatch:
    """Measure along a run how large its batch could be without loss.

    The run is trained once. From its weights at each moment, with the optimizer's memory, short branches go on with several
    batch sizes, the learning rate scaled by the rule and held, all on the same number of samples; those of one seed see them
    in the same order. The critical batch is the largest whose training loss at the end exceeds that of the run's own batch by
    no more than the tolerance.

    Args:
        problem: what is learnt.
        recipe: of the run, with a batch size that stays and a budget of epochs or steps.
        at: shares of the budget, above 0 and up to 1.
        batch_sizes: of the branches, beside the run's own; by default it doubled until a quarter of the training set, or until
            a branch would have fewer than 4 updates.
        rule: "linear" or "sqrt"; by default linear for SGD, and the square root for optimizers with steps of a length of their
            own (Malladi et al. 2022, arXiv:2205.10287).
        branch_samples: of each branch; by default a twentieth of the budget, at least 64 updates of the run's own batch.
        tolerance: nats per sample.
        seeds: branches of each batch size; one has no interval.
        noise_samples: training samples for the noise scale; 0: it is not measured.
        device: where to train.
        out: folder for a store of the branches, so that those that are there are not trained again. None: nothing is kept.
        listen: told of the progress.

    Returns:
        A point for each moment. Costs the run, and `seeds` branches for each batch size and moment.

    Raises:
        BadInput: an argument cannot be used.
        Interrupted: Ctrl-C; with `out` finished branches are kept.

    Source:
        Merrill et al. 2025, arXiv:2505.23971.
    """
    branching = Branching(
        problem,
        recipe,
        at=at,
        batch_sizes=batch_sizes,
        rule=rule,
        branch_samples=branch_samples,
        seeds=seeds,
        device=device,
    )
    if not tolerance >= 0:
        raise BadInput(f"tolerance is {tolerance}; give nats, at least 0")
    with nullcontext(None) if out is None else Store(out) as store:
        points = branching.measure(store, tolerance=tolerance, noise_samples=noise_samples, listen=listen)
    return CriticalBatch(
        tuple(points),
        branching.rule.name,
        branching.samples,
        tolerance,
        seeds,
        branching.remembers,
        branching.base.model_dump(mode="json"),
    )


class Branching:
    """A run and its branches; see `critical_batch` for the arguments."""

    def __init__(
        self,
        problem: Problem,
        recipe: Recipe,
        *,
        at: Sequence[float],
        batch_sizes: Sequence[int] | None,
        rule: RuleName | None,
        branch_samples: int | None,
        seeds: int,
        device: str,
    ) -> None:
        problem.check()
        find_device(device)
        self.problem, self.device = problem, device
        self.training = len(problem.samples("train"))
        self.base = base = recipe.resolved(self.training)
        self.plan: Plan = plan(base, self.training)
        if base.batch_schedule or self.plan.samples is None or base.optimizer in {"lbfgs", "full-batch-gd"}:
            raise BadInput(
                "branches need a run whose batch stays, with a budget of epochs or steps and steps of its own"
            )
        if seeds < 1:
            raise BadInput(f"seeds is {seeds}; make at least one branch of each batch size")
        self.seeds, own = seeds, int(base.batch_size)
        self.samples = self._branch_samples(branch_samples)
        self.rule = LrRule(name=rule or ("sqrt" if base.optimizer in ADAPTIVE else "linear"), reference_batch=own)
        self.sizes = self._batch_sizes(batch_sizes)
        self.steps = self._moments(at)
        self._check_rates()
        self.remembers = base.method is None and base.optimizer in REMEMBERED

    def _branch_samples(self, given: int | None) -> int:
        own = int(self.base.batch_size)
        if given is not None and given < own:
            raise BadInput(f"branch_samples is {given:,}, less than one batch of {own:,}; make branches longer")
        return given or max(64 * own, math.ceil((self.plan.samples or 0) / 20))

    def _batch_sizes(self, given: Sequence[int] | None) -> list[int]:
        own = int(self.base.batch_size)
        if given is None:
            most = min(max(2 * own, self.training // 4), self.samples // 4, self.training)
            given = [own * 2**k for k in range(1, 1 + int(math.log2(max(1, most / own))))]
        sizes = sorted({own, *given})
        if len(sizes) < 2 or sizes[0] < own or sizes[-1] > min(self.training, self.samples):
            raise BadInput(
                f"batch_sizes is {list(given)}; give sizes above the run's own, {own:,}, and not above the training set "
                f"({self.training:,}) or the samples of a branch ({self.samples:,})"
            )
        return sizes

    def _moments(self, at: Sequence[float]) -> dict[int, float]:
        if not at or not all(0 < share <= 1 for share in at):
            raise BadInput(f"at is {list(at)}; give shares of the budget above 0 and up to 1")
        return {max(1, round(share * self.plan.steps)): share for share in sorted(at)}

    def _check_rates(self) -> None:
        for step, share in self.steps.items():
            if not self.rate(self.seen_after(step)) > 0:
                raise BadInput(
                    f"at is {share:g}, where the learning rate of the run is 0 and no branch learns anything; branch at another "
                    "moment"
                )

    def seen_after(self, step: int) -> int:
        """Count the samples that the run has used after some of its updates."""
        return plan(self.base.changed(budget={"steps": step}, regime_adaptation=None), self.training).samples or 0

    def rate(self, seen: int) -> float:
        """Give the learning rate of the run after so many samples."""
        return learning_rate(self.base, seen, training=self.training, total=self.plan.samples)

    def branch(self, step: int, seen: int, size: int, seed: int) -> Task:
        """Name one branch and give its recipe: `step` updates and `seen` samples of the run come before it."""
        recipe = self.base.changed(
            **UNBRANCHED,
            lr=self.rate(seen) * rule_factor(self.rule, size, self.base.momentum),
            batch_size=size,
            budget={"steps": max(1, round(self.samples / size))},
            seed=self.base.seed + 1 + seed,
        )
        return Task(digest([self.problem.fingerprint, self.base.key, step, self.remembers, recipe.key]), recipe)

    def forecast(self, store: Store | None) -> list[Row]:
        """Estimate the time of the run and of the branches that are still to be made.

        Args:
            store: branches that are there already are not counted; None: none is.

        Returns:
            A row for the run, which is always made, and one for each batch size. Measuring noise scales is not in it. Costs
            some updates of each.
        """
        how: dict[str, Any] = {"device": self.device, "evaluations": 1}
        rows = [runs_row("the run", [Task(self.base.key, self.base)], self.problem, **how)]
        for size in self.sizes:
            branches = [
                self.branch(step, self.seen_after(step), size, seed)
                for step in self.steps
                for seed in range(self.seeds)
            ]
            left = [task for task in branches if store is None or store.run(task.key) is None]
            rows.append(runs_row(f"branches, batch {size:,}", left, self.problem, **how))
        return rows

    def measure(
        self, store: Store | None, *, tolerance: float, noise_samples: int, listen: Listener
    ) -> list[BranchPoint]:
        """Train the run, and branch from it at every moment.

        Args:
            store: keeps the branches; None: nothing does.
            tolerance: nats.
            noise_samples: for the noise scale.
            listen: told of the progress.

        Returns:
            The points.

        Raises:
            BadInput: the run itself diverges.
            Interrupted: Ctrl-C.
        """
        if store:
            store.add_problem(self.problem.fingerprint, facts(self.problem))
        seen: list[Snapshot] = []
        probe = Probe(seen.append, at=list(self.steps), memory=self.remembers)
        run = train(self.problem, self.base, device=self.device, evaluations=1, probe=probe, listen=listen)
        if run.outcome.kind == "interrupted":
            raise Interrupted("interrupted before the first branch")
        if len(seen) < len(self.steps):
            raise BadInput(f"the run itself {run.outcome}; lower its learning rate")
        if not self.remembers:
            listen(Message("branches begin with an empty memory of the optimizer, all alike"))
        return [
            self.point(snapshot, store, tolerance=tolerance, noise_samples=noise_samples, listen=listen)
            for snapshot in seen
        ]

    def point(
        self, snapshot: Snapshot, store: Store | None, *, tolerance: float, noise_samples: int, listen: Listener
    ) -> BranchPoint:
        """Branch from one moment."""
        share = self.steps[snapshot.step]
        losses = [
            [self.loss_of(snapshot, size, seed, store, told(listen, share, size, seed)) for size in self.sizes]
            for seed in range(self.seeds)
        ]
        found = branch_crossing(self.sizes, losses, tolerance=tolerance)
        listen(Message(f"at {share:.0%} of the run: {found}"))
        scale, interval, reason = self.noise(snapshot, noise_samples)
        rate = self.rate(snapshot.samples)
        return BranchPoint(snapshot.step, snapshot.samples, share, rate, found, scale, interval, reason)

    def loss_of(self, snapshot: Snapshot, size: int, seed: int, store: Store | None, listen: Listener) -> float:
        """Give the training loss at the end of a branch, infinite where it diverged; trained unless the store has it."""
        task = self.branch(snapshot.step, snapshot.samples, size, seed)
        row = store.run(task.key) if store else None
        if row is None:
            run = train(self.problem, task.recipe, device=self.device, evaluations=1, start=snapshot, listen=listen)
            if run.outcome.kind == "interrupted":
                raise Interrupted(f"interrupted in the branch of batch {size:,}")
            row = row_from(run, task, self.problem)
            if store:
                store.add_run(row, {})
        return final_loss(row)

    def noise(self, snapshot: Snapshot, samples: int) -> tuple[float | None, tuple[float, float] | None, str]:
        """Measure the noise scale at a moment: value, interval, and why there is none."""
        if not samples:
            return None, None, "not asked for"
        chosen = subset(self.base.seed, self.training, min(samples, self.training))
        try:
            found = noise_scale(self.problem, snapshot.params, buffers=snapshot.buffers, samples=chosen)
        except (BadInput, FloatingPointError) as error:
            return None, None, str(error)
        if found.simple is None:
            return None, None, found.reason
        return found.simple.value, found.simple.interval, ""


def final_loss(row: RunRow) -> float:
    """Read the loss of a branch off its row."""
    loss = row.history[-1]["train_loss"] if row.outcome == "finished" else None
    return math.inf if loss is None else float(loss)


def told(listen: Listener, share: float, size: int, seed: int) -> Listener:
    """Prefix what a branch says with where it is."""

    def tell(event: Event) -> None:
        if isinstance(event, Progress):
            what = f"at {share:.0%}, branch of batch {size:,}, {seed + 1}"
            listen(Progress(what, event.done, event.total, event.unit, event.note))

    return tell
