"""Sweeps whose truth is known: records, documents and stores made from formulas and seeded noise, without training.

With effective rate e = lr / (1 - m) and noise scale g = e N / B, a run's final test accuracy is

    peak - curvature log2(g / g_best)^2 + noise,

and it diverges where lr > 2 (1 + m) / sharpness, the stability limit of heavy ball. So at the best learning rate accuracy is
flat, with lr proportional to B, up to the batch where lr meets the limit, and falls beyond; at a fixed learning rate the best
batch is e N / g_best. The test loss falls by half in halving (1 + B / b_crit) samples at the best learning rate. The training
loss has its own best learning rate, which falls with the budget by the power `loss_power`, and that of the test accuracy by
`accuracy_power`.
"""

from dataclasses import dataclass, replace

import numpy as np

from gengap.core.recipe import Recipe
from gengap.core.seeds import stream
from gengap.fitting.document import describe_runs
from gengap.fitting.table import RunRecord
from gengap.store.rows import RunRow

EVALUATIONS = 40


@dataclass(frozen=True)
class Truth:
    peak: float = 95.0
    curvature: float = 0.5
    noise: float = 0.05
    g_best: float = 20.0
    sharpness: float = 4.0
    halving: float = 2_000.0
    b_crit: float = 128.0
    accuracy_power: float = 0.0
    loss_power: float = 0.0
    reference_epochs: int = 30

    def limit(self, momentum=0.0):
        return 2 * (1 + momentum) / self.sharpness

    def transition(self, *, train_size, momentum=0.0):
        """The batch where the best learning rate meets the stability limit."""
        return self.limit(momentum) / (1 - momentum) * train_size / self.g_best

    def best_batch(self, *, lr, train_size, momentum=0.0):
        return lr / (1 - momentum) * train_size / self.g_best


def record(truth, *, batch_size, lr, momentum=0.0, train_size=1_000, seed=0, epochs=30, validation=True):
    """One run; noise depends on every number that names it."""
    name = f"{batch_size}/{lr}/{momentum}/{train_size}/{epochs}"
    rng = np.random.default_rng(stream(seed, f"known sweep {name}"))
    samples = epochs * train_size
    steps = epochs * -(-train_size // batch_size)
    kicks = truth.noise * rng.standard_normal(3)
    longer = epochs / truth.reference_epochs
    g = lr / (1 - momentum) * train_size / batch_size
    off = np.log2(g / (truth.g_best * longer**truth.accuracy_power))
    final = truth.peak - truth.curvature * off**2
    loss_off = np.log2(g / (truth.g_best * longer**truth.loss_power))
    common = {
        "batch_size": batch_size,
        "lr": lr,
        "momentum": momentum,
        "train_size": train_size,
        "seed": seed,
        "budget": f"{epochs} epochs",
        "budget_kind": "epochs",
        "budget_size": epochs,
        "steps": steps,
        "samples": samples,
        "seconds": 1e-5 * samples,
    }
    if lr > truth.limit(momentum) * (1 + 1e-9):
        return RunRecord(**common, outcome="diverged", reason="the loss was not finite", steps_to_target=None)
    seen = np.linspace(0, samples, EVALUATIONS + 1)
    half = truth.halving * (1 + batch_size / truth.b_crit) * (1 + 0.25 * off**2)
    test_loss = 0.1 + 2.2 * 2 ** (-seen / half) * np.exp(0.02 * kicks[0])
    rise = (1 - 2 ** (-seen / half)) / (1 - 2 ** (-samples / half))
    accuracy = 10 + (final - 10) * rise
    train_loss = 2.3 * (0.01 * (1 + 0.2 * loss_off**2) * np.exp(0.2 * kicks[1]) / 2.3) ** (seen / samples)
    history = tuple(
        {
            "step": round(steps * i / EVALUATIONS),
            "samples": float(seen[i]),
            "train_loss": float(train_loss[i]),
            "train_accuracy": 100.0,
            "test_loss": float(test_loss[i]),
            "test_accuracy": float(accuracy[i] + kicks[0]),
            "validation_loss": float(test_loss[i]) if validation else None,
            "validation_accuracy": float(accuracy[i] + kicks[2]) if validation else None,
        }
        for i in range(EVALUATIONS + 1)
    )
    finals = {name: value for name, value in history[-1].items() if name not in {"step", "samples"}}
    return RunRecord(**common, **finals, history=history)


def sweep(truth, *, batches, lrs, momenta=(0.0,), train_sizes=(1_000,), seeds=5, epochs=(30,), validation=True):
    """A full grid; a momentum's learning rates are scaled so that its effective rates are those of the grid."""
    return [
        record(
            truth,
            batch_size=batch,
            lr=lr * (1 - momentum),
            momentum=momentum,
            train_size=size,
            seed=seed,
            epochs=budget,
            validation=validation,
        )
        for seed in range(seeds)
        for budget in epochs
        for size in train_sizes
        for momentum in momenta
        for batch in batches
        if batch <= size
        for lr in lrs
    ]


def doubling(first, last):
    """first, 2 first, 4 first, ... up to last."""
    found = [first]
    while found[-1] * 2 <= last * (1 + 1e-9):
        found.append(found[-1] * 2)
    return found


def two_regimes(truth=None, **settings):
    """Batch 4 to 512 of 1,000 samples, with and without momentum: the transition of SGD is at batch 25."""
    grid = {"batches": doubling(4, 512), "lrs": doubling(2**-5, 8.0), "momenta": (0.0, 0.9), "seeds": 3}
    return sweep(truth or Truth(), **{**grid, **settings})


def known_document(records=None, **settings):
    """A sweep's document, complete."""
    head = {
        "format": "gengap.sweep/1",
        "title": "A sweep with a known truth",
        "problem": {"name": "known", "data": "formulas", "network": "none", "parameters": 1},
        "command": "gengap sweep ...",
        "environment": {"gengap": "0", "processor": "none"},
    }
    return head | describe_runs(two_regimes() if records is None else records, **settings)


def fill(store, records):
    """Put records into a real store, as a sweep would."""
    for size in {record.train_size for record in records}:
        store.add_problem(f"known-{size}", {"name": "known", "train_samples": size, "test_samples": 1_000})
    for one in records:
        store.add_run(as_row(one), {})


def as_row(one):
    recipe = Recipe(
        lr=one.lr, momentum=one.momentum, batch_size=one.batch_size, budget={"epochs": one.budget_size}, seed=one.seed
    )
    return RunRow(
        key=f"{recipe.key}-{one.train_size}",
        problem=f"known-{one.train_size}",
        recipe=recipe.model_dump(mode="json"),
        outcome=one.outcome,
        step=one.steps or 0,
        reason=one.reason,
        cost={"seconds": one.seconds, "steps": one.steps, "samples": one.samples},
        environment={"gengap": "0"},
        history=one.history,
        created="2026-01-01T00:00:00Z",
    )


def stripped(records):
    """Records as a document keeps them: without histories."""
    return [replace(one, history=()) for one in records]
