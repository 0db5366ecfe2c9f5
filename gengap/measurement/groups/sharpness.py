"""How far the loss climbs near the point, in every form of the literature."""

from gengap.measurement.entry import Measure, Taken
from gengap.measurement.task import Task
from gengap.measurement.work import Work
from gengap.measures.sharpness.average_sharpness import average_sharpness
from gengap.measures.sharpness.ball_sharpness import ball_sharpness
from gengap.measures.sharpness.box_sharpness import sharpness
from gengap.measures.sharpness.random_rise import random_rise
from gengap.measures.sharpness.subspace_sharpness import subspace_sharpness

DIM, REPEATS = 100, 3  # the dimension as published
BALL, ADAPTIVE = 0.05, 0.5  # usual radii of sharpness-aware training
SIGMA, PAIRS = 1e-2, 64
DIRECTIONS = 50


def box(task: Task) -> Taken:
    """Measure sharpness in the boxes."""
    found = sharpness(
        task.loss(), task.subject.params, radius=task.settings.radii, seed=task.settings.seed, **task.common
    )
    return found.to_dict(), str(found)


def subspace(task: Task) -> Taken:
    """Measure sharpness in random subspaces, for the largest radius."""
    found = subspace_sharpness(
        *(task.loss(), task.subject.params),
        radius=task.settings.radii[-1],
        dim=dimension(task),
        repeats=REPEATS,
        seed=task.settings.seed,
        **task.common,
    )
    return found.to_dict(), str(found)


def dimension(task: Task) -> int:
    """Choose the dimension of random subspaces: as published, or of a small network half of what there is."""
    return min(DIM, max(1, task.weights // 2))


def ball(task: Task) -> Taken:
    """Measure the worst case in a ball."""
    found = ball_sharpness(task.loss(), task.subject.params, radius=BALL, seed=task.settings.seed, **task.common)
    return found.to_dict() | {"percent": found.percent}, str(found)


def adaptive(task: Task) -> Taken:
    """Measure the worst case in a ball whose axes are as long as the weights."""
    found = ball_sharpness(
        *(task.loss(), task.subject.params), radius=ADAPTIVE, adaptive=True, seed=task.settings.seed, **task.common
    )
    return found.to_dict() | {"percent": found.percent}, str(found)


def average(task: Task) -> Taken:
    """Measure the mean case under Gaussian noise."""
    found = average_sharpness(
        task.loss(), task.subject.params, sigma=SIGMA, max_pairs=PAIRS, seed=task.settings.seed, **task.common
    )
    return found.to_dict(), str(found)


def rise(task: Task) -> Taken:
    """Measure the rise towards random corners of the largest box."""
    found = random_rise(
        *(task.loss(), task.subject.params),
        radius=task.settings.radii[-1],
        samples=DIRECTIONS,
        seed=task.settings.seed,
        **task.common,
    )
    record = found.to_dict() | {"percent": {str(level): found.percent(level) for level in (0.0, 0.5, 1.0)}}
    return record, str(found)


MEASURES = (
    Measure(
        30,
        "sharpness",
        "sharpness",
        "Sharpness in the box",
        lambda t: Work(gradients=40 * len(t.settings.radii), vectors=1_500 * len(t.settings.radii)),
        box,
        True,
        settings=lambda t: {"radii": list(t.settings.radii)},
    ),
    Measure(
        52,
        "average_sharpness",
        "sharpness",
        "Average-case sharpness",
        lambda _: Work(values=2 * PAIRS + 1, vectors=40 * PAIRS),
        average,
        settings=lambda _: {"sigma": SIGMA, "max_pairs": PAIRS},
    ),
    Measure(
        53,
        "ball_sharpness",
        "sharpness",
        "Sharpness in the ball",
        lambda _: Work(gradients=43, vectors=2_000),
        ball,
        settings=lambda _: {"radius": BALL},
    ),
    Measure(
        54,
        "adaptive_sharpness",
        "sharpness",
        "Adaptive sharpness",
        lambda _: Work(gradients=43, vectors=2_000),
        adaptive,
        settings=lambda _: {"radius": ADAPTIVE, "form": "element"},
    ),
    Measure(
        63,
        "random_rise",
        "sharpness",
        "Rise towards random corners of the box",
        lambda _: Work(values=DIRECTIONS + 1, vectors=10 * DIRECTIONS),
        rise,
        settings=lambda t: {"radius": t.settings.radii[-1], "directions": DIRECTIONS},
    ),
    Measure(
        71,
        "subspace_sharpness",
        "sharpness",
        "Sharpness in random subspaces",
        lambda _: Work(gradients=60 * REPEATS, vectors=150 * DIM * REPEATS),
        subspace,
        settings=lambda t: {"radius": t.settings.radii[-1], "dim": dimension(t), "repeats": REPEATS},
    ),
)
