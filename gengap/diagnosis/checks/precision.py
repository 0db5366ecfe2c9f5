"""Clipping and loss scaling: whether they come at the right moment."""

from gengap.diagnosis.evidence import Evidence
from gengap.diagnosis.finding import Finding, fault, judged, not_checked, ok
from gengap.diagnosis.trace import Trace

CLIPPING, SCALING = "gradient clipping", "loss scaling"


def findings(evidence: Evidence) -> list[Finding]:
    """All findings of this file."""
    trace = evidence.accumulated if isinstance(evidence.accumulated, Trace) else evidence.everything
    return [clipping(trace), scaling(trace)]


def clipping(trace: Trace) -> Finding:
    """Look for clipping before the gradient is whole, or while it is scaled."""
    clips = [(clip, update) for update in trace.updates for clip in update.clips]
    if not clips:
        return not_checked(CLIPPING, "gradients are not clipped with torch.nn.utils")
    early = sum(clip.passes < len(update.passes) for clip, update in clips)
    scaled = sum(clip.scaled for clip, _ in clips)
    questions = [
        (
            early > 0,
            f"{early} of {len(clips)} clippings came before the last pass of the update",
            "clip once, before step",
        ),
        (
            scaled > 0,
            f"{scaled} of {len(clips)} clippings saw a gradient that was still scaled",
            "call scaler.unscale_(optimizer) before clipping",
        ),
    ]
    return judged(questions, CLIPPING, f"{len(clips)} clippings, each of a whole and unscaled gradient")


def scaling(trace: Trace) -> Finding:
    """Look for steps on a scaled gradient."""
    wrong = sum(update.scaled for update in trace.updates)
    text = f"{wrong} of {len(trace.updates)} updates stepped past the gradient scaler with a scaled gradient"
    if not wrong:
        return ok(SCALING, text, 0.0)
    return fault(
        SCALING, text, "call scaler.step(optimizer) and scaler.update() in place of optimizer.step()", float(wrong)
    )
