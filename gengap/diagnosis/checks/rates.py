"""Learning rates and the steps of their schedulers, per update."""

import math
from itertools import pairwise
from typing import Literal

from gengap.diagnosis.evidence import Evidence
from gengap.diagnosis.finding import Finding, fault, judged, not_checked, ok
from gengap.diagnosis.trace import Trace, Update

SCHEDULER, PER_UPDATE, RULE = "scheduler steps", "learning rate per update", "learning-rate rule"
LrRule = Literal["constant", "sqrt", "linear"]
POWERS: dict[LrRule, float] = {"constant": 0.0, "sqrt": 0.5, "linear": 1.0}
CLOSE = 1e-6  # relative difference of learning rates that is rounding


def findings(evidence: Evidence, rule: LrRule | None) -> list[Finding]:
    """All findings of this file."""
    return [scheduler_steps(evidence), per_update(evidence), scaling(evidence, rule)]


def scheduler_steps(evidence: Evidence) -> Finding:
    """Count the steps of schedulers before the first update and between updates."""
    trace = evidence.accumulated if isinstance(evidence.accumulated, Trace) else evidence.whole
    if isinstance(trace, str):
        return not_checked(SCHEDULER, trace)
    if not any(update.schedulers for update in trace.updates):
        return not_checked(SCHEDULER, "no scheduler of torch.optim.lr_scheduler was made")
    early = max(trace.updates[0].schedulers)
    most = max((steps_between(a, b) for a, b in pairwise(trace.updates)), default=0)
    passes = max(len(update.passes) for update in trace.updates)
    questions = [
        (
            early > 0 and most <= 1,
            f"the scheduler made {early} steps before the first update, whose learning rate is therefore skipped",
            "call scheduler.step() after optimizer.step()",
        ),
        (
            most > 1,
            f"the scheduler makes {most} steps per update of {passes} passes",
            "call scheduler.step() once per update, and give it lengths in updates",
        ),
    ]
    return judged(
        questions, SCHEDULER, f"at most {most} a scheduler and update of {passes} passes, none before the first update"
    )


def steps_between(first: Update, second: Update) -> int:
    """Count the steps of the scheduler that made most of them between two updates."""
    return max((b - a for a, b in zip(first.schedulers, second.schedulers, strict=False)), default=0)


def per_update(evidence: Evidence) -> Finding:
    """Compare the learning rates of k passes of b with those of batch k b, update for update."""
    if isinstance(evidence.accumulated, str) or isinstance(evidence.whole, str):
        return not_checked(PER_UPDATE, next(t for t in (evidence.accumulated, evidence.whole) if isinstance(t, str)))
    k, b = evidence.accumulated.sizes.accumulate, evidence.accumulated.sizes.batch_size
    return same_rates(
        PER_UPDATE, evidence.accumulated, evidence.whole, f"{k} passes of {b} samples", f"batches of {k * b}"
    )


def same_rates(name: str, ours: Trace, reference: Trace, what: str, against: str) -> Finding:
    """Compare the learning rates of two runs that see equally many samples per update.

    Args:
        name: of the finding.
        ours: the run in question.
        reference: what it should be like.
        what: words for `ours`.
        against: words for `reference`.

    Returns:
        A fault at the first update at which they differ.
    """
    pairs = []
    for mine, theirs in zip(ours.updates, reference.updates, strict=False):
        if mine.epoch != theirs.epoch:  # one of them makes fewer updates in an epoch, which is a finding of its own
            break
        pairs.append((max(mine.lr), max(theirs.lr)))
    for number, (rate, expected) in enumerate(pairs, start=1):
        difference = abs(rate - expected) / max(abs(expected), 1e-30)
        if difference > CLOSE:
            text = f"update {number} has learning rate {rate:.4g} with {what}, {expected:.4g} with {against}"
            fix = (
                "count updates, not passes, in schedules; where the learning rate follows the batch, take "
                "batch_size * accumulate * processes"
            )
            return fault(name, text, fix, difference)
    return ok(name, f"{len(pairs)} updates with {what} have the learning rates of {against}", 0.0)


def scaling(evidence: Evidence, rule: LrRule | None) -> Finding:
    """Compare the learning rates of batch 1 and batch k b with the rule that the user names."""
    if isinstance(evidence.whole, str):
        return not_checked(RULE, evidence.whole)
    small, large = max(evidence.singles.base_lr), max(evidence.whole.base_lr)
    batch = evidence.whole.sizes.batch_size
    text = f"the learning rate is {small:.4g} for batch 1 and {large:.4g} for batch {batch}"
    if rule is None:
        return not_checked(RULE, f"{text}; say which rule it follows (constant, sqrt or linear) to have that checked")
    expected = batch ** POWERS[rule]
    found = large / small if small else math.nan
    text = f"{text}, {found:.4g} times as high; {rule}: {expected:.4g} times"
    if abs(found / expected - 1) <= 0.01:
        return ok(RULE, text, abs(found / expected - 1))
    fix = (
        f"multiply the learning rate by {expected:.4g} where the batch is {batch} times as large, or name another rule"
    )
    return fault(RULE, text, fix, abs(found / expected - 1))
