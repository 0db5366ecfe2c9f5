"""gengap.fit from runs to laws. Oracles: sweeps made from formulas whose transition, stability limit, critical batch, best noise
scale and powers of the budget are known (known_sweep.py)."""

import json
import math
from dataclasses import replace

import pytest
from known_sweep import Truth, doubling, fill, known_document, record, stripped, sweep, two_regimes

from gengap.core.errors import BadInput
from gengap.fitting.fit import fit
from gengap.store.store import Store

QUIET = Truth(noise=0.05)


@pytest.fixture(scope="module")
def both():
    return fit(two_regimes(QUIET, batches=doubling(1, 512), lrs=doubling(2**-7, 8.0)))


def group(fits, momentum):
    return next(each for each in fits.groups if each.momentum == momentum)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_transition_is_where_the_stability_limit_is_met(both, momentum):
    found = group(both, momentum).transition
    if momentum:  # at 475, with 512 the largest batch: one point beyond is no fall to speak of
        assert found.verdict in {"not resolvable", "insensitive"}
    else:
        low, high = found.interval
        assert low * 0.9 <= QUIET.transition(train_size=1_000) <= high * 1.1


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_best_rate_is_linear_and_then_stays(both, momentum):
    found = group(both, momentum).rates
    assert found.law == "linear"
    if not momentum:
        assert found.verdict == "transition"
        low, high = found.batch_size.interval
        assert low <= QUIET.transition(train_size=1_000) <= high
        assert found.plateau == pytest.approx(QUIET.limit(), rel=0.2)


def test_sgd_parts_from_momentum_at_its_own_transition(both):
    (found,) = both.momenta
    assert (found.lower, found.higher) == (0.0, 0.9)
    low, high = found.separation.transition.interval
    assert low * 0.9 <= QUIET.transition(train_size=1_000) <= high * 1.1


def test_the_critical_batch_is_that_of_the_truth():
    runs = sweep(
        Truth(noise=0.2, sharpness=0.1, halving=2_000.0), batches=doubling(8, 512), lrs=doubling(2**-4, 16.0), seeds=3
    )
    found = fit(runs, target="test_loss=0.6").to_dict()
    low, high = found["b_crit"]["interval"]
    # straight lines between evaluations read a convex curve half a percent late at the smallest batch
    assert low / 1.02 <= 128 <= high * 1.02
    assert high / low < 3
    # 0.1 + 2.2 2^(-s/2000) = 0.6 at the best learning rate
    low, high = found["e_min"]["interval"]
    assert low * 0.95 <= 2_000 * 2.1375 <= high * 1.05


@pytest.mark.parametrize(
    ("axis", "settings"),
    [
        ("lr", {"lrs": [0.05, 0.1, 0.2, 0.4]}),
        ("train_size", {"lrs": [0.2], "train_sizes": (500, 1_000, 2_000, 4_000)}),
    ],
)
def test_the_best_batch_is_proportional(axis, settings):
    grid = {"batches": doubling(1, 256), "lrs": [0.2], **settings}
    found = fit(sweep(Truth(noise=0.3, sharpness=0.1), **grid)).to_dict()["optimal_batch"][axis]
    assert found["verdict"] == "proportional"
    low, high = found["interval"]
    assert low <= 1 <= high
    constant = {"lr": 1_000 / 20, "train_size": 0.2 / 20}[axis]
    low, high = found["constant"]["interval"]
    assert low <= constant <= high
    assert len(found["points"]) == 4


def test_the_best_batch_goes_as_one_over_one_minus_momentum():
    truth = Truth(noise=0.3, sharpness=0.1)
    # the same base learning rate for all momenta, as in the paper
    runs = [
        record(truth, batch_size=batch, lr=0.1, momentum=momentum, seed=seed)
        for momentum in (0.0, 0.5, 0.75, 0.9)
        for batch in doubling(1, 512)
        for seed in range(5)
    ]
    found = fit(runs).to_dict()["optimal_batch"]["momentum"]
    assert found["verdict"] == "proportional"
    assert [point["x"] for point in found["points"]] == pytest.approx([1, 2, 4, 10])


def test_budgets_that_follow_the_learning_rate_still_make_a_series():
    truth = Truth(noise=0.2, sharpness=0.1)
    runs = [
        one
        for lr, epochs in [(0.1, 40), (0.2, 20), (0.4, 10)]
        for one in sweep(truth, batches=doubling(1, 256), lrs=[lr], epochs=(epochs,), seeds=3)
    ]
    found = fit(runs).to_dict()["optimal_batch"]["lr"]
    assert len(found["points"]) == 3
    assert "budget" not in found["shared"]


def test_a_survivor_of_a_batch_that_diverges_is_no_peak():
    lines = [
        {
            "batch_size": batch,
            "lr": 1.0,
            "seed": seed,
            "train_size": 1_000,
            "test_accuracy": 90 - batch / 8 + 0.01 * seed,
        }
        for batch in (4, 8, 16, 32)
        for seed in range(3)
    ]
    lines += [{**lines[0], "batch_size": 2, "seed": s, "outcome": "diverged", "test_accuracy": None} for s in (0, 1)]
    lines += [{**lines[0], "batch_size": 2, "seed": 2, "test_accuracy": 99.0}]
    (series,) = [
        each for each in fit([*lines, *({**line, "lr": 0.5} for line in lines)]).optimal_batch if each.axis == "lr"
    ]
    assert [(point.peak.batch_size, point.peak.bar, point.peak.verdict) for point in series.points] == [
        (4.0, (2.0, 8.0), "peak")
    ] * 2


def test_the_two_best_rates_have_each_its_power_of_the_budget():
    truth = Truth(noise=0.02, sharpness=0.01, accuracy_power=-1 / 7, loss_power=-4 / 7, reference_epochs=10)
    runs = sweep(truth, batches=[16], lrs=doubling(2**-7, 8.0), epochs=(10, 20, 40, 80, 160, 320, 640, 1_280), seeds=2)
    (found,) = fit(runs).to_dict()["optimal_lr"]
    for name, power in [("metric", -1 / 7), ("train_loss", -4 / 7)]:
        low, high = found[name]["interval"]
        assert low <= power <= high
        low, high = found[name]["fold"]["interval"]
        assert low <= 128**power <= high
    assert found["train_loss"]["interval"][1] < found["metric"]["value"]


def test_the_same_from_store_folder_document_file_and_records(tmp_path):
    runs = two_regimes(QUIET, batches=doubling(4, 128), lrs=doubling(2**-5, 2.0), momenta=(0.0,))
    with Store(tmp_path / "store") as store:
        fill(store, runs)
        first = fit(store).to_dict()
    assert fit(tmp_path / "store").to_dict() == first
    assert fit(runs).to_dict() == first
    document = json.loads(json.dumps(known_document(runs)))
    assert document["fits"] == json.loads(json.dumps(first))
    (tmp_path / "sweep.json").write_text(json.dumps(document))
    again = fit(tmp_path / "sweep.json").to_dict()
    assert again["b_crit"] == first["b_crit"]
    assert again["regimes"] == first["regimes"]


def test_keys_that_stay_are_each_an_estimate_or_a_reason():
    for fits in (fit(two_regimes(QUIET)), fit(sweep(QUIET, batches=[8], lrs=[0.1], seeds=1))):
        found = fits.to_dict()
        json.dumps(found, allow_nan=False)
        for name in ("b_crit", "e_min", "lr_exponent", "regimes"):
            assert found[name]["reason"]
            assert found[name]["value"] is None or found[name]["interval"] is not None
        for axis in ("lr", "train_size", "momentum"):
            assert "value" in found["optimal_batch"][axis]


def test_without_histories_there_is_no_target_and_the_rest_is_there():
    fits = fit(stripped(two_regimes(QUIET)))
    assert fits.target is None
    assert fits.to_dict()["b_crit"]["value"] is None
    assert "no history" in fits.to_dict()["b_crit"]["reason"]
    assert fits.groups[0].transition.n


def test_a_grid_that_is_cut_off_is_told():
    fits = fit(sweep(QUIET, batches=doubling(8, 128), lrs=[0.05, 0.1], seeds=2))
    assert any("edge of their grid" in sentence for sentence in fits.unresolved)


def test_selection_on_the_test_set_is_told():
    fits = fit(two_regimes(QUIET, validation=False))
    assert fits.selection == "test"
    assert fits.unresolved[-1].startswith("The best learning rates were selected on the test set")


def test_runs_with_other_fields_stay_apart():
    plain = [replace(run, shared={"weight_decay": 0.0}) for run in two_regimes(QUIET, momenta=(0.0,))]
    decayed = [replace(run, shared={"weight_decay": 0.1}) for run in plain]
    names = {each.optimizer for each in fit([*plain, *decayed]).groups}
    assert names == {"sgd, weight_decay 0.0", "sgd, weight_decay 0.1"}


def test_it_prints_answers_and_then_what_is_open(both):
    text = str(both)
    assert text.index("Regimes:") < text.index("What could not be concluded")
    assert all(sentence.endswith(".") for sentence in both.answers + both.unresolved)


def test_what_cannot_be_fitted_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no runs"):
        fit([])
    with pytest.raises(BadInput, match="holds no results"):
        fit(tmp_path)
    (tmp_path / "x.json").write_text("[")
    with pytest.raises(BadInput, match="not a JSON document"):
        fit(tmp_path / "x.json")


def test_what_allows_several_laws_is_no_answer_and_a_plateau_is_one():
    """Three budgets on a coarse grid allow every power; the best rate of one seed has a plateau whatever the power before it."""
    budgets = sweep(
        Truth(noise=0.02, sharpness=0.01), batches=[16], lrs=doubling(2**-7, 8.0), epochs=(10, 20, 40), seeds=1
    )
    found = fit(budgets)
    assert not any(sentence.startswith("Best learning rate") for sentence in found.answers)
    assert sum(sentence.startswith("Best learning rate") for sentence in found.unresolved) == 2
    lines = [
        {"batch_size": batch, "lr": lr, "test_accuracy": 90 - abs(math.log2(lr / min(batch / 32, 4)))}
        for batch in (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
        for lr in (0.125, 0.25, 0.5, 1, 2, 4, 8, 16)
    ]
    found = fit(lines)
    assert found.groups[0].rates.verdict == "transition"
    assert any(sentence.startswith("Learning rate: ") and "stays at" in sentence for sentence in found.answers)
