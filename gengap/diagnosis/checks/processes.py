"""One process against several."""

from itertools import combinations

import numpy as np

from gengap.diagnosis.checks.gradient import accumulation, even
from gengap.diagnosis.checks.rates import same_rates
from gengap.diagnosis.checks.samples import NO_EPOCHS, share_in_place
from gengap.diagnosis.evidence import Evidence, relative, scale_of
from gengap.diagnosis.finding import Finding, fault, not_checked, ok
from gengap.diagnosis.trace import Trace, Update, Vector

GRADIENT, SAMPLES, ORDER = "gradient of processes", "samples of processes", "order of processes"
RATES, RANDOM = "learning rate of processes", "random numbers of processes"


def findings(evidence: Evidence) -> list[Finding]:
    """All findings of this file."""
    ranks = evidence.ranks
    if not isinstance(ranks, str) and not any(trace.distributed for trace in ranks):
        ranks = "the function asks nothing of torch.distributed"
    if isinstance(ranks, str):
        return [not_checked(name, ranks) for name in (GRADIENT, SAMPLES, ORDER, RATES, RANDOM)]
    return [gradients(evidence, ranks), samples(ranks), order(ranks), rates(evidence, ranks), randomness(ranks)]


def gradients(evidence: Evidence, ranks: list[Trace]) -> Finding:
    """Compare one pass per update, then, where accumulation is sound in one process, several."""
    found = gradient(evidence, ranks, "")
    if found.state != "ok" or not evidence.accumulated_ranks or accumulation(evidence).state != "ok":
        return found
    k = evidence.accumulated_ranks[0].sizes.accumulate
    several = gradient(evidence, evidence.accumulated_ranks, f" with {k} passes each")
    return several if several.state != "not checked" else found


def gradient(evidence: Evidence, ranks: list[Trace], how: str) -> Finding:
    """Compare the gradients of all ranks with each other, and with those of their samples in one batch."""
    if evidence.trouble:
        return not_checked(GRADIENT, evidence.trouble)
    counts = [len(trace.updates) for trace in ranks]
    if len(set(counts)) > 1:
        text = f"the ranks made {' and '.join(map(str, counts))} updates"
        return fault(GRADIENT, text, "give every rank equally many batches", float(max(counts) - min(counts)))
    rows = [
        (each, whole)
        for each in zip(*(t.updates for t in ranks), strict=True)
        if (whole := union(evidence, each)) is not None
    ]
    rows = [(each, whole) for each, whole in rows if all(fresh_and_full(update, ranks[0]) for update in each)]
    if not rows:
        return not_checked(GRADIENT, "the samples of the ranks could not be told")
    apart = max(relative(a.gradient, b.gradient) for each, _ in rows for a, b in combinations(each, 2))
    worst, found, whole = max(
        ((relative(update.gradient, whole), update.gradient, whole) for each, whole in rows for update in each),
        key=lambda row: row[0],
    )
    text = f"{len(ranks)} processes{how} against one with the same samples: the gradient differs by {worst:.2g}"
    if apart > evidence.tolerance:
        fix = "average gradients over the processes before every update (DistributedDataParallel does)"
        return fault(GRADIENT, f"{text}, and by {apart:.2g} between ranks, which drift apart", fix, worst)
    if worst <= evidence.tolerance:
        return ok(GRADIENT, text, worst)
    scale = scale_of(found, whole)
    if relative(found, scale * whole) <= evidence.tolerance:
        fix = f"average gradients instead of adding them: divide by the number of processes ({len(ranks)})"
        return fault(GRADIENT, f"{text}: it is {scale:.3g} times as long", fix, worst)
    fix = (
        "synchronise every pass whose gradient is stepped with, and weigh ranks by what they hold: divide by the samples (or "
        "tokens) of all ranks"
    )
    return fault(GRADIENT, text, fix, worst)


def fresh_and_full(update: Update, trace: Trace) -> bool:
    """Tell whether an update has all its passes, of equal sizes, and nothing of the one before; others are judged elsewhere."""
    return not update.carried and len(update.passes) == trace.sizes.accumulate and even(update)


def union(evidence: Evidence, each: tuple[Update, ...]) -> Vector | None:
    """Give the gradient of the samples of all ranks."""
    found = evidence.expected([p for update in each for p in update.passes])
    return found if found is not None and bool(np.isfinite(found).all()) else None


def samples(ranks: list[Trace]) -> Finding:
    """Count samples that several ranks have in the same epoch, or in the same update."""
    n = len(ranks)
    epochs = list(zip(*(trace.training_epochs for trace in ranks), strict=False))
    twice = [len(set(a.reads) & set(b.reads)) for each in epochs for a, b in combinations(each, 2)]
    same = [u for u in zip(*(trace.updates for trace in ranks), strict=False) if u[0].samples and equal(u)]
    fix = "give every rank its own part of the data: DistributedSampler(data), or a generator seeded by the rank"
    if twice and max(twice) >= n:  # fewer only make the parts equally long
        total = len({i for epoch in epochs[0] for i in epoch.reads})
        text = f"{max(twice)} of {total} samples of an epoch are read by several ranks"
        return fault(SAMPLES, text, fix, max(twice) / total)
    if same:
        updates = len(ranks[0].updates)
        return fault(
            SAMPLES, f"{len(same)} of {updates} updates have the same samples on all ranks", fix, len(same) / updates
        )
    if not epochs:
        return ok(SAMPLES, "no update has the same samples on all ranks", 0.0)
    return ok(
        SAMPLES, f"at most {max(twice)} samples of an epoch are read by several ranks, to make their parts equally long"
    )


def equal(updates: tuple[Update, ...]) -> bool:
    """Tell whether all ranks have the same samples."""
    return len({update.samples for update in updates}) == 1


def order(ranks: list[Trace]) -> Finding:
    """Compare the order of the first two epochs on every rank."""
    each = [trace.training_epochs for trace in ranks]
    if any(len(epochs) < 2 for epochs in each):
        return not_checked(
            ORDER, NO_EPOCHS if not any(each) else "the function trained for one epoch; give it a parameter epochs"
        )
    same = min(share_in_place(*epochs[:2]) for epochs in each)
    text = f"{same:.0%} of a rank's samples are at the same place in the first two epochs"
    if same < 1:
        return ok(ORDER, text, same)
    return fault(ORDER, text, "call sampler.set_epoch(epoch) at the start of every epoch", same)


def rates(evidence: Evidence, ranks: list[Trace]) -> Finding:
    """Compare learning rates with those of one process and the same batch."""
    if isinstance(evidence.paired, str):
        return not_checked(RATES, evidence.paired)
    b, n = ranks[0].sizes.batch_size, len(ranks)
    found = [
        same_rates(RATES, t, evidence.paired, f"batches of {b} on {n} processes", f"{b * n} on one") for t in ranks
    ]
    return next((one for one in found if one.state == "fault"), found[0])


def randomness(ranks: list[Trace]) -> Finding:
    """Compare the states of the random generators of ranks, which began differently, at the first forward pass."""
    names = ("torch", "numpy", "random")
    states = list(zip(*(trace.randomness for trace in ranks), strict=True))
    same = [name for name, state in zip(names, states, strict=True) if len(set(state)) == 1]
    starts = [trace.start for trace in ranks if trace.start is not None]
    apart = max((relative(start, starts[0]) for start in starts), default=0.0)
    if apart:
        text = f"the weights of ranks differ by {apart:.2g} at the first pass"
        return fault(RANDOM, text, "begin with the weights of the first rank (DistributedDataParallel does)", apart)
    if not same:
        return ok(RANDOM, "the generators of torch, numpy and Python differ between ranks", 0.0)
    text = f"the generator of {' and '.join(same)} is the same on all ranks: equal dropout masks and augmentation"
    return fault(RANDOM, text, "seed with seed + rank", float(len(same)))
