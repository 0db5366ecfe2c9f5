"""Where accuracy begins to fall with batch size, and where SGD parts from momentum. Oracles: simulated accuracies whose
transition, shape and noise are known; coverage and false alarms counted over simulations against binomial bounds fixed
beforehand; the exact least-squares line of numpy for the fits at a given knot."""

import numpy as np
import pytest
from scipy import stats

from gengap.core.errors import BadInput
from gengap.theory.broken_line import contrasts, hinges
from gengap.theory.regimes import find_separation, find_transition
from gengap.theory.seed_table import seed_table

SIZES = 2.0 ** np.arange(2, 13)
KNOT = 7.3  # batch 158, not one of the sizes


def straight(x):
    return 90 - 0.5 * np.maximum(0, x - KNOT)


def gentle(x):
    return 90 - 0.3 * np.maximum(0, x - KNOT) ** 2


def flat(x):
    return 90 + 0 * x


def observe(curve, rng, *, seeds=3, noise=0.2, offset=0.3):
    """Accuracies of all seeds; each seed also has an offset that all its batch sizes share."""
    table = curve(np.log2(SIZES)) + noise * rng.standard_normal((seeds, len(SIZES)))
    table += offset * rng.standard_normal((seeds, 1))
    return np.tile(SIZES, seeds), table.ravel(), np.repeat(np.arange(seeds), len(SIZES))


@pytest.mark.parametrize("curve", [straight, gentle])
@pytest.mark.parametrize(("seeds", "noise"), [(1, 0.1), (3, 0.2)])
def test_the_interval_covers_the_transition(curve, seeds, noise):
    rng = np.random.default_rng(1)
    covered, widths = 0, []
    for _ in range(100):
        sizes, values, names = observe(curve, rng, seeds=seeds, noise=noise)
        found = find_transition(sizes, values, seeds=names)
        assert found.verdict in {"transition", "falls throughout"}
        covered += (found.interval[0] or 0) <= 2**KNOT <= found.interval[1]
        widths.append(np.log2(found.interval[1] / (found.interval[0] or 1)))
    assert covered >= 85  # 95 expected; 85 is 4.6 standard errors below
    assert np.median(widths) < 4  # the interval says something: the sizes span ten octaves


def test_flat_accuracy_gives_no_transition():
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(100):
        sizes, values, names = observe(flat, rng)
        alarms += find_transition(sizes, values, seeds=names).verdict not in {"insensitive", "not resolvable"}
    assert alarms <= 12  # 2.5 expected; the count would be 13 or more once in a million


UNLIKE = {
    "large batches": 0.2 * np.array([1.0] * 10 + [10.0]),
    "small batches": 0.2 * np.array([10.0, 10.0] + [1.0] * 9),
}


@pytest.mark.parametrize("noise", UNLIKE.values(), ids=UNLIKE)
def test_batch_sizes_that_scatter_unlike(noise):
    """As where large batches are at the limit of stability: one noisy batch size is no fall, and hides none."""
    rng = np.random.default_rng(3)
    alarms = rises = falls_seen = covered = 0
    for _ in range(100):
        sizes, values, names = observe(flat, rng, seeds=6, noise=noise)
        found = find_transition(sizes, values, seeds=names)
        alarms += found.verdict not in {"insensitive", "not resolvable"}
        rises += "worse too" in found.reason
        sizes, values, names = observe(straight, rng, seeds=6, noise=noise)
        found = find_transition(sizes, values, seeds=names)
        if found.interval is not None:
            falls_seen += 1
            covered += (found.interval[0] or 0) <= 2**KNOT <= found.interval[1]
    assert max(alarms, rises) <= 12  # 2.5 and 5 expected at most; see above
    assert falls_seen >= 80
    assert covered >= 0.85 * falls_seen  # 95 expected


def test_the_scatter_of_a_slope_is_that_of_its_seeds():
    """Oracle: scipy's t test of one sample, on the slopes of single seeds by numpy's weighted polyfit."""
    rng = np.random.default_rng(4)
    sizes, values, names = observe(straight, rng, seeds=5, noise=np.geomspace(0.05, 2, len(SIZES)), offset=0.05)
    table = seed_table(sizes, values, names)
    x, weights = np.log2(table.sizes), table.weights
    assert not table.scatters_alike()
    slopes = [-np.polyfit(x, row, 1, w=np.sqrt(weights))[0] for row in table.values]
    misfit = hinges(x, table.means, weights, x[:1], 1)[2][0]
    (variance,), (degrees,) = table.scatter_along(contrasts(x, weights, x[:1], 1))
    gain = hinges(x, table.means, weights, x[-1:], 1)[2][0] - misfit
    assert np.sqrt(gain / variance) == pytest.approx(stats.ttest_1samp(slopes, 0).statistic)
    assert degrees == len(slopes) - 1
    apart = seed_table(sizes, values)  # not paired: Welch and Satterthwaite, here for a difference of two means
    pair = np.zeros((1, len(SIZES)))
    pair[0, [0, -1]] = 1, -1
    welch = stats.ttest_ind(apart.values[:, 0], apart.values[:, -1], equal_var=False)
    (variance,), (degrees,) = apart.scatter_along(pair)
    error = np.sqrt(variance * (pair**2 / apart.weights).sum())
    assert (apart.means[0] - apart.means[-1]) / error == pytest.approx(welch.statistic)
    assert degrees == int(welch.df)


def test_insensitive_needs_a_tolerance_that_the_noise_can_resolve():
    rng = np.random.default_rng(3)
    sizes, values, names = observe(flat, rng, seeds=5, noise=0.05)
    assert find_transition(sizes, values, seeds=names, tolerance=0.2).verdict == "insensitive"
    hidden = find_transition(sizes, values, seeds=names, tolerance=0.001)
    assert hidden.verdict == "not resolvable"
    assert "may hide" in hidden.reason


def test_an_offset_of_the_seeds_does_not_hide_the_fall():
    rng = np.random.default_rng(4)
    sizes, values, names = observe(gentle, rng, noise=0.05, offset=20.0)
    assert find_transition(sizes, values, seeds=names).verdict == "transition"
    assert find_transition(sizes, values).verdict == "not resolvable"  # without pairs the offset is noise


def test_a_fall_from_the_first_batch_on_only_bounds_the_transition():
    rng = np.random.default_rng(5)
    sizes, values, names = observe(lambda x: 90 - 0.3 * x, rng)
    found = find_transition(sizes, values, seeds=names)
    assert found.verdict == "falls throughout"
    assert found.batch_size is None
    assert found.interval[0] is None
    assert found.interval[1] < SIZES[-1]


def test_small_batches_that_cannot_train_are_left_out():
    rng = np.random.default_rng(6)
    sizes, values, names = observe(lambda x: gentle(x) - 5 * np.maximum(0, 4 - x), rng)
    found = find_transition(sizes, values, seeds=names)
    assert "below 16" in found.reason
    assert found.sizes == 9
    assert found.interval[0] <= 2**KNOT <= found.interval[1]


def test_losses_rise_where_accuracies_fall():
    rng = np.random.default_rng(7)
    sizes, values, names = observe(gentle, rng)
    up = find_transition(sizes, -values, seeds=names, higher_is_better=False)
    down = find_transition(sizes, values, seeds=names)
    assert up.batch_size == down.batch_size
    assert up.level == -down.level
    assert up.drop == down.drop


def test_the_fit_at_a_knot_is_least_squares():
    rng = np.random.default_rng(8)
    x, y, weights = (
        np.arange(8.0),
        90 - np.maximum(0, np.arange(8.0) - 3) ** 2 + rng.standard_normal(8),
        1 + rng.random(8),
    )
    for shape in (1, 2):
        design = np.stack([np.ones(8), -(np.maximum(0, x - 2.5) ** shape)], axis=1) * np.sqrt(weights)[:, None]
        (level, slope), rss, *_ = np.linalg.lstsq(design, y * np.sqrt(weights), rcond=None)
        found = hinges(x, y, weights, np.array([2.5]), shape)
        assert [part[0] for part in found] == pytest.approx([level, slope, rss[0]], rel=1e-9)


def test_the_scatter_is_that_of_two_way_analysis():
    rng = np.random.default_rng(9)
    draws = rng.standard_normal((4_000, 3)) * 0.7 + rng.standard_normal((4_000, 1)) * 5
    sizes, names = np.tile([1, 2, 4], 4_000), np.repeat(np.arange(4_000), 3)
    variance, degrees = seed_table(sizes, draws.ravel(), names).scatter()
    assert degrees == 3_999 * 2
    assert abs(variance - 0.49) < 5 * 0.49 * np.sqrt(2 / degrees)


def test_momentum_parts_from_sgd_where_the_truth_does():
    rng = np.random.default_rng(10)
    sizes, sgd, names = observe(gentle, rng, noise=0.1)
    _, momentum, _ = observe(flat, rng, noise=0.1)
    found = find_separation(sizes, sgd, momentum, seeds=names)
    assert found.verdict == "transition"
    low, high = found.transition.interval
    assert low <= 2**KNOT <= high
    assert found.equal_below < found.worse_from
    assert 2**KNOT < found.worse_from <= 1_024
    truth = gentle(np.log2(SIZES)) - 90
    # 11 intervals of 95 % over three pairs
    inside = [d.interval[0] <= t <= d.interval[1] for d, t in zip(found.differences, truth, strict=True)]
    assert sum(inside) >= 7


def test_methods_that_differ_by_a_constant_are_not_called_insensitive():
    rng = np.random.default_rng(11)
    sizes, first, names = observe(flat, rng, noise=0.01, offset=0)
    found = find_separation(sizes, first - 1, first, seeds=names, tolerance=0.1)
    assert found.verdict == "not resolvable"
    assert found.worse_from == SIZES[0]


def test_few_sizes_and_one_seed_decide_nothing():
    assert find_transition([1, 2, 4], [1, 2, 3]).verdict == "not resolvable"
    rng = np.random.default_rng(12)
    sizes, values, names = observe(flat, rng, seeds=1)
    assert "one seed" in find_transition(sizes, values, seeds=names).reason


@pytest.mark.parametrize(
    ("sizes", "values", "seeds", "word"),
    [
        ([1, 2], [1.0], None, "equal length"),
        ([0, 2], [1.0, 2.0], None, "positive"),
        ([1, 2], [1.0, np.nan], None, "finite"),
        ([1, 1], [1.0, 2.0], [3, 3], "twice"),
        ([1, 2], [1.0, 2.0], [3], "one seed for each"),
    ],
)
def test_bad_input_is_refused(sizes, values, seeds, word):
    with pytest.raises(BadInput, match=word):
        find_transition(sizes, values, seeds=seeds)


def test_methods_that_are_equal_are_equal_up_to_the_largest_batch():
    """One test for each of 11 batch sizes, at 5 % each, would part them in every second simulation."""
    rng = np.random.default_rng(13)
    parted = 0
    for _ in range(100):
        sizes, first, names = observe(flat, rng, offset=0)
        _, second, _ = observe(flat, rng, offset=0)
        parted += find_separation(sizes, first, second, seeds=names).equal_below != SIZES[-1]
    assert parted <= 20  # 5 to 7 expected


def test_pairs_and_tolerances_that_cannot_be_are_refused():
    with pytest.raises(BadInput, match=r"first has shape \(2,\) and second \(1,\)"):
        find_separation([1, 2], [1.0, 2.0], [1.0])
    with pytest.raises(BadInput, match="tolerance is -1"):
        find_transition([1, 2], [1.0, 2.0], tolerance=-1)
