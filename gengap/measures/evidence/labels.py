"""Over how many labels a loss is the mean, and among how many classes each label chooses."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from gengap.core.errors import BadInput
from gengap.measures.protocols import Chunked, SamplePiece, measured_on, sample_pieces
from gengap.measures.session import Session


def counts(session: Session, labels: int | None, classes: int | None) -> tuple[int, int | None]:
    """Find how many labels the loss is the mean over, and among how many classes each chooses.

    Equal outputs give every class the same chance, so their cross-entropy is ln n. Outputs that are all raised alike are
    the same to a softmax, whose outputs are then n for each label.

    Args:
        session: the measurement.
        labels: what the user says.
        classes: what the user says.

    Returns:
        N and n.

    Raises:
        BadInput: the user must say how many labels there are, or what he says is out of range.
    """
    if (labels is not None and labels < 1) or (classes is not None and classes < 2):
        raise BadInput(f"labels is {labels!r} and classes {classes!r}; give at least 1 label and 2 classes")
    if not isinstance(session.loss, Chunked):
        if labels is None:
            raise BadInput("a plain function does not say over how many labels it is the mean; give labels=N")
        return labels, classes
    piece = next(sample_pieces(session.loss, session.params, "the evidence"))
    found, each = classes_of(piece, session.params)
    return labels or int(measured_on(session.loss)["samples"] * each), classes or found


def classes_of(piece: SamplePiece, params: Mapping[str, Tensor]) -> tuple[int | None, float]:
    """Return the number of classes, None where the loss is no cross-entropy, and the labels of each sample."""
    with torch.no_grad():
        outputs = piece.outputs(params)
        equal, raised = (float(piece.mean(torch.full_like(outputs, x))) for x in (0.0, 1.0))
    n = round(math.exp(equal)) if 0.5 < equal < 50 else 0
    if n < 2 or abs(equal - math.log(n)) > 1e-5:
        return None, 1.0
    softmax = abs(equal - raised) < 1e-5
    return n, outputs.numel() / piece.size / (n if softmax else 1)
