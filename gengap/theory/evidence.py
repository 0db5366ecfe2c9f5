"""Bayesian evidence of a minimum in Laplace's approximation, against a null model that guesses."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from gengap.core.errors import BadInput
from gengap.core.records import Record

Rule = Literal["auto", "all", "at least l2"]


@dataclass(frozen=True, slots=True)
class RegularisedMinimum(Record):
    """What the evidence needs to know of a minimum beside its curvature. C = H + l2 |w|^2 / 2.

    Attributes:
        loss_sum: H, the loss summed over the samples, in nats: N times the mean loss.
        squared_norm: |w|^2 over the regularised weights.
        l2: coefficient of the summed loss, > 0: the precision of the prior. A weight decay d on the mean loss is l2 = N d.
        samples: N.
        classes: of a classification, for the null model; None where there is no such thing.

    Raises:
        BadInput: a number is out of range.
    """

    loss_sum: float
    squared_norm: float
    l2: float
    samples: int
    classes: int | None = None

    def __post_init__(self) -> None:
        check_prior(self.l2)
        if not (math.isfinite(self.loss_sum) and math.isfinite(self.squared_norm) and self.squared_norm >= 0):
            raise BadInput(
                f"loss_sum is {self.loss_sum!r} and squared_norm {self.squared_norm!r}; the evidence needs finite numbers, "
                "the latter not negative"
            )
        if not self.samples >= 1:
            raise BadInput(f"samples is {self.samples!r}; give the number of samples that loss_sum is over")
        if self.classes is not None and not self.classes >= 2:
            raise BadInput(f"classes is {self.classes!r}; the null model guesses among at least 2")

    @property
    def penalty(self) -> float:
        """The part of C that the prior adds, in nats."""
        return self.l2 * self.squared_norm / 2

    @property
    def null_loss(self) -> float | None:
        """The summed loss of guessing, N ln n, in nats; None without classes."""
        return None if self.classes is None else self.samples * math.log(self.classes)


@dataclass(frozen=True, slots=True)
class Curvature(Record):
    """What the evidence needs to know of the Hessian of C, its eigenvalues being lambda_i.

    Attributes:
        occam: half the sum of ln(lambda_i / l2) over the eigenvalues that enter, in nats.
        stderr: standard error of `occam`; None where it is exact.
        l2: the prior's precision that the eigenvalues were compared with.
        parameters: P, number of weights.
        rule: "all" eigenvalues entered, or only those "at least l2".
        excluded: number of eigenvalues that did not enter; None where the sum was estimated as a whole.
        smallest_eigenvalue: of the Hessian of C; None likewise.
        effective_parameters: sum of h / (h + l2) over the eigenvalues h = lambda_i - l2 that enter: how many parameters the
            data determine; None where it is not known.
        effective_stderr: its standard error; None where it is exact or not known.
    """

    occam: float
    stderr: float | None
    l2: float
    parameters: int
    rule: Literal["all", "at least l2"]
    excluded: int | None = None
    smallest_eigenvalue: float | None = None
    effective_parameters: float | None = None
    effective_stderr: float | None = None


@dataclass(frozen=True, slots=True)
class LogEvidence(Record):
    """The log evidence of a minimum with its parts, all in nats: value = -(loss_sum + penalty + occam).

    Attributes:
        value: log of the evidence, ln P(labels | inputs, model).
        stderr: standard error of `value` and of `ratio_for_null`; None where the curvature is exact.
        ratio_for_null: E, the log evidence of the null model minus `value`; below zero the model is better supported than
            guessing. None without classes.
        loss_sum: H at the minimum.
        penalty: l2 |w|^2 / 2.
        occam: half the sum of ln(lambda_i / l2): minus the log of the Occam factor, the share of the prior's volume that
            the posterior fills.
        null_loss: N ln n; None without classes.
        samples: N.
        curvature: where `occam` comes from, with the rule that was used and the effective number of parameters.
    """

    value: float
    stderr: float | None
    ratio_for_null: float | None
    loss_sum: float
    penalty: float
    occam: float
    null_loss: float | None
    samples: int
    curvature: Curvature

    @property
    def log_occam_factor(self) -> float:
        """Log of the share of the prior's volume that the posterior fills, in nats."""
        return -self.occam

    def __str__(self) -> str:
        error = "" if self.stderr is None else f" ± {self.stderr:.2g}"
        ratio = "" if self.ratio_for_null is None else f", {self.ratio_for_null:.4g} for the null model"
        out, P = self.curvature.excluded, self.curvature.parameters
        left = f", {out:,} of {P:,} eigenvalues left out" if out else ""
        return (
            f"log evidence {self.value:.4g}{error} nats{ratio}: loss {self.loss_sum:.4g}, penalty {self.penalty:.4g}, "
            f"Occam {self.occam:.4g}{left}"
        )


def log_evidence(minimum: RegularisedMinimum, curvature: Curvature) -> LogEvidence:
    r"""Compute the log evidence of a minimum, and the log evidence ratio against guessing.

    With a Gaussian prior of precision l2 on every weight, Laplace's integral about the minimum of C = H + l2 |w|^2 / 2 is

    .. math::
        \ln P = -\left[ C(w_0) + \frac12 \sum_i \ln \frac{\lambda_i}{\lambda} \right],

    where lambda is l2 and lambda_i are the eigenvalues of the Hessian of C. Against guessing among n classes,
    E = -ln P - N ln n. Rescaling all weights, and the prior with them, changes none of its parts.

    Args:
        minimum: its loss, norm, prior and samples.
        curvature: from `curvature_from_eigenvalues` or `curvature_from_log_determinant`.

    Returns:
        The evidence with its parts. Exact for a quadratic C; for another one Laplace's integral has an error of the order
        1/N that no stderr holds.

    Raises:
        BadInput: the two were made with different l2.

    Source:
        Smith & Le 2018, arXiv:1710.06451, eqs. 8 to 12.
    """
    if not math.isclose(minimum.l2, curvature.l2, rel_tol=1e-12):
        raise BadInput(f"the minimum has l2 {minimum.l2!r} and the curvature {curvature.l2!r}; use one prior for both")
    value = -(minimum.loss_sum + minimum.penalty + curvature.occam)
    return LogEvidence(
        value=value,
        stderr=curvature.stderr,
        ratio_for_null=None if minimum.null_loss is None else -minimum.null_loss - value,
        loss_sum=minimum.loss_sum,
        penalty=minimum.penalty,
        occam=curvature.occam,
        null_loss=minimum.null_loss,
        samples=minimum.samples,
        curvature=curvature,
    )


def curvature_from_eigenvalues(eigenvalues: npt.ArrayLike, l2: float, *, rule: Rule = "auto") -> Curvature:
    """Sum up all eigenvalues of the Hessian of C.

    Args:
        eigenvalues: of the Hessian of C, the prior's l2 included, shape (P,).
        l2: the prior's precision, > 0.
        rule: which eigenvalues enter. "at least l2": only those >= l2, Smith & Le's rule for points where the loss curves
            down somewhere; it keeps the Occam factor below 1. "all": every one. "auto": "at least l2" where an eigenvalue
            is below l2 by more than rounding, "all" otherwise.

    Returns:
        The sums, exact, with the rule that was used.

    Raises:
        BadInput: the eigenvalues are not a vector of finite numbers, l2 or the rule cannot be used, or "all" is asked for
            and an eigenvalue is not positive, so that the integral does not exist.

    Source:
        Smith & Le 2018, arXiv:1710.06451, eq. 11; effective number of parameters: MacKay 1992, Neural Computation 4, 415.
    """
    found = np.asarray(eigenvalues, dtype=np.float64)
    check_prior(l2)
    if found.ndim != 1 or not len(found) or not np.isfinite(found).all():
        raise BadInput(f"eigenvalues has shape {found.shape}; give a vector of finite numbers, one for each weight")
    if rule not in get_args(Rule):
        raise BadInput(f"rule is {rule!r}; choose one of {', '.join(get_args(Rule))}")
    lowest = float(found.min())
    rounding = len(found) * np.finfo(np.float64).eps * float(np.abs(found).max())
    curved_down = lowest <= 0 or lowest < l2 - rounding
    if rule == "all" and lowest <= 0:
        raise BadInput(
            f"the Hessian of C has an eigenvalue of {lowest:.4g}, so Laplace's integral does not exist there; train to a "
            "minimum, raise l2, or take rule='at least l2'"
        )
    some = rule == "at least l2" or (rule == "auto" and curved_down)
    entering = found[found >= l2] if some else found
    return Curvature(
        occam=0.5 * math.fsum(np.log(entering / l2)),
        stderr=None,
        l2=l2,
        parameters=len(found),
        rule="at least l2" if some else "all",
        excluded=len(found) - len(entering),
        smallest_eigenvalue=lowest,
        effective_parameters=math.fsum((entering - l2) / entering),
    )


def curvature_from_log_determinant(
    log_determinant: float, l2: float, *, parameters: int, stderr: float | None = None
) -> Curvature:
    """Take the Occam factor from the log-determinant of the Hessian of C.

    A log-determinant has all eigenvalues in it, so the point must be a minimum of C. Where the loss curves down, estimate
    the sum over the eigenvalues that are at least l2 and make a `Curvature` of it.

    Args:
        log_determinant: of the Hessian of C, the prior's l2 included.
        l2: the prior's precision, > 0.
        parameters: P, number of weights.
        stderr: standard error of the log-determinant; None where it is exact.

    Returns:
        (log_determinant - P ln l2) / 2 with its error.

    Raises:
        BadInput: a number is out of range.
    """
    check_prior(l2)
    if not math.isfinite(log_determinant):
        raise BadInput(f"log_determinant is {log_determinant!r}; the Hessian of C must have eigenvalues above 0 only")
    if stderr is not None and not (math.isfinite(stderr) and stderr >= 0):
        raise BadInput(f"stderr is {stderr!r}; give a number of at least 0, or None for an exact log-determinant")
    if not parameters >= 1:
        raise BadInput(f"parameters is {parameters!r}; give the number of weights")
    occam = (log_determinant - parameters * math.log(l2)) / 2
    return Curvature(occam, None if stderr is None else stderr / 2, l2, parameters, "all")


def check_prior(l2: float) -> None:
    """Refuse a prior that does not exist.

    Args:
        l2: its precision.

    Raises:
        BadInput: it is not positive.
    """
    if not (math.isfinite(l2) and l2 > 0):
        raise BadInput(f"l2 is {l2!r}; the evidence needs a prior, so give a coefficient above 0")
