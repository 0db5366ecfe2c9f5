"""Tables and documents of sweeps. Oracles: the formulas that the known sweep was made from (known_sweep.py), arithmetic by hand
on small histories, and the numbers put into a real store."""

import json
import math
from statistics import mean, stdev

import pytest
from known_sweep import Truth, doubling, fill, known_document, record, sweep, two_regimes

from gengap.core.errors import BadInput
from gengap.fitting.cells import cells_of, winner
from gengap.fitting.choices import chosen_target
from gengap.fitting.document import describe_runs
from gengap.fitting.table import RunRecord, run_records
from gengap.fitting.target import Target
from gengap.store.store import Store


def history(*accuracies):
    return [{"step": 10 * i, "samples": 320 * i, "test_accuracy": a} for i, a in enumerate(accuracies)]


def test_a_target_is_crossed_on_a_straight_line():
    assert Target("test_accuracy", 60.0).reached(history(10, 50, 90)) == (12.5, 400.0)
    assert Target("test_accuracy", 10.0).reached(history(10, 50)) == (0.0, 0.0)
    assert Target("test_accuracy", 91.0).reached(history(10, 50, 90)) == (None, None)
    assert Target("test_accuracy", 60.0).reached(history(10, None, 90)) == (12.5, 400.0)


def test_the_first_crossing_counts_and_losses_fall():
    falling = [{"step": s, "samples": s, "test_loss": loss} for s, loss in [(0, 2.0), (4, 1.0), (8, 3.0), (12, 0.0)]]
    assert Target("test_loss", 1.5).reached(falling) == (2.0, 2.0)


@pytest.mark.parametrize("text", ["95", "test_accuracy=high", "accuracy=95", "test_loss=nan"])
def test_a_target_that_is_none_is_refused(text):
    with pytest.raises(BadInput):
        Target.parse(text)


def test_a_target_is_read():
    assert Target.parse("test_loss = 0.25") == Target("test_loss", 0.25)


def test_the_best_rate_has_the_grid_around_it_and_divergence_bounds_it():
    truth = Truth(noise=0.0)
    # at batch 50 of 1,000 the best rate would be 1, and the limit is 0.5
    runs = sweep(truth, batches=[50], lrs=[0.125, 0.25, 0.5, 1.0], seeds=2)
    found = winner(runs, "test_accuracy")
    assert (found.best_lr, found.lr_low, found.lr_high, found.at_edge) == (0.5, 0.25, 1.0, False)
    cut = winner([run for run in runs if run.lr <= 0.5], "test_accuracy")
    assert (cut.best_lr, cut.lr_high, cut.at_edge) == (0.5, None, True)


def test_a_rate_at_which_most_runs_diverge_is_not_chosen_for_its_survivor():
    lucky = [RunRecord(8, 1.0, seed=0, test_accuracy=99.0)]
    lucky += [RunRecord(8, 1.0, seed=s, outcome="diverged") for s in (1, 2)]
    steady = [RunRecord(8, 0.5, seed=s, test_accuracy=90.0) for s in range(3)]
    assert winner([*lucky, *steady], "test_accuracy").best_lr == 0.5


def test_cells_follow_the_truth():
    truth = Truth(noise=0.0)
    cells = cells_of(two_regimes(truth), "test_accuracy")
    assert len(cells) == 16
    for cell in cells:
        limit = truth.limit(cell.momentum)
        wanted = min(truth.g_best * cell.batch_size / 1_000 * (1 - cell.momentum), limit)
        assert abs(math.log2(cell.best_lr / wanted)) <= 1  # the grid is coarse
        assert cell.runs == 27
        above = sum(lr * (1 - cell.momentum) > limit * (1 + 1e-9) for lr in doubling(2**-5, 8.0))
        assert cell.diverged == 3 * above


def test_an_estimate_is_over_the_seeds_at_the_best_rate():
    runs = sweep(Truth(noise=0.3), batches=[16], lrs=[0.25, 0.5], seeds=4)
    (cell,) = cells_of(runs, "test_accuracy")
    chosen = [run.test_accuracy for run in runs if run.lr == cell.best_lr]
    assert cell.test_accuracy.value == pytest.approx(mean(chosen), rel=1e-12)
    assert cell.test_accuracy.stdev == pytest.approx(stdev(chosen), rel=1e-9)
    assert cell.test_accuracy.n == 4


def test_runs_that_differ_otherwise_are_not_averaged():
    runs = [RunRecord(8, 0.5, seed=s, test_accuracy=90.0, shared={"weight_decay": s * 0.1}) for s in range(2)]
    with pytest.raises(BadInput, match="weight_decay"):
        cells_of(runs, "test_accuracy")


def test_a_store_gives_the_document_of_its_records(tmp_path):
    runs = two_regimes(batches=[8, 64], lrs=[0.25, 0.5, 1.0], seeds=2)
    with Store(tmp_path) as store:
        fill(store, runs)
        document = describe_runs(run_records(store), target="test_loss=0.2")
    plain = describe_runs(runs, target="test_loss=0.2")
    assert document["selection"] == "validation"
    assert {run["train_size"] for run in document["runs"]} == {1_000}
    assert document["cells"] == plain["cells"]
    for run, one in zip(document["runs"], runs, strict=True):
        accuracies = [point["test_accuracy"] for point in one.history]
        assert run["best_test_accuracy"] == max(accuracies, default=None)
        for name in ("batch_size", "lr", "seed", "train_size", "budget", "steps", "test_loss", "validation_accuracy"):
            assert run[name] == getattr(one, name)
    json.dumps(document, allow_nan=False)


def test_steps_to_target_follow_the_law_of_the_truth():
    truth = Truth(noise=0.0)
    runs = sweep(truth, batches=[8, 16], lrs=[0.16, 0.32], seeds=2)
    document = describe_runs(runs, target="test_loss=0.65")  # 0.1 + 2.2 / 4: two halvings
    for cell in document["cells"]:
        wanted = 2 * truth.halving * (1 + cell["batch_size"] / truth.b_crit)
        # the curve is convex between evaluations 750 samples apart, which the straight line overstates a little
        assert wanted <= cell["samples_to_target"]["value"] <= wanted * 1.01


def test_without_validation_the_document_says_that_the_test_set_chose():
    runs = sweep(Truth(), batches=[8], lrs=[0.25, 0.5], seeds=2, validation=False)
    document = describe_runs(runs, selection="validation")
    assert document["selection"] == "test"
    assert "4 of 4 runs have no validation" in document["selection_note"]
    assert known_document()["selection_note"] == ""


def test_the_default_target_is_what_all_but_the_worst_cells_reach():
    runs = []
    for i, batch in enumerate([1, 2, 4, 8, 16]):
        best = [90.0, 91.0, 92.0, 93.0, 50.0][i]
        runs += [
            RunRecord(batch, 0.1, seed=s, test_accuracy=best, history=tuple(history(10, best + s))) for s in (0, 1)
        ]
    target = chosen_target(runs, "test_accuracy", None)
    assert target.value == 90.0
    assert "4 of 5" in target.origin


def test_a_table_goes_through_json_and_back():
    runs = two_regimes(batches=[8, 64], seeds=2)
    document = json.loads(json.dumps(known_document(runs, target="test_loss=0.3")))
    again = run_records(document)
    assert [one.to_dict() for one in again] == document["runs"]
    with pytest.raises(BadInput, match="no history"):
        run_records(document, target=Target("test_loss", 0.4))


@pytest.mark.parametrize("line", [{"lr": 0.1}, {"batch_size": 8}, {"batch_size": 0, "lr": 0.1}])
def test_a_line_without_its_numbers_is_refused(line):
    with pytest.raises(BadInput, match="positive"):
        run_records([line])


def test_no_runs_and_no_values_are_refused():
    with pytest.raises(BadInput, match="no runs"):
        describe_runs([])
    with pytest.raises(BadInput, match="none of the 1 runs"):
        describe_runs([RunRecord(8, 0.1, outcome="failed")])
    with pytest.raises(BadInput, match="test_accuracy"):
        describe_runs([record(Truth(), batch_size=8, lr=0.1)], metric="accuracy")


def test_a_regression_is_told_by_its_loss():
    runs = [RunRecord(8, lr, seed=s, test_loss=lr, train_loss=lr) for lr in (0.1, 0.2) for s in (0, 1)]
    document = describe_runs(runs)
    assert document["metric"] == "test_loss"
    assert document["cells"][0]["best_lr"] == 0.1
