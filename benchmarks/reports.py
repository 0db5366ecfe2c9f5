"""What follows a large sweep: a store of 10,000 runs listed and filtered, and the report of 1,000 runs."""

import json
import math
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.record import Wall
from gengap.core.recipe import Recipe
from gengap.fitting.document import describe_runs
from gengap.fitting.table import records_of
from gengap.report.sweep.page import write_page
from gengap.store.rows import RunRow, canonical
from gengap.store.store import Store

LIST_SECONDS, REPORT_SECONDS = 1.0, 10.0
SIZE, EPOCHS, EVALUATIONS = 1_000, 30, 20
BATCHES = [2**k for k in range(2, 10)]
RATES = [2.0**k for k in range(-7, 2)]


def entries(*, quick: bool) -> Iterator[Wall]:
    repetitions = 1 if quick else 5
    with tempfile.TemporaryDirectory() as folder:
        with Store(folder) as store:
            fill(store, 100 if quick else 10_000)
        yield Wall("all 10,000 runs listed", repeated(lambda: listed(folder), repetitions), LIST_SECONDS)
        chosen = {"outcome": "finished", "batch_size": 32, "momentum": 0.9}
        seconds = repeated(lambda: listed(folder, **chosen), repetitions)
        yield Wall("those of batch 32 that finished", seconds, LIST_SECONDS, notes={"filter": chosen})
    with tempfile.TemporaryDirectory() as folder:
        document = sweep(100 if quick else 1_000)
        seconds = repeated(lambda: write_page(document, Path(folder) / "report"), min(3, repetitions))
        yield Wall("report of 1,000 runs", seconds, REPORT_SECONDS, notes={"runs": len(document["runs"])})


def repeated(work: Callable[[], object], times: int) -> list[float]:
    found = []
    for _ in range(times):
        clock = time.perf_counter()
        work()
        found.append(time.perf_counter() - clock)
    return found


def listed(folder: str, **chosen: object) -> int:
    with Store(folder, create=False) as store:
        return len(store.listed(**chosen))


def fill(store: Store, count: int) -> None:
    """Write runs in one transaction: what is timed is reading."""
    rows = [run(i) for i in range(count)]
    with store.transaction() as db:
        for row in rows:
            texts = [canonical(part) for part in (row.recipe, row.cost, row.environment)]
            values = (row.key, row.problem, texts[0], row.outcome, row.step, row.reason, *texts[1:], row.created)
            db.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
            points = [(row.key, point["step"], canonical(point)) for point in row.history]
            db.executemany("INSERT INTO history VALUES (?, ?, ?)", points)


def run(i: int) -> RunRow:
    """Run i of a grid of batch size, learning rate, momentum and seed, its curve from a formula."""
    place, batch = divmod(i, len(BATCHES))
    place, rate = divmod(place, len(RATES))
    seed, m = divmod(place, 2)
    momentum, batch_size, lr = (0.0, 0.9)[m], BATCHES[batch], RATES[rate]
    recipe = Recipe(batch_size=batch_size, lr=lr, momentum=momentum, seed=seed, budget={"epochs": EPOCHS})
    diverged = lr > 0.5 * (1 + momentum)
    steps = EPOCHS * -(-SIZE // batch_size)
    return RunRow(
        key=f"{i:016x}",
        problem="formulas",
        recipe=recipe.model_dump(mode="json"),
        outcome="diverged" if diverged else "finished",
        step=12 if diverged else steps,
        reason="the loss was not finite" if diverged else "",
        cost={"seconds": 1e-4 * steps, "evaluation_seconds": 0.1, "steps": steps, "samples": EPOCHS * SIZE},
        environment={"gengap": "0", "python": "3", "processor": "a CPU", "threads": 1},
        history=() if diverged else history(recipe, steps),
        created="2024-01-01T00:00:00Z",
    )


def history(recipe: Recipe, steps: int) -> tuple[dict[str, float], ...]:
    """Give evaluations on the way to a result that peaks at a noise scale of 20."""
    off = math.log2(recipe.lr / (1 - recipe.momentum) * SIZE / recipe.batch_size / 20)
    rng = random.Random(f"{recipe.batch_size} {recipe.lr} {recipe.momentum} {recipe.seed}")
    final = 95 - 0.5 * off * off + rng.gauss(0, 0.1)
    points = []
    for i in range(EVALUATIONS + 1):
        accuracy = 10 + (final - 10) * (1 - math.exp(-6 * i / EVALUATIONS))
        loss = (100 - accuracy) / 40
        point = {
            "step": steps * i // EVALUATIONS,
            "samples": EPOCHS * SIZE * i / EVALUATIONS,
            "epoch": EPOCHS * i / EVALUATIONS,
        }
        scores = {f"{part}_accuracy": accuracy + rng.gauss(0, 0.05) for part in ("train", "test", "validation")}
        points.append(point | scores | {f"{part}_loss": loss for part in ("train", "test", "validation")})
    return tuple(points)


def sweep(count: int) -> dict[str, object]:
    """Describe runs as a sweep does."""
    records = records_of([run(i) for i in range(count)], {"formulas": {"train_samples": SIZE}})
    head = {"format": "gengap.sweep/1", "title": "Which batch size?", "problem": {"data": "formulas"}, "command": ""}
    return json.loads(json.dumps(head | {"environment": {}} | describe_runs(records)))
