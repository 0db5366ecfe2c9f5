# Oracles: data made from known laws; random walks in many dimensions whose distance is known (Brownian motion, and the
# same with a slowed clock); AICc and leave-block-out errors written out for straight lines with numpy.polyfit.
import itertools
import json
import math

import numpy as np
import pytest

from gengap.core.errors import BadInput
from gengap.theory.laws import Law, compare_laws, effective_number, judge

T = np.geomspace(10, 1e4, 30)
MADE = {
    "log law": 2 + np.log(T),
    "power law": T**0.3,
}


def by_name(found):
    return {law.name: law for law in found.laws}


def walk_distances(clock, dimension, seed):
    """Distance from the start of a Gaussian walk that is at time clock(t) when t updates are done."""
    rng, position, before, distances = np.random.default_rng(seed), np.zeros(dimension), 0.0, []
    for now in clock:
        position += math.sqrt(now - before) * rng.normal(size=dimension)
        distances.append(np.linalg.norm(position))
        before = now
    return np.array(distances)


@pytest.mark.parametrize("name", MADE)
def test_exact_data(name):
    found = compare_laws(T, MADE[name])
    assert found.verdict == name
    assert found.laws[0].name == name
    assert (found.laws[0].aicc, found.laws[0].r_squared) == (0, pytest.approx(1, abs=1e-12))
    assert (found.difference > 100) == (name == "log law")
    assert found.laws[0].prediction_error < 1e-6 < found.laws[1].prediction_error


@pytest.mark.parametrize(("name", "slope"), [("square root", 0.5), ("linear", 1.0)])
def test_clocks_with_an_offset_are_neither(name, slope):
    found = compare_laws(T, 50 + T**slope)
    assert found.verdict == "neither"
    assert found.laws[0].name == name
    assert found.laws[0].formula in found.reason


def test_the_verdict_is_hardly_ever_wrong():
    """Noise from none to as large as the difference: at most 3 wrong verdicts in 150, and few that decline when it is small."""
    rng = np.random.default_rng(0)
    right = {0.05: 0, 0.2: 0, 1.0: 0}
    wrong = 0
    for noise in right:
        for name, exact in MADE.items():
            for _ in range(25):
                verdict = compare_laws(T, exact + noise * rng.normal(size=len(T))).verdict
                right[noise] += verdict == name
                wrong += verdict not in {name, "not resolvable"}
    assert wrong <= 3
    assert right[0.05] == 50
    assert right[0.05] >= right[0.2] > right[1.0]


def test_correlated_noise_weakens_the_verdict():
    """Residuals that remember count for fewer points than there are."""
    rng = np.random.default_rng(1)
    t = np.geomspace(10, 1e4, 100)
    kicks = rng.normal(size=(30, len(t)))
    slow = np.zeros_like(kicks)
    for i in range(len(t)):
        slow[:, i] = 0.9 * slow[:, i - 1] + math.sqrt(1 - 0.81) * kicks[:, i]
    verdicts = {
        label: [compare_laws(t, 2 + np.log(t) + 0.3 * noise) for noise in errors]
        for label, errors in {"white": kicks, "slow": slow}.items()
    }
    assert np.mean([f.effective_n for f in verdicts["white"]]) > 70
    assert np.mean([f.effective_n for f in verdicts["slow"]]) < 25
    assert sum(f.verdict not in {"log law", "not resolvable"} for f in verdicts["slow"]) <= 2
    decided = {label: sum(f.verdict == "log law" for f in found) for label, found in verdicts.items()}
    assert decided["white"] >= 28
    assert decided["slow"] < 12


def test_trajectories_that_remember_are_rarely_judged_wrong_and_often_judged():
    """Autoregressive noise of 2 and 5 % of the range on 20 and 60 points of one trajectory: 320 verdicts."""
    rng, verdicts = np.random.default_rng(5), []
    for n, rho, noise in itertools.product((20, 60), (0.5, 0.8), (0.02, 0.05)):
        t = np.geomspace(10, 1e4, n)
        for name, exact in {"log law": 2 + np.log(t), "power law": 2 * t**0.3}.items():
            for _ in range(20):
                kicks = rng.normal(size=n)
                errors = kicks.copy()
                for i in range(1, n):
                    errors[i] = rho * errors[i - 1] + math.sqrt(1 - rho**2) * kicks[i]
                found = compare_laws(t, exact + noise * np.ptp(exact) * errors).verdict
                verdicts.append((noise, found == name, found not in {name, "not resolvable"}))
    little = [right for noise, right, _ in verdicts if noise < 0.03]
    assert np.mean([wrong for *_, wrong in verdicts]) < 0.05
    assert np.mean(little) > 0.75
    assert not any(wrong for noise, _, wrong in verdicts if noise < 0.03)
    assert np.mean([right for noise, right, _ in verdicts if noise > 0.03]) > 0.4


@pytest.mark.parametrize(("n", "rho"), [(60, 0.6), (200, 0.3), (200, 0.6)])
def test_how_many_points_correlated_residuals_are_worth(n, rho):
    """The residuals of a line through an autoregression: the median of 200 is within 8 % of n (1 - rho) / (1 + rho)."""
    kicks = np.random.default_rng(4).normal(size=(200, n))
    errors = kicks.copy()
    for i in range(1, n):
        errors[:, i] = rho * errors[:, i - 1] + math.sqrt(1 - rho**2) * kicks[:, i]
    x = np.arange(n)
    found = [effective_number(e - np.polyval(np.polyfit(x, e, 1), x)) for e in errors]
    assert np.median(found) == pytest.approx(n * (1 - rho) / (1 + rho), rel=0.08)


def law(name, aicc, prediction_error):
    return Law(name, f"the formula of the {name}", 0.9, 1.0, aicc, prediction_error)


@pytest.mark.parametrize(
    ("power", "power_misses", "square_root", "verdict", "words"),
    [
        (6.1, 2.0, 50.0, "log law", "predicts unseen blocks to 1, the power law to 2"),
        (6.1, 0.9, 50.0, "not resolvable", "the two disagree"),
        (5.9, 2.0, 50.0, "not resolvable", "a difference of 6 would decide"),
        (6.1, 2.0, -6.1, "neither", "the formula of the square root has an AICc lower by 6.1 than the log law"),
        (6.1, 2.0, -5.9, "log law", "the log law has an AICc lower by 6.1"),
    ],
)
def test_how_the_verdict_is_reached(power, power_misses, square_root, verdict, words):
    """The log law at 0, before the best law is put there."""
    lowest = min(0.0, power, square_root)
    laws = [
        law("log law", -lowest, 1.0),
        law("power law", power - lowest, power_misses),
        law("square root", square_root - lowest, 0.5),
    ]
    found, reason, difference = judge({each.name: each for each in laws}, min(laws, key=lambda each: each.aicc))
    assert (found, difference) == (verdict, pytest.approx(power))
    assert words in reason


@pytest.mark.parametrize("seed", range(3))
def test_brownian_motion_goes_as_the_square_root(seed):
    found = compare_laws(T, walk_distances(T, 2000, seed))
    assert found.verdict == "power law"
    exponent = float(by_name(found)["power law"].formula.split("^")[1])
    assert exponent == pytest.approx(0.5, abs=0.03)
    assert by_name(found)["square root"].aicc < 10 < by_name(found)["log law"].aicc


@pytest.mark.parametrize("seed", range(3))
def test_a_walk_whose_clock_is_the_squared_logarithm_goes_as_the_logarithm(seed):
    found = compare_laws(T, walk_distances(np.log(T) ** 2, 2000, seed))
    assert found.verdict == "log law"
    assert by_name(found)["power law"].aicc == found.difference + by_name(found)["log law"].aicc


def test_the_numbers_written_out():
    d = 2 + np.log(T) + 0.2 * np.random.default_rng(2).normal(size=len(T))
    found = compare_laws(T, d)
    laws = by_name(found)
    for name, clock in {"log law": np.log(T), "square root": np.sqrt(T), "linear": T}.items():
        slope, level = np.polyfit(clock, d, 1)
        assert laws[name].rss == pytest.approx(((d - slope * clock - level) ** 2).sum(), rel=1e-9)
        assert laws[name].aicc == pytest.approx(
            found.effective_n * math.log(laws[name].rss / found.laws[0].rss), rel=1e-9
        )
        misses = []
        for start in range(0, 30, 6):
            rest = np.r_[0:start, start + 6 : 30]
            misses += list(
                d[start : start + 6] - np.polyval(np.polyfit(clock[rest], d[rest], 1), clock[start : start + 6])
            )
        assert laws[name].prediction_error == pytest.approx(math.sqrt(np.mean(np.square(misses))), rel=1e-9)
    # equal numbers of coefficients: the corrections of AICc cancel
    n, k = len(T), 3
    aicc = {name: n * math.log(law.rss / n) + 2 * k + 2 * k * (k + 1) / (n - k - 1) for name, law in laws.items()}
    assert sorted(aicc, key=aicc.get) == [law.name for law in found.laws]
    assert found.difference == laws["power law"].aicc - laws["log law"].aicc


def test_several_runs_at_the_same_steps():
    rng = np.random.default_rng(3)
    steps = np.tile(np.geomspace(10, 1e4, 12), 5)
    found = compare_laws(steps, 2 + np.log(steps) + 0.05 * rng.normal(size=60))
    assert (found.verdict, found.n) == ("log law", 60)


def test_too_few_points_is_an_outcome():
    for n in (0, 1, 9):
        found = compare_laws(T[:n], T[:n])
        assert (found.verdict, found.difference, found.laws) == ("too few points", None, ())
        assert str(found) == f"too few points: {n} distinct steps; at least 10 are needed"
    assert compare_laws(np.repeat(T[:9], 2), np.repeat(T[:9], 2)).verdict == "too few points"


def test_a_distance_that_stands_still():
    found = compare_laws(T, np.ones_like(T))
    assert (found.verdict, found.reason) == ("not resolvable", "the distance is 1 at every step")


def test_the_record_is_json():
    told = json.loads(json.dumps(compare_laws(T, T**0.3).to_dict(), allow_nan=False))
    assert told["verdict"] == "power law"
    assert {law["name"] for law in told["laws"]} == {"log law", "power law", "square root", "linear"}


def test_refuses_with_a_sentence():
    with pytest.raises(BadInput, match="steps holds 0, which has no logarithm"):
        compare_laws(np.arange(20), np.arange(20))
