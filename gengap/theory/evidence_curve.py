"""Learning and memorising told apart on the training data alone: evidence of a linear model over its regularisation."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from gengap.core.errors import BadInput
from gengap.core.estimate import Estimate, mean
from gengap.core.records import Record
from gengap.core.seeds import stream
from gengap.theory.evidence import check_prior
from gengap.theory.least_squares import Floats
from gengap.theory.logistic import fit_logistic, logistic_evidence, score

Labels = Literal["informative", "random"]
Verdict = Literal["supported", "not supported", "not resolvable"]
Split = tuple[Floats, Floats]  # inputs (N, P) and labels (N,)


@dataclass(frozen=True, slots=True)
class EvidenceRow(Record):
    """What one regularisation coefficient gives, means over data sets.

    Attributes:
        l2: coefficient lambda of the summed loss.
        train_accuracy: percent.
        test_accuracy: percent.
        train_loss: mean cross-entropy, nats per sample.
        test_loss: mean cross-entropy, nats per sample.
        occam: half the sum of ln(lambda_i / lambda), nats.
        ratio_for_null: E, the log evidence ratio in favour of guessing, nats; below zero the labels support the model.
        newton_drop: by how much one more Newton step would lower C, nats, the largest over data sets.
    """

    l2: float
    train_accuracy: Estimate
    test_accuracy: Estimate
    train_loss: Estimate
    test_loss: Estimate
    occam: Estimate
    ratio_for_null: Estimate
    newton_drop: float

    def __str__(self) -> str:
        return (
            f"l2 {self.l2:.2g}: accuracy {self.train_accuracy.value:.1f} % train, {self.test_accuracy.value:.1f} % test; "
            f"loss {self.train_loss.value:.4f} train, {self.test_loss.value:.4f} test; "
            f"E {self.ratio_for_null.value:.2f} nats (Occam {self.occam.value:.2f})"
        )


@dataclass(frozen=True, slots=True)
class EvidenceCurve(Record):
    """The evidence over the regularisation coefficient.

    Attributes:
        labels: "informative" or "random".
        rows: one for each l2, in the order given.
        seeds: number of data sets.
        samples: N of the training set.
        features: components of an input; the model has one weight more, the bias.
        verdict: "supported" where the whole 95 % interval of the lowest E is below -1 nat; "not supported" where the lowest
            E is -1 nat or higher, which is no evidence worth the name; else "not resolvable".
        reason: one sentence with the numbers.
    """

    labels: Labels
    rows: tuple[EvidenceRow, ...]
    seeds: int
    samples: int
    features: int
    verdict: Verdict
    reason: str

    @property
    def best(self) -> EvidenceRow:
        """The row with the highest evidence, found from training data only."""
        return min(self.rows, key=lambda row: row.ratio_for_null.value)

    @property
    def best_tested(self) -> EvidenceRow:
        """The row with the lowest test loss."""
        return min(self.rows, key=lambda row: row.test_loss.value)

    def __str__(self) -> str:
        return "\n".join([f"{self.labels} labels: {self.verdict}; {self.reason}", *map(str, self.rows)])


def evidence_curve(
    l2s: Iterable[float],
    *,
    labels: Labels = "informative",
    seeds: int = 5,
    samples: int = 200,
    features: int = 200,
    test: int = 10_000,
    seed: int = 0,
) -> EvidenceCurve:
    """Compute the evidence of logistic regression over the regularisation coefficient, with a test set beside it.

    Labels that can be learnt give evidence against guessing where the test loss is low; random labels, which a weakly
    regularised model memorises as well, give none anywhere. The evidence sees the training data only.

    Costs for each data set and l2 some ten factorisations of a (P, P) matrix: 0.1 s for 200 features.

    Args:
        l2s: coefficients lambda of the summed cross-entropy, each > 0.
        labels: "informative" (the sign of the sum of the components) or "random" (a fair coin).
        seeds: data sets, >= 1; one for each seed from `seed` on.
        samples: N of the training set, >= 2.
        features: components of one input, >= 1.
        test: test samples, >= 2.
        seed: the first data set.

    Returns:
        Means and spreads over data sets for each l2, with a verdict.

    Raises:
        BadInput: an argument is out of range.

    Source:
        Smith & Le 2018, arXiv:1710.06451, figures 1 and 2; all weights have the prior, the bias too.
    """
    priors = [float(l2) for l2 in l2s]
    if not priors or seeds < 1:
        raise BadInput(f"there are {len(priors)} values in l2s and {seeds!r} seeds; give at least one of each")
    for l2 in priors:
        check_prior(l2)
    columns = [
        one_data_set(
            priors,
            gaussian_split(labels, samples, features, split="train", seed=seed + i),
            gaussian_split(labels, test, features, split="test", seed=seed + i),
        )
        for i in range(seeds)
    ]
    rows = tuple(summary(l2, numbers) for l2, *numbers in zip(priors, *columns, strict=True))
    verdict, reason = judge(rows)
    return EvidenceCurve(labels, rows, seeds, samples, features, verdict, reason)


def gaussian_split(labels: Labels, samples: int, features: int, *, split: str, seed: int) -> Split:
    """Draw one split of the Gaussian task: standardised inputs with a column of ones, and labels computed from them.

    Args:
        labels: "informative" (1 where the components sum to more than 0) or "random" (a fair coin).
        samples: N, >= 2.
        features: components, >= 1; each gets mean 0 and mean square 1 on the split.
        split: its name, a part of the seed: "train" or "test".
        seed: of the data set.

    Returns:
        Inputs of shape (N, features + 1), the last column 1 for the bias, and labels 0 or 1.

    Raises:
        BadInput: a size is too small, or labels is neither of the two.
    """
    if labels not in get_args(Labels):
        raise BadInput(f"labels is {labels!r}; choose one of {', '.join(get_args(Labels))}")
    if samples < 2 or features < 1:
        raise BadInput(f"a split of {samples!r} samples and {features!r} features cannot be standardised; give 2 and 1")
    x = np.random.default_rng(stream(seed, f"gaussian/{split}/inputs")).standard_normal((samples, features))
    x -= x.mean(axis=0)
    x /= np.sqrt((x**2).mean(axis=0))
    coin = np.random.default_rng(stream(seed, f"gaussian/{split}/labels"))
    y = x.sum(axis=1) > 0 if labels == "informative" else coin.random(samples) < 0.5
    return np.column_stack([x, np.ones(samples)]), y.astype(np.float64)


def one_data_set(priors: Sequence[float], train: Split, test: Split) -> list[tuple[float, ...]]:
    """Return for each prior what a row is the mean of, in the order of `EvidenceRow`'s fields."""
    found: dict[float, tuple[float, ...]] = {}
    w = np.zeros(train[0].shape[1])
    # from strong to weak regularisation the last minimum is a good start for the next
    for l2 in sorted(set(priors), reverse=True):
        fit = fit_logistic(*train, l2, start=w)
        w = fit.weights
        evidence = logistic_evidence(fit, *train)
        assert evidence.ratio_for_null is not None
        (a, loss), (b, test_loss) = score(w, *train), score(w, *test)
        found[l2] = (a, b, loss, test_loss, evidence.occam, evidence.ratio_for_null, fit.newton_drop)
    return [found[l2] for l2 in priors]


def summary(l2: float, numbers: Sequence[tuple[float, ...]]) -> EvidenceRow:
    """Make a row of one tuple for each data set."""
    *averaged, drops = zip(*numbers, strict=True)
    a, b, c, d, occam, ratio = (mean(values) for values in averaged)
    return EvidenceRow(l2, a, b, c, d, occam, ratio, max(drops))


def judge(rows: Sequence[EvidenceRow]) -> tuple[Verdict, str]:
    """Return what the lowest E says of the labels, and why."""
    best = min(rows, key=lambda row: row.ratio_for_null.value)
    E = best.ratio_for_null
    where = f"the lowest E is {E} nats, at l2 {best.l2:.2g}"
    if E.interval is None:
        return "not resolvable", f"{where}, from one data set; more seeds would give it an interval"
    inside = f"with a 95 % interval of {E.interval[0]:.3g} to {E.interval[1]:.3g}"
    if E.interval[1] < -1:
        return "supported", f"{where}, {inside}: below what guessing gets"
    if E.value >= -1:
        return "not supported", f"{where}, {inside}: no l2 that was tried beats guessing by a nat"
    return "not resolvable", f"{where}, {inside}; more seeds would tell"
