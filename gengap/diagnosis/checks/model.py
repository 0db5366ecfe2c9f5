"""What a loop does to modes, batch norm and parameters of the model."""

import math

from gengap.diagnosis.evidence import Evidence
from gengap.diagnosis.finding import Finding, fault, judged, not_checked, ok
from gengap.diagnosis.trace import NormUse, ParameterFacts, Trace

MODE, NORM_MODE, NORM_SPAN = "training mode", "batch-norm mode", "batch-norm span"
DECAY, OWNED = "weight decay", "parameters of the optimizer"
FEWEST = 16  # samples under the mean and variance of a batch norm (Wu and He 2018, arXiv:1803.08494, figure 1)


def findings(evidence: Evidence, norm_batch: int | None) -> list[Finding]:
    """All findings of this file."""
    trace = evidence.accumulated if isinstance(evidence.accumulated, Trace) else evidence.everything
    return [mode(trace), norm_mode(trace), norm_span(evidence, norm_batch), weight_decay(trace), owned(trace)]


def mode(trace: Trace) -> Finding:
    """Count backward passes of a model in evaluation mode."""
    passes = [p for update in trace.updates for p in update.passes] + trace.discarded
    wrong = sum(not p.training for p in passes)
    text = f"{wrong} of {len(passes)} backward passes had the model in evaluation mode"
    if not wrong:
        return ok(MODE, text, 0.0)
    return fault(
        MODE, text, "call model.train() at the start of every epoch, after every evaluation", wrong / len(passes)
    )


def norm_mode(trace: Trace) -> Finding:
    """Look for batch norm that trains on frozen statistics, or moves them where nothing is learnt."""
    trained, frozen = called(trace, learning=True, training=True), called(trace, learning=True, training=False)
    stray = called(trace, learning=False, training=True)
    if not trained + frozen + stray:
        return not_checked(NORM_MODE, "the model has no batch norm")
    questions = [
        (
            frozen > 0,
            f"{frozen} of {trained + frozen} calls of batch norm in training used running statistics",
            "put batch-norm layers into training mode, or replace them before training",
        ),
        (
            stray > 0,
            f"{stray} calls outside training used and moved batch statistics",
            "call model.eval() before evaluation and model.train() after it",
        ),
    ]
    return judged(questions, NORM_MODE, f"all {trained} calls of batch norm in training used statistics of the batch")


def norm_span(evidence: Evidence, norm_batch: int | None) -> Finding:
    """Say over how many samples batch norm takes its statistics."""
    traces = evidence.ranks if isinstance(evidence.ranks, list) else [evidence.accumulated]
    uses = [use for trace in traces if isinstance(trace, Trace) for use in trace.norms if use.training and use.learning]
    if not uses or isinstance(evidence.accumulated, str):
        return not_checked(
            NORM_SPAN, evidence.accumulated if isinstance(evidence.accumulated, str) else "none was trained"
        )
    processes = len(traces) if all(use.synchronised for use in uses) else 1
    k, b = evidence.accumulated.sizes.accumulate, evidence.accumulated.sizes.batch_size
    text = (
        f"statistics span one backward pass of {'all processes' if processes > 1 else 'one process'}, 1/{k} of the batch with "
        f"{k} passes per update, and move {k} times per update ({moved(uses, k)})"
    )
    if norm_batch is None:
        return not_checked(NORM_SPAN, f"{text}; say how many samples a pass has in your real run to have that checked")
    span = max(min(norm_batch * processes * use.rows // b, use.ghost or math.inf) for use in uses)
    text = f"{span} samples: {text}"
    if span >= FEWEST:
        return ok(NORM_SPAN, text, span)
    fix = f"take at least {FEWEST} samples per pass, SyncBatchNorm over processes, or group norm in place of batch norm"
    return fault(NORM_SPAN, text, fix, span)


def moved(uses: list[NormUse], k: int) -> str:
    """Say how far the running statistics move per update."""
    momentum = max(use.momentum for use in uses)
    return f"momentum {momentum:.3g} is {1 - (1 - momentum) ** k:.3g} per update"


def called(trace: Trace, *, learning: bool, training: bool) -> int:
    """Count calls of batch norm."""
    return sum(n for use, n in trace.norms.items() if use.learning == learning and use.training == training)


def weight_decay(trace: Trace) -> Finding:
    """Look for scales, shifts and biases that are decayed."""
    parameters = [p for p in trace.parameters if p.weight_decay is not None]
    spared = [p for p in parameters if p.kind != "weight"]
    wrong = [p for p in spared if p.weight_decay]
    if not any(p.weight_decay for p in parameters):
        return not_checked(DECAY, "no parameter has a weight_decay in a parameter group")
    if not wrong:
        return ok(DECAY, f"none of {len(spared)} scales, shifts and biases is decayed", 0.0)
    norm = sum(p.kind == "norm" for p in wrong)
    text = f"{norm} scales and shifts of norm layers and {len(wrong) - norm} biases are decayed by {wrong[0].weight_decay:.3g}"
    fix = (
        "put them into a parameter group with weight_decay=0: gengap.optim.groups.no_decay_groups(model, weight_decay)"
    )
    return fault(DECAY, text, fix, len(wrong) / len(spared))


def owned(trace: Trace) -> Finding:
    """Look for parameters that are trained by nobody."""
    missing = [p for p in trace.parameters if p.weight_decay is None and not p.frozen]
    frozen = [p for p in trace.parameters if p.frozen]
    idle = [p for p in trace.parameters if not p.gradient and p not in missing and p not in frozen]
    questions = [
        (
            bool(missing),
            f"{listed(missing)} in no optimizer",
            "make the optimizer from model.parameters() of the model as it is trained",
        ),
        (
            bool(frozen),
            f"{listed(frozen)} frozen by the function",
            "freeze in the function that makes the model, or not at all",
        ),
        (
            bool(idle),
            f"{listed(idle)} without a gradient in any update",
            "use them in the loss, or take them out of the model",
        ),
        (
            trace.foreign > 0,
            f"the optimizer has {trace.foreign} tensors that the model does not have",
            "make the optimizer after the model has its last form",
        ),
    ]
    return judged(
        questions, OWNED, f"all {len(trace.parameters)} trainable tensors of the model get gradients and are updated"
    )


def listed(parameters: list[ParameterFacts]) -> str:
    """Name the first of some parameters, and say how many there are."""
    if not parameters:
        return ""
    return f"{len(parameters)} tensors ({', '.join(p.name for p in parameters[:3])}{', ...' if len(parameters) > 3 else ''})"
