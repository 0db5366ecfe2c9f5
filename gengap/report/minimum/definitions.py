"""What the words mean, each with a link to where it was defined."""

from collections.abc import Mapping, Sequence
from typing import Any

ARXIV = "https://arxiv.org/abs/"

WORDS: Mapping[str, tuple[str, str, str]] = {
    "train": (
        "Loss, accuracy, gradient norm",
        "Means over samples; the error says how far the mean over other samples of the same kind would be. The interval of a "
        "loss is that of its logarithm, so that it stays above 0. The gradient is that of the mean training loss.",
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
    "subspace_sharpness": (
        "Sharpness in random subspaces",
        "The same maximum over a box in the span of random directions with normal entries: mean over several draws, each a lower "
        "bound. Such a box reaches farther than the full one of the same radius, so the two do not compare.",
        f"{ARXIV}1609.04836",
    ),
    "ball_sharpness": (
        "Sharpness in the ball",
        "The largest climb within a Euclidean distance, as in sharpness-aware training. A lower bound.",
        f"{ARXIV}2010.01412",
    ),
    "adaptive_sharpness": (
        "Adaptive sharpness",
        "The same with every weight's movement in units of the weight itself, which makes the number the same for all rescalings "
        "of the layers of a ReLU network. A lower bound.",
        f"{ARXIV}2102.11600",
    ),
    "average_sharpness": (
        "Average-case sharpness",
        "The mean climb when every weight gets independent Gaussian noise. An unbiased estimate, no bound.",
        f"{ARXIV}2206.06232",
    ),
    "random_rise": (
        "Rise towards random corners",
        "The climb when every weight moves to a random face of its box. Random directions all rise about alike; the steepest "
        "ones are far above them.",
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
        "The sum of all curvatures. Sampled by random signs: for every sample by itself where the network is piecewise linear in "
        "each of its weight tensors, else only in the directions beside those that stand out, which are exact.",
        f"{ARXIV}2010.09649",
    ),
    "spectral_density": (
        "Spectral density",
        "The share of curvatures at each value, smoothed by a Gaussian, from Lanczos runs with random starts; the band is the "
        "95 % interval over the starts.",
        f"{ARXIV}1901.10159",
    ),
    "noise_scale": (
        "Noise scale",
        "The trace of the covariance of the gradient of one sample over the squared length of the mean gradient. Both parts are "
        "unbiased; the interval is over samples.",
        f"{ARXIV}1812.06162",
    ),
    "curvature_noise_scale": (
        "Curvature-weighted noise scale",
        "The same with both parts weighted by the Hessian: what decides how much a step at the best learning rate gains.",
        f"{ARXIV}1812.06162",
    ),
    "covariance_eigenvalues": (
        "Eigenvalues of the gradient covariance",
        "The largest variances of the gradient of one sample along any direction.",
        f"{ARXIV}1901.11518",
    ),
    "log_evidence": (
        "Bayesian evidence",
        "How well the labels support this minimum with a Gaussian prior of precision l2, by Laplace's approximation. The ratio "
        "for the null model is below zero where the minimum explains the labels better than guessing.",
        f"{ARXIV}1710.06451",
    ),
    "rescaling_check": (
        "Before and after a rescaling",
        "One layer multiplied and the next divided by the same factor: the network computes the same, and every measure that "
        "moves says something about the weights that the function alone does not decide.",
        f"{ARXIV}1703.04933",
    ),
    "trajectory": (
        "Trajectory on its plane",
        "The snapshots of the training projected on their two principal components, with the loss on that plane. Smooth curves "
        "arise from random walks too: compare the share of the variance with that of one.",
        f"{ARXIV}1712.09913",
    ),
    "slice_1d": (
        "Slices",
        "Loss along one or two random directions, every filter of which is as long as the same filter of the weights, so that 1 "
        "moves each filter by its own length. Exact at each point; a few directions of very many.",
        f"{ARXIV}1712.09913",
    ),
    "distance_curve": (
        "Distance while training",
        "Distance from the start at each snapshot, and whether it grows like the logarithm of the number of updates or like a "
        "power of it.",
        f"{ARXIV}1705.08741",
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
    known = {*names, *(["slice_1d"] if "slice_2d" in names else [])}
    found = [WORDS[name] for name in WORDS if name in known]
    return [{"name": name, "text": text, "link": link or None} for name, text, link in found]
