"""Problems that go to other processes, and what every engine must do with them."""

import os
import signal
from pathlib import Path

import torch
from sweep_problems import blobs, net, points
from torch.nn import functional

import gengap
from gengap.core.events import Progress
from gengap.sweeps.plan import Task, run_key
from gengap.sweeps.work import Pack

EPOCHS = {"epochs": 2}


def packed(problem, recipes, size=2, spec=None, **fields):
    """Packs of so many runs, in order."""
    samples = len(problem.samples("train"))
    tasks = [Task(run_key(problem, r), r) for r in (recipe.resolved(samples) for recipe in recipes)]
    shares = [tuple(tasks[i : i + size]) for i in range(0, len(tasks), size)]
    return [Pack(spec or problem, share, evaluations=2, **fields) for share in shares]


def digits_packs():
    """Four runs in two packs, on a problem of the catalogue."""
    recipes = [gengap.Recipe(lr=0.1, batch_size=b, seed=s, budget=EPOCHS) for b in (8, 32) for s in (0, 1)]
    return packed(gengap.load("digits", network="mlp", train_size=64), recipes)


class Counted:
    """A loss that writes down every update, fails at one batch size and kills its process at another."""

    def __init__(self, log, fails=None, kills=None):
        self.log, self.fails, self.kills = str(log), fails, kills

    def __call__(self, outputs, targets):
        size = len(targets)
        if outputs.requires_grad:
            with Path(self.log).open("a") as file:
                file.write(f"{size} {os.getpid()}\n")
            if size == self.fails:
                raise RuntimeError("this batch\nis wrong")
            if size == self.kills:
                os.kill(os.getpid(), signal.SIGKILL)
        return functional.cross_entropy(outputs, targets)

    def sizes(self):
        """How many updates there were of each batch size."""
        found = [int(line.split()[0]) for line in Path(self.log).read_text().splitlines()]
        return {size: found.count(size) for size in found}


def counted_packs(loss, steps):
    """One pack, with a run of so many updates for each batch size."""
    recipes = [gengap.Recipe(lr=0.1, batch_size=size, budget={"steps": count}) for size, count in steps.items()]
    return packed(blobs(loss=loss), recipes, size=len(recipes))


def by_process():
    """Another problem in every process."""
    return gengap.Problem(
        model=net, loss="cross_entropy", train=points(40, os.getpid()), test=points(30, 1), name="own"
    )


def check_digits(engine):
    """Every run comes out once, with the same bits as alone; the progress ends with all."""
    packs, kept, said = digits_packs(), [], []
    engine.run(packs, kept.append, said.append)
    tasks = {task.key: task for pack in packs for task in pack.tasks}
    assert sorted(made.row.key for made in kept) == sorted(tasks)
    for made in kept:
        alone = gengap.train(packs[0].problem, tasks[made.row.key].recipe, evaluations=2)
        assert (made.row.outcome, made.row.step, made.row.problem) == (
            "finished",
            alone.cost.steps,
            packs[0].problem.fingerprint,
        )
        assert made.row.recipe == alone.recipe.model_dump(mode="json")
        for point, own in zip(made.row.history, alone.history, strict=True):
            assert {k: v for k, v in point.items() if k != "seconds"} == {
                k: v for k, v in own.to_dict().items() if k != "seconds"
            }
        for which, part in (("final", alone.params), ("initial", alone.initial_params), ("buffers", alone.buffers)):
            assert {name: torch.from_numpy(x).tolist() for name, x in made.weights[which].items()} == {
                name: x.tolist() for name, x in part.items()
            }
    done = [(event.done, event.total, event.unit) for event in said if isinstance(event, Progress)]
    assert done[-1] == (4, 4, "runs")
    assert [d for d, _, _ in done] == sorted(d for d, _, _ in done)


def check_failing(engine, log):
    """A run that raises an error is a failed run, once; the others of its pack go on."""
    loss, kept = Counted(log, fails=20), []
    engine.run(counted_packs(loss, {4: 1, 20: 1, 5: 1}), kept.append)
    assert {made.row.recipe["batch_size"]: (made.row.outcome, made.row.reason) for made in kept} == {
        4: ("finished", ""),
        20: ("failed", "RuntimeError: this batch"),
        5: ("finished", ""),
    }
    assert loss.sizes() == {4: 1, 20: 1, 5: 1}
    assert [made.weights == {} for made in kept] == [made.row.outcome == "failed" for made in kept]
