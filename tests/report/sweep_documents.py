"""Sweeps made from formulas, in several shapes; the document around them is the one that a sweep writes.

At effective rate e = lr / (1 - m), training-set size N and batch B the noise scale is g = e N / B. Test accuracy is
95 - 0.8 log2(g / 20)^2, so the best rate is e = 20 B / N; above lr = 0.5 (1 + m) a run diverges. Samples to
the target are 3,000 (1 + B / 64) at the best rate.
"""

import hashlib
import math
import random

from gengap.fitting.document import describe_runs
from gengap.fitting.table import RunRecord

BATCHES = (4, 8, 16, 32, 64, 128, 256)
WIDE = tuple(2**k for k in range(1, 11))
RATES = tuple(2.0**k for k in range(-5, 2))
THIRTY = ({"epochs": 30},)


def run(batch_size, lr, *, momentum=0.0, train_size=1000, seed=0, epochs=None, steps=None, validation=True):
    """One run of a sweep."""
    noise = random.Random(f"{batch_size} {lr} {momentum} {train_size} {seed} {epochs} {steps}")
    budget = f"{epochs} epochs" if epochs else f"{steps:,} steps"
    made = steps or epochs * -(-train_size // batch_size)
    common = {
        "key": hashlib.sha256(f"{batch_size} {lr} {momentum} {train_size} {seed} {budget}".encode()).hexdigest(),
        "batch_size": batch_size,
        "lr": lr,
        "momentum": momentum,
        "train_size": train_size,
        "seed": seed,
        "budget": budget,
        "budget_kind": "epochs" if epochs else "steps",
        "budget_size": epochs or steps,
        "steps": made,
        "samples": made * batch_size,
        "seconds": 1e-4 * made * (1 + batch_size / 64),
    }
    if lr > 0.5 * (1 + momentum):
        return RunRecord(**common, outcome="diverged", reason="the loss was not finite at step 12")
    off = math.log2(lr / (1 - momentum) * train_size / batch_size / 20)
    accuracy = 95 - 0.8 * off * off
    took = 3_000 * (1 + batch_size / 64) / batch_size * (1 + 0.3 * off * off)
    longer = (epochs or steps * batch_size / train_size) / 30
    loss_off = off + math.log2(longer) * (1 if epochs else 0.5)
    loss = 0.01 * (1 + 0.3 * loss_off**2)
    return RunRecord(
        **common,
        train_loss=loss * math.exp(noise.gauss(0, 0.05)),
        train_accuracy=99.5,
        test_loss=(100 - accuracy) / 40 * math.exp(noise.gauss(0, 0.02)),
        test_accuracy=accuracy + noise.gauss(0, 0.15),
        validation_loss=(100 - accuracy) / 40 * math.exp(noise.gauss(0, 0.02)) if validation else None,
        validation_accuracy=accuracy + noise.gauss(0, 0.15) if validation else None,
        steps_to_target=took * math.exp(noise.gauss(0, 0.03)) if took < made else None,
        samples_to_target=took * batch_size * math.exp(noise.gauss(0, 0.03)) if took < made else None,
    )


def grid(batches=BATCHES, rates=RATES, *, momenta=(0.0,), sizes=(1000,), seeds=3, budgets=THIRTY, **more):
    return [
        run(batch, lr, momentum=momentum, train_size=size, seed=seed, **budget, **more)
        for seed in range(seeds)
        for budget in budgets
        for momentum in momenta
        for size in sizes
        for batch in batches
        for lr in rates
    ]


def document(records, **settings):
    head = {
        "format": "gengap.sweep/1",
        "title": "Which batch size and learning rate train this network best?",
        "problem": {
            "data": "formulas",
            "network": "mlp-784-800-10",
            "loss": "cross-entropy",
            "train_samples": 1000,
            "test_samples": 10000,
            "parameters": 636010,
        },
        "command": "gengap sweep --batch 4:256:x2 --lr 0.03:2:x2 --seeds 3",
        "environment": {"gengap": "0.1.0", "python": "3.12", "processor": "a CPU"},
    }
    return head | describe_runs(records, **settings)


ALL = {
    "typical": lambda: document(grid(momenta=(0.0, 0.9), budgets=({"epochs": 30}, {"steps": 5000}))),
    "one_batch": lambda: document(grid(batches=(32,))),
    "one_lr": lambda: document(grid(rates=(0.25,))),
    "one_run": lambda: document([run(32, 0.25, epochs=30)]),
    "budgets": lambda: document(grid(batches=(16, 64), budgets=tuple({"epochs": e} for e in (7, 15, 30, 60, 120)))),
    "momenta": lambda: document(
        grid(rates=RATES[:3], momenta=(0.0, 0.5, 0.8, 0.9), sizes=(4000,), budgets=({"steps": 4000},))
    ),
    "peaks": lambda: document(grid(batches=WIDE, rates=RATES[:5], sizes=(4000,), budgets=({"steps": 4000},))),
    "train_sizes": lambda: document(
        grid(rates=(0.125, 0.25), sizes=(1000, 2000, 4000, 8000), budgets=({"steps": 4000},))
    ),
    "one_seed": lambda: document(grid(seeds=1)),
    "no_validation": lambda: document(grid(validation=False)),
    "test_loss": lambda: document(grid(), metric="test_loss"),
    "some_diverged": lambda: document(grid(rates=(*RATES, 4.0))),
}


def all_diverged():
    """No run came out: what a sweep writes while it has nothing to compare."""
    made = document(grid(batches=(4, 8, 16), rates=(0.25, 2.0), seeds=3))
    runs = [{**one, "test_accuracy": None, "validation_accuracy": None} for one in made["runs"] if one["lr"] == 2.0]
    runs[-1] |= {"outcome": "failed", "reason": "RuntimeError: no memory"}
    nothing = dict.fromkeys(("best_lr", "lr_low", "lr_high"))
    cells = [
        {
            **cell,
            **nothing,
            "at_edge": True,
            "loss_lr": {**nothing, "at_edge": True},
            **{name: None for name, value in cell.items() if isinstance(value, dict) and "stdev" in value},
            "runs": 3,
            "diverged": 3 - (cell["batch_size"] == 16),
            "failed": int(cell["batch_size"] == 16),
        }
        for cell in made["cells"]
    ]
    return made | {"runs": runs, "cells": cells, "fits": {}, "target": None}


def empty():
    made = document(grid(batches=(4,), rates=(0.25,)))
    return made | {"runs": [], "cells": [], "fits": {}, "target": None}


def hostile():
    """Names that would run in a browser if they were not taken as text."""
    made = document(grid(batches=(4, 8), rates=(0.125, 0.25)))
    evil = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
    made["title"] = evil
    made["problem"] |= {"network": evil, "data": evil}
    for entry in (*made["runs"], *made["cells"]):
        entry["optimizer"] = evil
    made["runs"][0]["reason"] = evil
    return made


ALL |= {"all_diverged": all_diverged, "empty": empty, "hostile": hostile}
