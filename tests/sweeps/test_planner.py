"""The planner. Oracle: costs that are made up, for which the fastest way is counted out by hand or by trying all ways."""

import itertools
import sys
from types import SimpleNamespace

import pytest
import torch
from sweep_problems import blobs

import gengap
from gengap.core.events import Message
from gengap.sweeps import option_timing, planner
from gengap.sweeps.option_timing import short_pack, time_fleet, time_solo
from gengap.sweeps.packing import kind_of, makespan, parted
from gengap.sweeps.plan import Task, run_key
from gengap.sweeps.planner import Choice, choose, groups_of, packs_of
from gengap.sweeps.short_runs import Costs
from gengap.sweeps.side_by_side import SideBySide, can_spawn, side_by_side
from gengap.sweeps.work import Pack, make

CPU = torch.device("cpu")


def tasks(problem, *, seeds=64, batches=(8,), steps=2000, **fields):
    recipes = [
        gengap.Recipe(**{"lr": 0.1, "batch_size": b, "budget": {"steps": steps}, "seed": s, **fields}).resolved(40)
        for s in range(seeds)
        for b in batches
    ]
    return [Task(run_key(problem, recipe), recipe) for recipe in recipes]


@pytest.fixture
def made_up(monkeypatch):
    """Let updates cost what a function of (batch, members) says, and workers slow each other down by a factor, or not be."""

    def set_up(update, slow=None, start=1.0):
        seen = []

        def fleet(problem, recipes, device):
            seen.append((int(recipes[0].batch_size), len(recipes)))
            return Costs(update(*seen[-1]), 0.0)

        def workers(packs, count):
            seen.append(("workers", count))
            per_update = [slow * update(int(p.tasks[0].recipe.batch_size), len(p.tasks)) for p in packs] if slow else []
            return SideBySide(start, tuple(per_update)) if slow else None

        monkeypatch.setattr(planner, "time_fleet", fleet)
        monkeypatch.setattr(planner, "time_solo", lambda problem, recipe, device: fleet(problem, [recipe], device))
        monkeypatch.setattr(planner, "side_by_side", workers)
        return seen

    return set_up


def overheads(batch, members):
    """1 ms to call the operations of an update, shared out, and 2 us of arithmetic for each sample."""
    return 1e-3 / members + 2e-6 * batch


def arithmetic(batch, members):
    """Stacked weights leave the cache: a fleet is slower than its members alone."""
    return 1e-3 if members == 1 else 1.5e-3


def test_tiny_networks_are_trained_in_fleets(made_up):
    made_up(overheads)
    problem = blobs()
    runs = tasks(problem)
    choice = choose(problem, runs, workers=1)
    assert (choice.form, choice.workers, choice.fleet_size) == ("fleet", 1, 64)
    assert "64 runs take about 4.05 s" in choice.why  # 64 x 2000 x (1e-3 / 64 + 1.6e-5)
    assert "against 130 s one run after the other in this process" in choice.why
    assert [(form, len(part)) for form, part in groups_of(problem, runs, choice)] == [("fleet", 64)]


def test_networks_that_are_arithmetic_are_trained_alone(made_up):
    seen = made_up(arithmetic)
    problem = blobs()
    runs = tasks(problem)
    choice = choose(problem, runs, workers=1)
    assert (choice.form, choice.workers, choice.fleet_size) == ("solo", 1, 1)
    # one, to see whether it is worth planning; sizes until two measurements of one are no faster; what is close once more
    assert [members for _, members in seen] == [1, 1, 4, 16, 16, 1]
    assert groups_of(problem, runs, choice) == [("solo", (task,)) for task in runs]


def test_one_slow_measurement_does_not_decide(made_up):
    """The machine is busy with something else while the fleet of 16 is timed for the first time."""
    times = []

    def update(batch, members):
        times.append(members)
        return 1.0 if times.count(16) == 1 and members == 16 else overheads(batch, members)

    made_up(update)
    assert choose(blobs(), tasks(blobs()), workers=1).fleet_size == 64


def test_slow_updates_are_not_tried_in_fleets(made_up):
    seen = made_up(lambda batch, members: 0.1)
    choose(blobs(), tasks(blobs()), workers=1)
    assert {members for _, members in seen} == {1}


@pytest.mark.parametrize(("slow", "chosen"), [(1.1, 2), (1.98, 1), (None, 1)])
def test_processes_are_taken_where_they_do_not_hold_each_other_up(made_up, slow, chosen):
    made_up(arithmetic, slow)
    choice = choose(blobs(), tasks(blobs()), workers=2)
    assert (choice.form, choice.workers) == ("solo", chosen)


def test_fleets_in_several_processes(made_up):
    made_up(overheads, 1.0)
    problem = blobs()
    runs = tasks(problem, seeds=128, steps=50_000)
    choice = choose(problem, runs, workers=2)
    assert (choice.form, choice.workers, choice.fleet_size) == ("fleet", 2, 64)
    assert len(packs_of(problem, runs, choice)) == 2


def test_one_fleet_is_parted_where_each_process_is_to_have_one(made_up):
    """64 runs in two fleets of 16 at once and then two more take less long than 64 in one."""
    made_up(lambda batch, members: 1e-3 / members**0.1 if members > 1 else 1.0e-3, 1.0)
    choice = choose(blobs(), tasks(blobs(), steps=50_000), workers=2)
    assert (choice.form, choice.workers, choice.fleet_size) == ("fleet", 2, 16)


def test_what_starting_processes_costs_counts(made_up):
    made_up(arithmetic, 1.0, start=1000.0)
    assert choose(blobs(), tasks(blobs()), workers=2).workers == 1


def test_short_sweeps_are_not_timed_but_for_one_run(made_up):
    seen = made_up(overheads)
    choice = choose(blobs(), tasks(blobs(), seeds=4, steps=20))
    assert (choice.form, choice.workers, choice.timings) == ("solo", 1, ())
    assert seen == [(8, 1)]
    assert "too short to plan" in choice.why


def test_what_is_hardly_faster_is_not_taken(made_up):
    made_up(lambda batch, members: 1e-3 if members == 1 else 0.97e-3)
    assert choose(blobs(), tasks(blobs()), workers=1).form == "solo"


def test_each_batch_size_is_made_in_its_own_way(made_up):
    made_up(lambda batch, members: overheads(8, members) if batch == 4 else arithmetic(batch, members))
    problem = blobs()
    runs = tasks(problem, batches=(4, 40), seeds=20)
    choice = choose(problem, runs, workers=1)
    groups = groups_of(problem, runs, choice)
    assert [(form, len(part)) for form, part in groups] == [("fleet", 20)] + [("solo", 1)] * 20
    assert {int(task.recipe.batch_size) for task in groups[0][1]} == {4}


def test_runs_that_can_be_in_no_fleet_are_alone(made_up):
    made_up(overheads)
    problem = blobs()
    runs = tasks(problem, method="sam") + tasks(problem)
    choice = choose(problem, runs, workers=1)
    parts = groups_of(problem, runs, choice)
    assert sorted(len(part) for _, part in parts) == [1] * 64 + [64]
    assert all(task.recipe.method is None for form, part in parts if form == "fleet" for task in part)


def test_a_fleet_that_does_not_fit_the_memory_is_not_chosen(made_up, monkeypatch):
    made_up(overheads)
    whole = planner.time_fleet

    def limited(problem, recipes, device):
        if len(recipes) > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(problem, recipes, device)

    monkeypatch.setattr(planner, "time_fleet", limited)
    assert choose(blobs(), tasks(blobs()), workers=1).fleet_size == 16


def test_the_choice_is_the_fastest_of_all_ways(made_up):
    """All ways tried by brute force, for costs of three batch sizes drawn at random."""
    rng = torch.Generator().manual_seed(0)
    problem = blobs()
    runs = tasks(problem, seeds=16, batches=(4, 8, 20), steps=20_000)
    for _ in range(12):
        costs = {
            key: float(torch.rand((), generator=rng)) * 2e-3 + 1e-4 for key in itertools.product((4, 8, 20), (1, 4, 16))
        }
        slow = 1 + float(torch.rand((), generator=rng))
        made_up(lambda batch, members, costs=costs: costs[batch, members], slow, start=2.0)
        choice = choose(problem, runs, workers=2)
        found = seconds(packs_of(problem, runs, choice), costs, choice.workers, slow)
        ways = [
            seconds(packs(runs, dict(zip((4, 8, 20), sizes, strict=True))), costs, count, slow)
            for sizes in itertools.product((1, 4, 16), repeat=3)
            for count in (1, 2)
        ]
        assert found <= 1.02 * min(ways) * planner.GAIN


def packs(runs, sizes):
    return [
        Pack(None, part, "fleet" if size > 1 else "solo")
        for batch, size in sizes.items()
        for part in parted([task for task in runs if task.recipe.batch_size == batch], size)
    ]


def seconds(packs, costs, workers, slow):
    """When the last is done, the longest first."""
    loads = [20_000 * len(p.tasks) * costs[p.tasks[0].recipe.batch_size, len(p.tasks)] for p in packs]
    return makespan(loads, 1) if workers == 1 else 2.0 + slow * makespan(loads, workers)


def test_the_last_is_done_when_all_workers_are_free():
    assert makespan([3, 1, 1, 1, 2], 2) == 4  # 3 + 1 beside 2 + 1 + 1
    assert makespan([5, 3, 3, 3], 2) == 8
    assert makespan([3, 1, 1, 1, 2], 1) == 8
    assert makespan([2.5], 4) == 2.5


@pytest.mark.parametrize(("runs", "size"), [(64, 64), (65, 64), (10, 4), (3, 16), (1, 1), (0, 4)])
def test_parts_are_as_few_and_as_equal_as_can_be(runs, size):
    parts = parted(range(runs), size)
    assert [run for part in parts for run in part] == list(range(runs))
    assert len(parts) == -(-runs // size)
    lengths = [len(part) for part in parts]
    assert not lengths or max(lengths) - min(lengths) <= 1


def test_it_is_said():
    told = []
    choice = choose(blobs(), tasks(blobs(), seeds=2, steps=5), listen=told.append)
    assert told == [Message(choice.why)]
    assert choice.to_dict()["form"] == "solo"
    assert choose(blobs(), []).why == "there are no runs to make"


def test_packs_are_made_as_chosen():
    problem = blobs()
    runs = tasks(problem, seeds=5, steps=12)
    name, able = kind_of(problem, runs[0])
    assert able
    choice = Choice("fleet", 1, 3, "", sizes={name: 3})
    packs = packs_of(problem, runs, choice, evaluations=2, weights=False)
    rows = {made.row.key: made.row for pack in packs for made in make(pack)}
    assert [len(pack.tasks) for pack in packs] == [2, 3]
    for task in runs:
        alone = gengap.train(problem, task.recipe, evaluations=2).final
        assert rows[task.key].history[-1]["train_loss"] == pytest.approx(alone.train_loss, rel=1e-4)


def test_updates_are_timed_without_a_divergence(monkeypatch):
    monkeypatch.setattr(option_timing, "SECONDS", 0.01)
    problem = blobs()
    recipe = tasks(problem, lr=1e30, warmup={"epochs": 1})[0].recipe
    ended = []
    real = option_timing.train
    monkeypatch.setattr(option_timing, "train", lambda *a, **k: ended.append(real(*a, **k)) or ended[-1])
    alone, together = (
        time_solo(problem, recipe, CPU),
        time_fleet(problem, [recipe.changed(seed=s) for s in range(8)], CPU),
    )
    assert {run.outcome.kind for run in ended} == {"finished"}
    for costs in (alone, together):
        assert costs.update > 0
        assert costs.evaluation > 0
        assert costs.per_run(recipe, 40, 20) == pytest.approx(2000 * costs.update + 21 * costs.evaluation)


def test_workers_that_meet_rarely_are_timed_too(monkeypatch):
    monkeypatch.setattr(option_timing, "SECONDS", 0.01)
    method = {"name": "elastic-averaging", "workers": 2, "period": 1000}
    assert time_solo(blobs(), tasks(blobs(), method=method)[0].recipe, CPU).update > 0


@pytest.mark.slow
def test_processes_at_once_are_timed():
    problem = blobs()
    recipe = tasks(problem)[0].recipe
    alone = Costs(1e-3, 0.0)
    found = side_by_side([short_pack(problem, recipe, alone, members=k) for k in (1, 3)], 2)
    assert found is not None
    assert found.start > 0
    assert all(seconds > 0 for seconds in found.per_update)


def test_what_cannot_travel_is_not_timed_in_processes():
    problem = gengap.Problem(
        model=lambda: torch.nn.Linear(3, 2), loss="cross_entropy", train=blobs().train, test=blobs().test
    )
    pack = short_pack(problem, tasks(problem)[0].recipe, Costs(1e-3, 0.0), members=1)
    assert side_by_side([pack], 2) is None


@pytest.mark.parametrize(("guard", "expected"), [("if True:", False), ("if __name__ == '__main__':", True)])
def test_scripts_without_a_guard_are_not_run_again(tmp_path, monkeypatch, guard, expected):
    script = tmp_path / "script.py"
    script.write_text(f"{guard}\n    print(3)\n")
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__file__=str(script)))
    assert can_spawn() is expected
