"""What the words mean, each with a link to where it was defined."""

from collections.abc import Mapping, Sequence
from typing import Any

ARXIV = "https://arxiv.org/abs/"

WORDS: Mapping[str, tuple[str, str, str]] = {
    "train": (
        "Loss, accuracy, gradient norm",
        "Means over samples; the error says how far the mean over other samples of the same kind would be. The gradient is that "
        "of the mean training loss.",
        "",
    ),
    "distance": (
        "Distance from the start",
        "Euclidean distance of the trained weights from the weights the training began with. Exact.",
        f"{ARXIV}1705.08741",
    ),
    "sharpness": (
        "Sharpness in the box",
        "How far the training loss f can climb near the weights x: 100 (max f - f(x)) / (1 + f(x)), each weight moving by at "
        "most radius times (|x_i| + 1). The maximum is searched, so the number is a lower bound.",
        f"{ARXIV}1609.04836",
    ),
    "top_eigenvalues": (
        "Top eigenvalues, largest stable learning rate",
        "The largest curvatures of the training loss, with errors estimated from the residuals. Full-batch gradient descent with "
        "momentum m leaves a quadratic of curvature c where the learning rate exceeds 2 (1 + m) / c.",
        f"{ARXIV}2103.00065",
    ),
    "bottom_eigenvalues": (
        "Bottom eigenvalues",
        "The smallest curvatures; a negative one is a direction along which the loss still falls.",
        f"{ARXIV}1901.10159",
    ),
    "trace": (
        "Trace of the Hessian",
        "The sum of all curvatures: exact in the directions that stand out, sampled by random signs in the others.",
        f"{ARXIV}2010.09649",
    ),
    "spectral_density": (
        "Spectral density",
        "The share of curvatures at each value, smoothed by a Gaussian, from Lanczos runs with random starts; the band is the "
        "95 % interval over the starts.",
        f"{ARXIV}1901.10159",
    ),
    "path": (
        "Path to the second checkpoint",
        "Loss on the straight line (1 - alpha) this + alpha other through both checkpoints. Exact at each point.",
        f"{ARXIV}1412.6544",
    ),
}


def definitions(names: Sequence[str]) -> list[dict[str, Any]]:
    """Explain the measures that were taken.

    Args:
        names: of the measures.

    Returns:
        {"name", "text", "link"} for each word; link is None where none is needed.
    """
    found = [WORDS[name] for name in WORDS if name in names]
    return [{"name": name, "text": text, "link": link or None} for name, text, link in found]
