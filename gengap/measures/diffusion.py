"""How the distance from the start grows while a run goes on, and by which law."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from gengap.core.errors import BadInput
from gengap.core.records import Record
from gengap.measures.distance import Trained, angle, difference, distance
from gengap.measures.protocols import Params
from gengap.measures.session import Names, divided
from gengap.measures.trees import as_tree
from gengap.theory.diffusion import LogFit, fit_log_time
from gengap.theory.laws import LawComparison, compare_laws

LEAST = 3  # points that a line needs


class Moment(Trained, Protocol):
    """A run seen on its way: `gengap.Snapshot`, or anything like it."""

    @property
    def step(self) -> int:
        """Updates made."""
        ...


@dataclass(frozen=True, slots=True)
class DistanceCurve(Record):
    """The distance from the start at several moments of one run.

    Attributes:
        steps: updates made, ascending, T of them.
        distances: L2 norm of w_t - w_0 at each, in units of a weight.
        norms: L2 norm of w_t.
        angles: between w_t and w_0, in degrees; None where one of them is zero.
        turns: between the way gone until the moment before and the way gone since, in degrees: 0 is straight on, 90 a
            random walk in a space of many dimensions, 180 straight back; None where there is no such way.
        per_layer: distance of each tensor at each moment, by name.
        log_fit: distance = slope ln t + intercept over the fitted moments; None for fewer than three.
        laws: the log law beside a power law, the square root and a line; `laws.verdict` is the answer.
        fitted: first and last update that the fits use.
        dtype: of the weights; differences and sums are float64.
    """

    steps: tuple[int, ...]
    distances: tuple[float, ...]
    norms: tuple[float, ...]
    angles: tuple[float | None, ...]
    turns: tuple[float | None, ...]
    per_layer: dict[str, tuple[float, ...]]
    log_fit: LogFit | None
    laws: LawComparison
    fitted: tuple[int, int]
    dtype: str

    def __str__(self) -> str:
        reached = f"distance {self.distances[-1]:.4g} after {self.steps[-1]:,} updates ({len(self.steps)} moments)"
        fit = "" if self.log_fit is None else f"\n{self.log_fit}"
        return f"{reached}{fit}\n{self.laws}"


@dataclass(frozen=True, slots=True)
class Reading:
    """What is kept of a moment."""

    step: int
    distance: float
    norm: float
    angle: float | None
    turn: float | None
    per_layer: dict[str, float]
    dtype: str


class DistanceFollower:
    """A probe that measures the distance while a run trains, and keeps no weights but those of the moment before.

    Args:
        only: patterns of names; the distance is over the weights that they match. None: all.
    """

    def __init__(self, only: Names = None) -> None:
        self._only = only
        self._readings: list[Reading] = []
        self._before: dict[str, Tensor] | None = None

    def __call__(self, moment: Moment) -> None:
        """Measure one moment; it costs a few passes over the weights, in float64.

        Args:
            moment: later than the one before.

        Raises:
            BadInput: it is no moment of a run, not later, or the weights do not fit those at the start.
        """
        if missing := [name for name in ("step", "params", "initial_params") if not hasattr(moment, name)]:
            raise BadInput(
                f"a moment is a {type(moment).__name__}, which has no {missing[0]!r}; give snapshots, or objects with step, "
                f"params and initial_params"
            )
        if self._readings and moment.step <= self._readings[-1].step:
            raise BadInput(
                f"update {moment.step:,} comes after update {self._readings[-1].step:,}; give the moments of one run in "
                f"their order, and a new DistanceFollower to every run"
            )
        end, start = (chosen(tree, self._only) for tree in (moment.params, moment.initial_params))
        found, way = distance(end, start), difference(end, start)
        turn = None if self._before is None else angle(self._before, difference(way, self._before))
        self._readings.append(
            Reading(moment.step, found.from_init, found.norm, found.angle, turn, found.per_layer, found.dtype)
        )
        self._before = way

    def curve(
        self, *, fit_from: int = 1, fit_until: int | None = None, resamples: int = 1000, seed: int = 0
    ) -> DistanceCurve:
        """Give the curve so far, with its fits.

        Args:
            fit_from: first update that the fits use, >= 1.
            fit_until: last update that the fits use, for example the one before the learning rate falls; None: the last.
            resamples: of the block bootstrap of the slope, which allows for neighbours that err alike; 0 leaves it out.
            seed: of the bootstrap.

        Returns:
            The curve.

        Raises:
            BadInput: nothing was measured yet, or `fit_from` is below 1.
        """
        if not self._readings:
            raise BadInput(
                "there is no moment to make a curve of; give snapshots, or train with probe=DistanceFollower()"
            )
        if fit_from < 1:
            raise BadInput(
                f"fit_from is {fit_from!r}; the fits are in the logarithm of the update, so begin at 1 or later"
            )
        last = self._readings[-1].step if fit_until is None else fit_until
        used = [r for r in self._readings if fit_from <= r.step <= last]
        steps, distances = [r.step for r in used], [r.distance for r in used]
        line = fit_log_time(steps, distances, resamples=resamples, seed=seed) if len(used) >= LEAST else None
        return DistanceCurve(
            **columns(self._readings),
            log_fit=line,
            laws=compare_laws(steps, distances),
            fitted=(steps[0], steps[-1]) if used else (fit_from, last),
        )


def distance_curve(
    moments: Iterable[Moment],
    *,
    only: Names = None,
    fit_from: int = 1,
    fit_until: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> DistanceCurve:
    r"""Follow the distance from the start through the snapshots of a run, and ask which law it obeys.

    A walker in a random potential whose roughness grows linearly with distance moves as :math:`\ln t`; free diffusion
    as :math:`\sqrt t`. The comparison needs ten moments, and means something while the learning rate stays the same.

    Args:
        moments: snapshots in the order of their updates: a `gengap.SnapshotFolder`, or a list filled by a probe. One is
            held at a time.
        only: patterns of names; the distance is over the weights that they match. None: all.
        fit_from: first update that the fits use, >= 1; the start itself has no logarithm.
        fit_until: last update that the fits use, for example the one before the learning rate falls; None: the last.
        resamples: of the block bootstrap of the slope, which allows for neighbours that err alike; 0 leaves it out.
        seed: of the bootstrap.

    Returns:
        The curve with its fits. Costs a few passes over the weights for each moment.

    Raises:
        BadInput: there is no moment, one is something else, they are not in order, or weights do not fit each other.

    Source:
        Hoffer et al. 2017, arXiv:1705.08741, figure 2 and equation 1.
    """
    follower = DistanceFollower(only)
    for moment in moments:
        follower(moment)
    return follower.curve(fit_from=fit_from, fit_until=fit_until, resamples=resamples, seed=seed)


def chosen(params: Params, only: Names) -> dict[str, Tensor]:
    """Take the weights whose names match."""
    return divided(as_tree(params), only, frozenset())[0]


def columns(readings: list[Reading]) -> Mapping[str, Any]:
    """Turn readings one after the other into one tuple for each quantity."""
    names = readings[0].per_layer
    return {
        "steps": tuple(r.step for r in readings),
        "distances": tuple(r.distance for r in readings),
        "norms": tuple(r.norm for r in readings),
        "angles": tuple(r.angle for r in readings),
        "turns": tuple(r.turn for r in readings),
        "per_layer": {name: tuple(r.per_layer[name] for r in readings) for name in names},
        "dtype": readings[0].dtype,
    }
