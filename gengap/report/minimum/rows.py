"""The numbers of a minimum: from the record of each measure to named estimates, ready for tables, sentence and figures."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gengap.report import numbers

Record = Mapping[str, Any]
Estimate = Mapping[str, Any]
EXACT, LOWER, UPPER, SAMPLED, BOUNDED = "exact", "lower bound", "upper bound", "sampled", "within its residual"


@dataclass(frozen=True, slots=True)
class Number:
    """One number.

    Attributes:
        key: what it is, the same for every checkpoint: a script finds it by this.
        name: what a reader calls it.
        unit: its unit, or "".
        estimate: {"value", "stdev", "stderr", "n", "interval", "method"}.
        kind: what its error is: "exact", "lower bound", "upper bound", "sampled", "within its residual"; of a rescaling
            its verdict.
        note: how far it can be trusted, or "".
    """

    key: str
    name: str
    unit: str
    estimate: Estimate
    kind: str
    note: str = ""

    @property
    def value(self) -> float | None:
        """The number itself."""
        found: float | None = self.estimate["value"]
        return found

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form."""
        return asdict(self)


HOW = {"gram": "from products of all gradients", "lanczos": "by Lanczos"}  # the top of a covariance is found
Reader = Callable[[Record], Iterable[Number]]


def exact(value: float | None) -> dict[str, Any]:
    """Make the estimate of a number that has no error, or of a bound."""
    return {"value": value, "stdev": None, "stderr": None, "n": 1, "interval": None, "method": "exact"}


def sampled(estimate: Estimate) -> dict[str, Any]:
    """Give an estimate with its standard error."""
    stdev, n = estimate.get("stdev"), estimate["n"]
    return {**estimate, "stderr": None if stdev is None else stdev / math.sqrt(n)}


def within(value: float, low: float | None, high: float | None, method: str) -> dict[str, Any]:
    """Make the estimate of a number that lies between two others."""
    return exact(value) | {"interval": [low, high], "method": method}


def scaled(estimate: Estimate, factor: float) -> dict[str, Any]:
    """Change the unit of an estimate."""
    found = dict(estimate)
    for name in ("value", "stdev", "stderr"):
        found[name] = None if found.get(name) is None else found[name] * factor
    ends = found["interval"]
    found["interval"] = ends and [None if end is None else end * factor for end in ends]
    return found


def cut(estimate: Estimate, low: float, high: float, words: str) -> dict[str, Any]:
    """Cut off what of an interval the number cannot be, which leaves the interval's coverage as it was."""
    found, ends = dict(estimate), estimate["interval"]
    if ends and None not in ends and (ends[0] < low or ends[1] > high):
        found["interval"] = [min(high, max(low, end)) for end in ends]
        found["method"] = f"{found['method']}, {words}"
    return found


def percent(estimate: Estimate) -> dict[str, Any]:
    """Give a share in percent."""
    return cut(scaled(sampled(estimate), 100), 0.0, 100.0, "within 0 and 100 %")


def performance(split: str) -> Callable[[Record], Iterator[Number]]:
    """Give what reads loss, accuracy and gradient of a split."""

    def read(record: Record) -> Iterator[Number]:
        yield Number(f"{split}_loss", f"Loss, {split}", "nats", sampled(record["loss"]), SAMPLED)
        if record["accuracy"] is not None:
            yield Number(f"{split}_accuracy", f"Accuracy, {split}", "%", sampled(record["accuracy"]), SAMPLED)
        if record["gradient_norm"] is not None:
            yield Number("gradient_norm", "Gradient norm", "", exact(record["gradient_norm"]), EXACT, "0 at a minimum")

    return read


def distance(record: Record) -> Iterator[Number]:
    """Read the distance from the start."""
    relative = record["relative"]
    said = "" if relative is None else f"{numbers.number(relative)} times the norm at the start"
    yield Number("distance", "Distance from the start", "", exact(record["from_init"]), EXACT, said)
    yield Number("norm", "Norm of the weights", "", exact(record["norm"]), EXACT)


def box(record: Record) -> Iterator[Number]:
    """Read the sharpness of every radius."""
    for one in record["records"]:
        name = f"Sharpness, box of radius {numbers.tick(one['radius'])}"
        key = f"sharpness_{one['radius']:g}"
        estimate = exact(one["percent"]) | {"n": len(one["starts"]), "method": "best of several searches"}
        yield Number(key, name, "%", estimate, LOWER, searches(one))


def searches(one: Record) -> str:
    """Say how well the searches of a box agree."""
    said = [f"{numbers.whole(one['evaluations'])} evaluations"]
    if one["agreement"] is not None:
        said.append(f"two searches agree to {one['agreement']:.2f}")
    if one["nonfinite"]:
        said.append(f"{one['nonfinite']} of them not finite, so that the true maximum is not known")
    return ", ".join(said)


def eigenvalues(which: str) -> Callable[[Record], Iterator[Number]]:
    """Give what reads eigenvalues of one end, and the learning rate that the top one allows."""

    def read(record: Record) -> Iterator[Number]:
        for i, (value, error) in enumerate(zip(record["values"], record["errors"], strict=True), 1):
            name = f"{which.capitalize()} eigenvalue {i}" if i > 1 else f"{which.capitalize()} eigenvalue"
            estimate = within(value, value - error, value + error, "estimated from the residual")
            note = "" if i > 1 else f"{numbers.whole(record['products'])} products"
            if i == 1 and not record["converged"]:
                note += f", not converged to {record['rel_error']:g}"
            yield Number(f"{which}_eigenvalue_{i}", name, "", estimate, BOUNDED, note)
        lr = record.get("max_stable_lr")
        if lr:
            estimate = within(lr["value"], lr["low"], lr["high"], "from the error of the top eigenvalue")
            note = f"momentum {lr['momentum']:g}; of the full batch, noise lowers it"
            yield Number("max_stable_lr", "Largest stable learning rate", "", estimate, UPPER, note)

    return read


def trace(record: Record) -> Iterator[Number]:
    """Read the trace."""
    n, stderr = max(1, record["probes"]), record["stderr"]
    estimate = exact(record["value"]) | {"n": n, "stderr": stderr, "stdev": stderr * math.sqrt(n)}
    estimate |= {"interval": list(record["interval"]), "method": "Student t over probes, 95 %"}
    note = (
        f"{record['probes']} passes, every sample probed in each"
        if record["method"] == "per sample"
        else f"{record['deflated']} directions exact, {record['probes']} probes"
    )
    yield Number("trace", "Trace of the Hessian", "", estimate, SAMPLED, note)


def density(record: Record) -> Iterator[Number]:
    """Read the shares of the spectrum."""
    width = numbers.tick(float(f"{record['width']:.2g}"))
    near, below = (percent(record[key]) for key in ("near_zero", "negative"))
    yield Number("near_zero", f"Eigenvalues within {width} of 0", "%", near, SAMPLED)
    yield Number("negative", f"Eigenvalues below {numbers.MINUS}{width}", "%", below, SAMPLED)
    if record["steep"]:
        name = f"Eigenvalues above {100 * record['threshold']:g} % of the top one"
        note = "the steep share of the space"
        yield Number("steep_share", name, "%", percent(record["steep"]), SAMPLED, note)
    norm = sampled(record["squared_norm"])
    yield Number("squared_frobenius_norm", "Sum of squared eigenvalues", "", norm, SAMPLED)


def path(record: Record) -> Iterator[Number]:
    """Read the barrier between two checkpoints."""
    for split, one in zip(("train", "test"), record["summaries"], strict=True):
        if one["barrier"] is not None:
            note = "above the line between the losses at the ends, at the points measured"
            yield Number(
                f"barrier_{split}", f"Barrier on the path, {split}", "nats", exact(one["barrier"]), LOWER, note
            )


def rise(key: str, name: str, places: Callable[[Record], tuple[Sequence[float | None], Sequence[float]]]) -> Reader:
    """Give what reads the highest training loss on a random line or plane over that in its middle."""

    def read(record: Record) -> Iterator[Number]:
        losses, away = places(record)
        middle = losses[min(range(len(away)), key=away.__getitem__)]
        seen = [y for y in losses if y is not None]
        if middle is None or not seen:
            return
        gaps = len(losses) - len(seen)
        note = f"highest of {len(losses)} points" + (f", {gaps} of them not finite" if gaps else "")
        yield Number(key, name, "nats", exact(max(seen) - middle), LOWER, note)

    return read


def on_line(record: Record) -> tuple[Sequence[float | None], Sequence[float]]:
    """Give the training losses on a line, and how far from the middle they are."""
    return record["losses"][0], [abs(x) for x in record["positions"]]


def on_plane(record: Record) -> tuple[Sequence[float | None], Sequence[float]]:
    """Give the training losses on a plane, and how far from the middle they are."""
    grid = record["grid"]
    losses = [z for row in grid["losses"][0] for z in row]
    return losses, [math.hypot(x, y) for y in grid["y"] for x in grid["x"]]


def subspaces(record: Record) -> Iterator[Number]:
    """Read the sharpness in random subspaces."""
    name = f"Sharpness, {record['dim']} random directions, radius {numbers.tick(record['radius'])}"
    note = f"{len(record['draws'])} subspaces, each a lower bound; {numbers.whole(record['evaluations'])} evaluations"
    yield Number("subspace_sharpness", name, "%", sampled(record["percent"]), SAMPLED, note)


def ball(key: str, name: str) -> Callable[[Record], Iterator[Number]]:
    """Give what reads the worst case in a ball."""

    def read(record: Record) -> Iterator[Number]:
        estimate = exact(record["percent"]) | {"n": len(record["starts"]), "method": "best of several searches"}
        note = searches(record)
        yield Number(key, f"{name} of radius {numbers.tick(record['radius'])}", "%", estimate, LOWER, note)

    return read


def average(record: Record) -> Iterator[Number]:
    """Read the mean rise under noise, in the percent of the other forms."""
    estimate = scaled(sampled(record["rise"]), 100 / (1 + record["base"]))
    note = f"{record['rise']['n']} pairs" + (
        "" if record["converged"] else f", not converged to {record['rel_error']:g}"
    )
    name = f"Sharpness, mean under noise of {numbers.tick(record['sigma'])}"
    yield Number("average_sharpness", name, "%", estimate, SAMPLED, note)


def corners(record: Record) -> Iterator[Number]:
    """Read the rise towards random corners of the box."""
    estimate = scaled(sampled(record["rise"]), 100 / (1 + record["base"]))
    ends = [numbers.number(record["percent"][level]) for level in ("0.0", "1.0")]
    name = f"Sharpness, random corners, radius {numbers.tick(record['radius'])}"
    yield Number("random_rise", name, "%", estimate, SAMPLED, f"{record['rise']['n']} corners: {ends[0]} to {ends[1]}")


def noise(record: Record) -> Iterator[Number]:
    """Read the noise scale with its parts."""
    if record["simple"] is not None:
        yield Number("noise_scale", "Noise scale", "samples", sampled(record["simple"]), SAMPLED, record["method"])
    elif record["at_least"]:
        estimate = exact(record["at_least"]) | {"method": "low end of the 95 % interval"}
        yield Number("noise_scale_at_least", "Noise scale, at least", "samples", estimate, LOWER, record["method"])
    trace_of, slope = (sampled(record[key]) for key in ("trace_covariance", "squared_gradient_norm"))
    trace_of = cut(trace_of, 0.0, math.inf, "not below 0")
    yield Number("trace_covariance", "Trace of the gradient covariance", "", trace_of, SAMPLED, "unbiased")
    note = "unbiased, so that it can be below 0 by chance"
    yield Number("squared_gradient_norm", "Squared gradient norm", "", slope, SAMPLED, note)


def curvature_noise(record: Record) -> Iterator[Number]:
    """Read the curvature-weighted noise scale."""
    note = f"{record['probes']} probes"
    if record["scale"] is not None:
        estimate = sampled(record["scale"])
        yield Number("curvature_noise_scale", "Noise scale, curvature-weighted", "samples", estimate, SAMPLED, note)
    yield Number("curvature_trace", "Trace of Hessian times covariance", "", sampled(record["trace"]), SAMPLED, note)


def covariance(record: Record) -> Iterator[Number]:
    """Read the top eigenvalues of the gradient covariance."""
    note = HOW.get(record["method"], "")
    for i, (value, error) in enumerate(zip(record["values"], record["residuals"], strict=True), 1):
        name = (
            f"Top eigenvalue {i} of the gradient covariance" if i > 1 else "Top eigenvalue of the gradient covariance"
        )
        estimate = within(value, value - error, value + error, "residual")
        yield Number(f"covariance_eigenvalue_{i}", name, "", estimate, BOUNDED, note if i == 1 else "")


def growth(record: Record) -> Iterator[Number]:
    """Read by which law the distance grew."""
    fit = record["log_fit"]
    if fit is not None:
        slope, n = fit["slope"], fit["n"]
        ends = fit["bootstrap_interval"] or slope["interval"]
        method = "bootstrap of blocks, 95 %" if fit["bootstrap_interval"] else "Student t, 95 %"
        estimate = exact(slope["value"]) | {"stderr": slope["stderr"], "n": n, "interval": ends, "method": method}
        note = f"{record['laws']['verdict']}: {record['laws']['reason']}"
        yield Number("log_slope", "Distance per e-fold of updates", "", estimate, SAMPLED, note)


def plane_of_run(record: Record) -> Iterator[Number]:
    """Read how flat the trajectory is."""
    ours, walk = (100 * sum(record[key][:2]) for key in ("shares", "random_walk_shares"))
    note = f"a random walk of {record['checkpoints']} steps in many dimensions: {walk:.1f} %"
    yield Number("trajectory_share", "Variance of the trajectory in its plane", "%", exact(ours), EXACT, note)


def evidence(record: Record) -> Iterator[Number]:
    """Read the log evidence ratio of every prior, or the log evidence where there is no null model."""
    for row in record["rows"]:
        found, prior = row["evidence"], f"l2 {numbers.tick(row['l2'])}"
        ratio = found["ratio_for_null"]
        what, value = ("ratio for the null model", ratio) if ratio is not None else ("of the labels", found["value"])
        kind = EXACT if found["stderr"] is None else SAMPLED
        note = "" if row["at_minimum"] else "not a minimum with this prior, so that the approximation says nothing"
        estimate = exact(value) | {"stderr": found["stderr"], "method": record["method"]}
        yield Number(f"log_evidence_{row['l2']:g}", f"Log evidence {what}, {prior}", "nats", estimate, kind, note)


def rescaled(record: Record) -> Iterator[Number]:
    """Read by what every measure was multiplied, though the function stayed the same."""
    for row in record["rows"]:
        if row["ratio"] is not None:
            estimate = exact(row["ratio"]) | {"method": "after over before"}
            note = f"{numbers.number(row['before'])} before, {numbers.number(row['after'])} after"
            key = f"rescaled {row['name']}".replace(" ", "_")
            yield Number(key, f"Ratio of {row['name']}", "", estimate, row["verdict"], note)


READERS: Mapping[str, Reader] = {
    "train": performance("train"),
    "test": performance("test"),
    "distance": distance,
    "distance_curve": growth,
    "sharpness": box,
    "average_sharpness": average,
    "ball_sharpness": ball("ball_sharpness", "Sharpness, ball"),
    "adaptive_sharpness": ball("adaptive_sharpness", "Sharpness, adaptive ball"),
    "random_rise": corners,
    "subspace_sharpness": subspaces,
    "top_eigenvalues": eigenvalues("top"),
    "bottom_eigenvalues": eigenvalues("bottom"),
    "trace": trace,
    "spectral_density": density,
    "path": path,
    "slice_1d": rise("line_rise", "Rise of the training loss on a random line", on_line),
    "slice_2d": rise("plane_rise", "Rise of the training loss on a random plane", on_plane),
    "trajectory": plane_of_run,
    "noise_scale": noise,
    "curvature_noise_scale": curvature_noise,
    "covariance_eigenvalues": covariance,
    "log_evidence": evidence,
    "rescaling_check": rescaled,
}


def numbers_of(measure: Mapping[str, Any]) -> list[Number]:
    """Read the numbers of one measure that was taken; a measure that only has a picture gives none."""
    reader = READERS.get(measure["name"])
    return list(reader(measure["record"])) if reader and measure["record"] is not None else []


def by_key(measures: Sequence[Mapping[str, Any]]) -> dict[str, Number]:
    """Read the numbers of all measures, by what they are."""
    return {number.key: number for measure in measures for number in numbers_of(measure)}
