"""What the words of a sweep's report mean, each with a link to where it was defined."""

from typing import Any

from gengap.report.sweep.view import Sweep

ARXIV = "https://arxiv.org/abs/"
WORDS: tuple[tuple[str, str, str], ...] = (
    (
        "Best learning rate",
        "Of each batch size: the one on its grid with the best mean over seeds, of the validation set where one was held out. "
        "A learning rate at which most seeds diverge is not chosen. Bars reach to the next values tried.",
        "",
    ),
    (
        "Mean ± standard deviation, interval",
        "Over seeds, at the best learning rate. Intervals are 95 %, Student t; those of an accuracy are cut at 0 and 100 %. "
        "Choosing the best of several learning rates makes its result look a little too good where it is chosen on the set it "
        "is reported on.",
        "",
    ),
    (
        "Noise scale",
        "How strongly the gradient noise shakes the weights: lr N / (B (1 - m)) for learning rate lr, training-set size N, batch "
        "size B and momentum m. At a fixed learning rate the best batch size is in proportion to lr N / (1 - m).",
        f"{ARXIV}1710.06451",
    ),
    (
        "Noise-dominated, curvature-dominated, transition batch",
        "Up to the transition batch, accuracy at the best learning rate does not depend on batch size, the best learning rate "
        "grows in proportion to it, and momentum does not help. Beyond, curvature limits the learning rate and accuracy falls.",
        f"{ARXIV}2006.15081",
    ),
    (
        "Linear rule",
        "Learning rate in proportion to batch size.",
        f"{ARXIV}1706.02677",
    ),
    (
        "Critical batch",
        "Samples to a target grow with batch size like E_min (1 + B / B_crit): at B_crit they have doubled. Well below, twice "
        "the batch halves the updates (perfect scaling); well above, it saves almost none.",
        f"{ARXIV}1812.06162",
    ),
    (
        "Diverged",
        "The loss was not finite, or grew beyond what training comes back from; such runs count in no mean.",
        "",
    ),
)


def definitions(sweep: Sweep) -> list[dict[str, Any]]:
    """Explain the words, the target among them where there is one.

    Args:
        sweep: the sweep.

    Returns:
        {"name", "text", "link"} for each word; link is None where none is needed.
    """
    target = sweep.document.get("target")
    words = [one for one in WORDS if target or one[0] != "Critical batch"]
    return [{"name": name, "text": text, "link": link or None} for name, text, link in words]
