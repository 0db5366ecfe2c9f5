"""Which samples an epoch has, and in which order."""

from gengap.diagnosis.evidence import Evidence
from gengap.diagnosis.finding import Finding, fault, not_checked, ok
from gengap.diagnosis.trace import Epoch, Trace

COVERAGE, ORDER = "samples of an epoch", "order of samples"
NO_EPOCHS = "no DataLoader was iterated while training, so there are no epochs to count"


def findings(evidence: Evidence) -> list[Finding]:
    """All findings of this file."""
    return [coverage(evidence), order(evidence)]


def coverage(evidence: Evidence) -> Finding:
    """Count the samples that an epoch leaves out or has twice."""
    traces = [t for t in (evidence.accumulated, evidence.whole) if isinstance(t, Trace)]
    epochs = [(t.sizes.batch_size, epoch) for t in traces for epoch in t.training_epochs]
    if not epochs:
        return not_checked(COVERAGE, NO_EPOCHS)
    n = evidence.samples
    batch, worst = max(epochs, key=lambda pair: n - len(set(pair[1].reads)))
    left_out = n - len(set(worst.reads))
    if left_out:
        why = " (drop_last)" if worst.drop_last else ""
        text = f"an epoch with batches of {batch} leaves out {left_out} of {n} samples, {left_out / n:.0%}{why}"
        fix = "keep the smaller last batch (drop_last=False); a larger batch drops more, up to all but one batch"
        return fault(COVERAGE, text, fix, left_out / n)
    twice = max(repeated(epoch) for _, epoch in epochs)
    if twice:
        text = f"{twice} of {n} samples come more than once in an epoch of one process"
        return fault(COVERAGE, text, "let a sampler give every index once", twice / n)
    return ok(COVERAGE, f"all {n} samples once in each of {len(epochs)} epochs", 0.0)


def order(evidence: Evidence) -> Finding:
    """Compare the order of the first two epochs of one process."""
    trace = evidence.whole if isinstance(evidence.whole, Trace) else evidence.everything
    epochs = trace.training_epochs
    if len(epochs) < 2:
        return not_checked(
            ORDER, NO_EPOCHS if not epochs else "the function trained for one epoch; give it a parameter epochs"
        )
    same = share_in_place(epochs[0], epochs[1])
    text = f"{same:.0%} of the samples are at the same place in the first two epochs of one process"
    if same < 1:
        return ok(ORDER, text, same)
    return fault(ORDER, text, "shuffle=True, or a sampler that draws a new order in every epoch", same)


def share_in_place(first: Epoch, second: Epoch) -> float:
    """Share of samples that two epochs have at the same place."""
    pairs = list(zip(first.reads, second.reads, strict=False))
    return sum(a == b for a, b in pairs) / max(len(pairs), 1)


def repeated(epoch: Epoch) -> int:
    """Count the reads of an epoch beyond the first of each sample."""
    return len(epoch.reads) - len(set(epoch.reads))
