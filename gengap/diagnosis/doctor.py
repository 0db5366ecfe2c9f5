"""The doctor: does somebody's training function train as it says?"""

import time
from collections.abc import Callable
from typing import Any

from torch import nn

from gengap.core.errors import BadInput
from gengap.diagnosis.checks import gradient, model as of_model, precision, processes as of_processes, rates, samples
from gengap.diagnosis.evidence import Evidence
from gengap.diagnosis.finding import Diagnosis, Finding
from gengap.diagnosis.loop import Loop
from gengap.diagnosis.processes import Job, NotPossible, follow_together
from gengap.diagnosis.run import LoopFailed, follow, watched_data
from gengap.diagnosis.trace import Sizes, Trace
from gengap.diagnosis.watched_data import WatchedData

ACCUMULATE = 3  # backward passes per update
LONG = 8  # epochs in which a sample is missed once in 3,000 times, drawn with replacement


def doctor(
    train: Callable[..., object],
    *,
    model: Callable[[], nn.Module],
    data: Callable[[], Any],
    batch_size: int = 4,
    processes: int = 2,
    lr_rule: rates.LrRule | None = None,
    norm_batch: int | None = None,
    seed: int = 0,
) -> Diagnosis:
    """Examine a training function for the faults behind most "more devices, worse accuracy" reports.

    The function is run a few times on a few samples, with different batch sizes, accumulation and processes, while hooks of
    torch note every gradient that an optimizer is given. After every update the weights are put back, dropout, autocast,
    loss scaling, clipping and batch statistics are held still, so that each gradient can be compared with the one that its
    samples should give, to rounding error. Nothing of that stays.

    Args:
        train: `train(model, data, *, batch_size, accumulate=1, epochs=1)`: trains `model` in place on `data` for `epochs`
            epochs; `batch_size` is the samples of one backward pass of one process, `accumulate` the backward passes per
            update. It builds its own loader, optimizer and schedule, and knows itself whether torch.distributed is
            initialised. Without `accumulate` accumulation is not checked.
        model: makes a fresh model; its random draws come from torch's global generator.
        data: makes the training data: a map-style data set with 5 * batch_size - 1 samples or more.
        batch_size: to examine with; small is fast.
        processes: gloo processes to compare with one; 1 leaves that out. They are started as new Python processes, which
            import the functions: these must be in a module.
        lr_rule: how the learning rate should follow the batch size: "constant", "sqrt" or "linear".
        norm_batch: samples of one backward pass of one process in the real run, for the span of batch norm.
        seed: of the model, of the choice of samples and of what the function draws.

    Returns:
        The findings, with numbers.

    Raises:
        BadInput: the function cannot be called in this way, raises an error, makes no update, or an argument is out of range.
    """
    began = time.perf_counter()
    loop = Loop(train, model, data)
    check(loop, batch_size, processes, lr_rule, norm_batch=norm_batch)
    evidence = gathered(loop, batch_size, processes, seed)
    findings = examined(evidence, lr_rule, norm_batch)
    return Diagnosis(
        train=loop.name,
        findings=tuple(findings),
        batch_size=batch_size,
        accumulate=ACCUMULATE,
        processes=processes,
        samples=evidence.samples,
        passes=sum(trace.passes for trace in traces_of(evidence)),
        seconds=time.perf_counter() - began,
    )


def check(loop: Loop, batch_size: int, processes: int, lr_rule: str | None, *, norm_batch: int | None) -> None:
    """Check the arguments of `doctor`.

    Args:
        loop: the functions.
        batch_size: as there.
        processes: as there.
        lr_rule: as there.
        norm_batch: as there.

    Raises:
        BadInput: one is out of range, or the function has other parameters.
    """
    loop.check()
    for name, value, least in (
        ("batch_size", batch_size, 2),
        ("processes", processes, 1),
        ("norm_batch", norm_batch, 1),
    ):
        if value is not None and value < least:
            raise BadInput(f"{name} is {value}; give {least} or more")
    if lr_rule is not None and lr_rule not in rates.POWERS:
        raise BadInput(f"lr_rule is {lr_rule!r}; known are: {', '.join(rates.POWERS)}")


def gathered(loop: Loop, batch_size: int, processes: int, seed: int) -> Evidence:
    """Run the loop in all ways.

    Args:
        loop: the functions.
        batch_size: b.
        processes: how many.
        seed: of everything.

    Returns:
        The traces. The number of samples leaves a window of two passes, the second smaller, at the end of an epoch.
    """
    samples = (ACCUMULATE + 2) * batch_size - 1
    watched = watched_data(loop, samples, seed)
    jobs = [Job(loop, Sizes(batch_size), samples, seed)]
    if loop.takes("accumulate"):
        jobs.append(Job(loop, Sizes(batch_size, ACCUMULATE), samples, seed))
    ranks = ranks_if_possible(jobs, processes)
    return Evidence(
        samples=samples,
        singles=singles(loop, watched, seed),
        everything=follow(loop, watched, Sizes(samples), seed=seed),
        accumulated=if_possible(loop, watched, Sizes(batch_size, ACCUMULATE), seed),
        whole=if_possible(loop, watched, Sizes(batch_size * ACCUMULATE), seed),
        paired=if_possible(loop, watched, Sizes(batch_size * processes), seed),
        ranks=ranks if isinstance(ranks, str) else ranks[0],
        accumulated_ranks=ranks[1] if isinstance(ranks, list) and len(ranks) > 1 else None,
    )


def singles(loop: Loop, data: WatchedData, seed: int) -> Trace:
    """Run with batches of one sample, long enough to see them all where they are drawn with replacement."""
    found = follow(loop, data, Sizes(1, epochs=1), seed=seed, keep_passes=True)
    drawn = {i for update in found.updates for i in update.samples or ()}
    if found.epochs or len(drawn) in {0, len(data)}:
        return found
    return follow(loop, data, Sizes(1, epochs=LONG), seed=seed, keep_passes=True)


def if_possible(loop: Loop, data: WatchedData, sizes: Sizes, seed: int) -> Trace | str:
    """Run once, or say why not."""
    if sizes.accumulate > 1 and not loop.takes("accumulate"):
        return f"{loop.name} has no parameter accumulate, the backward passes per update"
    try:
        return follow(loop, data, sizes, seed=seed)
    except LoopFailed as error:
        return str(error)


def ranks_if_possible(jobs: list[Job], processes: int) -> list[list[Trace]] | str:
    """Run in several processes, or say why not."""
    if processes == 1:
        return "one process was asked for"
    try:
        return follow_together(jobs, processes)
    except NotPossible as error:
        return str(error)


def examined(evidence: Evidence, lr_rule: rates.LrRule | None, norm_batch: int | None) -> list[Finding]:
    """Look at everything.

    Args:
        evidence: all runs.
        lr_rule: how the learning rate should follow the batch size.
        norm_batch: samples of one pass in the real run.

    Returns:
        The findings of all checks.
    """
    return [
        *gradient.findings(evidence),
        *samples.findings(evidence),
        *rates.findings(evidence, lr_rule),
        *of_model.findings(evidence, norm_batch),
        *precision.findings(evidence),
        *of_processes.findings(evidence),
    ]


def traces_of(evidence: Evidence) -> list[Trace]:
    """List all runs that there are."""
    alone = [evidence.singles, evidence.everything, evidence.accumulated, evidence.whole, evidence.paired]
    ranks = evidence.ranks if isinstance(evidence.ranks, list) else []
    return [t for t in alone if isinstance(t, Trace)] + ranks + (evidence.accumulated_ranks or [])
