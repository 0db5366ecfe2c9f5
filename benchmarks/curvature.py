"""Eigenvalues, trace and spectral density of a trained F1 against PyHessian and curvlinops, at equal error.

The reference is ours in float64, run to a tolerance of 1e-6, which tests compare with dense Hessians. PyHessian stops when
two iterates in a row agree to `tol`, which bounds no error: it is run with the largest tol of 1e-3, 1e-4, ... whose values
are right to 1e-3, and stopped where it has taken PATIENCE times as long as ours: the ratio is then a lower bound, and the
entry says so. Seconds are of CPU time on one thread, from the model to the number, the graph included.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

import gengap
from benchmarks import peers
from benchmarks.record import Faster, in_turns
from benchmarks.trained import Trained, trained

AIM = 1e-3
TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6)
CHUNK = 500
PATIENCE = 12

Found = tuple[float, float, int]  # seconds, relative error, products


def entries(*, quick: bool) -> Iterator[Faster]:
    subject = trained(10_000, quick=quick)
    exact = reference(subject, 5)
    repetitions = 1 if quick else 2
    yield eigenvalues(subject, exact, 1, repetitions, at_least=2.0)
    yield against_arpack(subject, exact[0], repetitions)
    yield eigenvalues(subject, exact, 5, 1, at_least=4.0)
    small = trained(2_000, quick=quick)
    steps, starts = (5, 2) if quick else (80, 8)
    yield density(small, steps, starts, 1)
    yield trace_against_pyhessian(small, quick=quick)
    yield trace_against_curvlinops(small, quick=quick)


def reference(subject: Trained, k: int) -> np.ndarray:
    params = {name: p.double() for name, p in subject.run.params.items()}
    return np.array(gengap.top_eigenvalues(subject.loss(), params, k=k, rel_error=1e-6).values)


def eigenvalues(subject: Trained, exact: np.ndarray, k: int, repetitions: int, *, at_least: float) -> Faster:
    own = [ours_top(subject, k, seed, exact) for seed in range(repetitions)]
    limit = PATIENCE * max(seconds for seconds, _, _ in own)
    for tolerance in TOLERANCES:
        runs = [pyhessian_top(subject, k, tolerance, exact, limit)]
        if runs[0][1] <= AIM or runs[0][0] >= limit:
            break
    stopped = runs[0][0] >= limit
    runs += [pyhessian_top(subject, k, tolerance, exact, limit) for _ in range(0 if stopped else repetitions - 1)]
    return Faster(
        name=f"top-{k} eigenvalues, {subject.name}",
        what=(
            "gengap.top_eigenvalues",
            f"PyHessian, tol {tolerance:g}" + (", stopped before its end" if stopped else ""),
        ),
        ours=[seconds for seconds, _, _ in own[: len(runs)]],
        peer=[seconds for seconds, _, _ in runs],
        at_least=at_least,
        notes={
            "error_aimed_at": AIM,
            "the_ratio_is_a_lower_bound": stopped,
            "relative_errors": {"ours": [e for _, e, _ in own], "peer": [e for _, e, _ in runs if e < np.inf]},
            "products": {"ours": [n for _, _, n in own], "peer": [n for _, _, n in runs]},
        },
    )


def ours_top(subject: Trained, k: int, seed: int, exact: np.ndarray) -> Found:
    clock = time.process_time()
    got = gengap.top_eigenvalues(subject.loss(), subject.run.params, k=k, rel_error=AIM, seed=seed)
    return time.process_time() - clock, worst(got.values, exact), got.products


def pyhessian_top(subject: Trained, k: int, tolerance: float, exact: np.ndarray, limit: float) -> Found:
    """Give infinite error where it was stopped."""
    clock, error = time.process_time(), np.inf
    with peers.Counted(until=clock + limit) as counted, suppress(peers.TookTooLong):
        values, _ = peers.pyhessian(subject.model(), subject.arrays).eigenvalues(maxIter=300, tol=tolerance, top_n=k)
        error = worst(sorted(values, reverse=True), exact)
    return time.process_time() - clock, error, counted.products


def against_arpack(subject: Trained, exact: float, repetitions: int) -> Faster:
    found: dict[str, list[float]] = {"ours": [], "peer": []}

    def ours() -> None:
        got = gengap.top_eigenvalues(subject.loss(), subject.run.params, k=1, rel_error=AIM, seed=len(found["ours"]))
        found["ours"].append(abs(got.values[0] / exact - 1))

    def peer() -> None:
        operator = peers.curvlinops_hessian(subject.model(), subject.arrays, CHUNK).to_scipy()
        found["peer"].append(abs(peers.largest_by_scipy(operator, AIM, len(found["peer"])) / exact - 1))

    seconds = in_turns({"ours": timed(ours), "peer": timed(peer)}, repetitions, warm=False)
    return Faster(
        name=f"top-1 eigenvalue, {subject.name}",
        what=("gengap.top_eigenvalues", "curvlinops + eigsh, tol 1e-3"),
        ours=seconds["ours"],
        peer=seconds["peer"],
        at_least=2.0,
        notes={"relative_errors": found, "chunk": CHUNK},
    )


def density(subject: Trained, steps: int, starts: int, repetitions: int) -> Faster:
    tops: dict[str, float] = {}

    def ours() -> None:
        got = gengap.spectral_density(subject.loss(), subject.run.params, steps=steps, starts=starts)
        tops["ours"] = max(nodes[-1] for nodes in got.nodes)

    def peer() -> None:
        with peers.with_eig():
            nodes, _ = peers.pyhessian(subject.model(), subject.arrays).density(iter=steps, n_v=starts)
        tops["peer"] = float(max(map(max, nodes)))

    seconds = in_turns({"ours": timed(ours), "peer": timed(peer)}, repetitions, warm=False)
    return Faster(
        name=f"spectral density {steps} x {starts}, {subject.name}",
        what=("gengap.spectral_density", "PyHessian density"),
        ours=seconds["ours"],
        peer=seconds["peer"],
        at_least=1.3,
        notes={"largest_node": tops},
    )


def trace_against_pyhessian(subject: Trained, *, quick: bool) -> Faster:
    """PyHessian's own rule stops too early; it is given the probes that its scatter needs for 2 %, at its own speed."""
    probes = 10 if quick else 60
    seconds: dict[str, float] = {}
    clock = time.process_time()
    got = gengap.trace(subject.loss(), subject.run.params)
    seconds["ours"] = time.process_time() - clock
    clock = time.process_time()
    values = np.array(peers.pyhessian(subject.model(), subject.arrays).trace(maxIter=probes, tol=-np.inf))
    each = (time.process_time() - clock) / len(values)
    needed = (values.std(ddof=1) / (0.02 * abs(got.value))) ** 2
    early = [len(peers.pyhessian(subject.model(), subject.arrays).trace()) for _ in range(1 if quick else 5)]
    return Faster(
        name=f"trace to 2 %, {subject.name}",
        what=("gengap.trace", f"PyHessian, {needed:.0f} probes by its scatter over {len(values)}"),
        ours=[seconds["ours"]],
        peer=[each * needed],
        at_least=1.0,
        notes={
            "ours": {"value": got.value, "stderr": got.stderr, "products": got.products, "method": got.method},
            "peer_mean": float(values.mean()),
            "peer_stops_by_itself_after": early,
            "its_relative_standard_error_there": [float(values.std(ddof=1) / abs(got.value) / n**0.5) for n in early],
            "peer_seconds_are": "extrapolated from the probes made",
        },
    )


def trace_against_curvlinops(subject: Trained, *, quick: bool) -> Faster:
    """Hutch++ and XTrace of curvlinops with a fixed number of products, their error against the value found by ours."""
    from curvlinops import hutchpp_trace, xtrace

    number = 30 if quick else 90
    got = gengap.trace(subject.loss(), subject.run.params)
    errors: dict[str, list[float]] = {"hutchpp_trace": [], "xtrace": []}
    spent = []
    for _ in range(1 if quick else 2):
        for name, estimate in (("hutchpp_trace", hutchpp_trace), ("xtrace", xtrace)):
            operator = peers.curvlinops_hessian(subject.model(), subject.arrays, CHUNK)
            clock = time.process_time()
            value = float(estimate(operator, num_matvecs=number))
            spent.append(time.process_time() - clock)
            errors[name].append(abs(value / got.value - 1))
    clock = time.process_time()
    gengap.trace(subject.loss(), subject.run.params, seed=1)
    return Faster(
        name=f"trace to 2 %, {subject.name}",
        what=("gengap.trace", f"curvlinops with {number} products"),
        ours=[time.process_time() - clock],
        peer=[min(spent)],
        at_least=1.0,
        notes={"ours": {"value": got.value, "stderr": got.stderr}, "peer_relative_errors": errors},
    )


def worst(values: Sequence[float], exact: np.ndarray) -> float:
    return float(np.max(np.abs(np.array(values) / exact[: len(values)] - 1)))


def timed(work: Callable[[], Any]) -> Callable[[], float]:
    def once() -> float:
        clock = time.process_time()
        work()
        return time.process_time() - clock

    return once
