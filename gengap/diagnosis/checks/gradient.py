"""Accumulation, the last window, cleared gradients, and the reduction of the loss: gradients against what they should be."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from gengap.diagnosis.evidence import NOISE, Evidence, relative, scale_of
from gengap.diagnosis.finding import Finding, fault, not_checked, ok
from gengap.diagnosis.trace import Pass, Trace, Update

UNEXPLAINED = 0.01  # share of a gradient that no weights of samples explain, above which they depend on each other
ACCUMULATION, LAST_WINDOW, CLEARED, REDUCTION = "accumulation", "last window", "cleared gradients", "loss reduction"


def findings(evidence: Evidence) -> list[Finding]:
    """All findings of this file."""
    return [loss_reduction(evidence), accumulation(evidence), last_window(evidence), cleared(evidence)]


def loss_reduction(evidence: Evidence) -> Finding:
    """Compare the gradient of one batch with those of its samples."""
    found, n = evidence.reduction, evidence.samples
    if not evidence.gradients or evidence.noise > NOISE or found.residual != found.residual:
        return not_checked(
            REDUCTION, evidence.trouble or "the run with all samples in one batch did not see each of them once"
        )
    text = f"the gradient of a batch of {n} is that of its samples with weights that sum to {found.total:.4g}"
    if found.kind == "mean":
        return ok(REDUCTION, f"{text}, all equal: a mean over samples", 0.0)
    if found.kind == "weighted":
        low, high = np.nanmin(found.weights) * n, np.nanmax(found.weights) * n
        return ok(
            REDUCTION,
            f"{text}; a sample weighs {low:.3g} to {high:.3g} times the average: a mean over parts of samples",
        )
    if found.kind == "sum":
        fix = 'use reduction="mean", or divide the loss by the number of samples; then choose the learning rate again'
        return fault(REDUCTION, f"{text}, so that it grows with the batch: a sum over samples", fix, found.total)
    if found.residual > UNEXPLAINED:
        why = f"samples of a batch depend on each other: no weights explain {found.residual:.0%} of the gradient of {n} samples"
        return not_checked(REDUCTION, why)
    if not found.told:
        why = f"the gradients of {n} samples are not independent, so that their weights in a batch cannot be told"
        return not_checked(REDUCTION, why)
    if np.nanmin(found.weights) < 0:
        why = f"samples of a batch depend on each other: the least of their weights is {np.nanmin(found.weights):.2g}"
        return not_checked(REDUCTION, why)
    fix = "divide the sum of the losses by the number of what is summed; leave padding out of both"
    return fault(REDUCTION, f"{text} and not to 1: the loss depends on how the batch is put together", fix, found.total)


def accumulation(evidence: Evidence) -> Finding:
    """Compare k passes of b samples with the gradient of their k b samples."""
    trace = evidence.accumulated
    if isinstance(trace, str) or evidence.trouble:
        return not_checked(ACCUMULATION, trace if isinstance(trace, str) else evidence.trouble)
    k, b = trace.sizes.accumulate, trace.sizes.batch_size
    many = [update for update in trace.updates if len(update.passes) > 1]
    if not many:
        text = f"asked for {k} backward passes per update, every one of the {len(trace.updates)} updates had one"
        return fault(ACCUMULATION, text, "step the optimizer once per accumulate backward passes", float(k))
    full = [u for u in many if not u.carried and len(u.passes) == k and even(u)]
    each = differences(evidence, full)
    if not each:
        return not_checked(ACCUMULATION, f"no update had {k} backward passes of {b} samples and a fresh gradient")
    worst, update = max(each, key=lambda pair: pair[0])
    text = f"{k} passes of {b} samples against one batch of {k * b}: the gradient differs by {worst:.2g}"
    if worst <= evidence.tolerance:
        return ok(ACCUMULATION, text, worst)
    expected = evidence.expected(update.passes)
    scale = scale_of(update.gradient, expected) if expected is not None else float("nan")
    if expected is not None and relative(update.gradient, scale * expected) <= evidence.tolerance:
        fix = f"divide the loss of every pass by the number of passes of its update ({k})"
        return fault(ACCUMULATION, f"{text}: it is {scale:.3g} times as long", fix, worst)
    fix = (
        "weigh every pass by what it holds: divide its summed loss by the samples (or tokens) of the whole update, and clear "
        "gradients only after the update"
    )
    return fault(ACCUMULATION, text, fix, worst)


def last_window(evidence: Evidence) -> Finding:
    """Look for passes that reached no update, and compare updates with fewer or uneven passes with their samples."""
    trace = evidence.accumulated
    if isinstance(trace, str):
        return not_checked(LAST_WINDOW, trace)
    k = trace.sizes.accumulate
    lost, unused = counted(trace.discarded), never_passed(trace)
    if lost or unused:
        text = (
            f"{len(trace.discarded)} of {trace.passes} backward passes ({lost} samples) reached no update, {unused} loaded "
            f"samples reached no backward pass"
        )
        fix = "step also after the last pass of an epoch, with the loss divided by the passes that it really had"
        return fault(LAST_WINDOW, text, fix, float(unused + (lost if isinstance(lost, int) else len(trace.discarded))))
    if evidence.trouble:
        return not_checked(LAST_WINDOW, evidence.trouble)
    rest = [u for u in trace.updates if not u.carried and (len(u.passes) != k or not even(u))]
    each = differences(evidence, rest)
    if not each:
        return not_checked(LAST_WINDOW, f"every update had {k} equal passes")
    worst, update = max(each, key=lambda pair: pair[0])
    sizes = " + ".join(str(len(p.samples or ())) for p in update.passes)
    text = f"an update of passes with {sizes} samples against one batch of them: the gradient differs by {worst:.2g}"
    if worst <= evidence.tolerance:
        return ok(LAST_WINDOW, text, worst)
    fix = (
        "divide the summed loss of every pass by the samples of its whole update, so that a smaller last pass weighs less and "
        "an update of fewer passes weighs as much"
    )
    return fault(LAST_WINDOW, text, fix, worst)


def cleared(evidence: Evidence) -> Finding:
    """Look for gradients of an earlier update in a later one."""
    traces: list[Trace] = [t for t in (evidence.whole, evidence.accumulated) if isinstance(t, Trace)] or [
        evidence.everything
    ]
    updates = [u for trace in traces for u in trace.updates]
    carried = sum(u.carried for u in updates)
    text = f"{carried} of {len(updates)} updates began with a gradient that was there before"
    if not carried:
        return ok(CLEARED, text, 0.0)
    return fault(
        CLEARED, text, "call optimizer.zero_grad() after every step, and at no other time", carried / len(updates)
    )


def never_passed(trace: Trace) -> int:
    """Count the samples that a training epoch loaded and no backward pass had."""
    passes = [p for update in trace.updates for p in update.passes] + trace.discarded
    if any(p.samples is None for p in passes):
        return 0
    used = Counter((p.epoch, i) for p in passes for i in p.samples or ())
    read = Counter((number, i) for number, epoch in enumerate(trace.epochs) if epoch.passes for i in epoch.reads)
    return (read - used).total()


def differences(evidence: Evidence, updates: Iterable[Update]) -> list[tuple[float, Update]]:
    """Relative differences between gradients and what they should be, for those of which that is known."""
    pairs = [(update, evidence.expected(update.passes)) for update in updates]
    return [(relative(update.gradient, expected), update) for update, expected in pairs if expected is not None]


def even(update: Update) -> bool:
    """Tell whether all passes of an update have equally many samples."""
    return len({len(p.samples or ()) for p in update.passes}) == 1


def counted(passes: Iterable[Pass]) -> int | str:
    """Count the samples of passes."""
    each = [p.samples for p in passes]
    return "an unknown number of" if None in each else sum(len(own or ()) for own in each)
