"""The best batch size and its proportion to lr, N and 1 / (1 - m). Oracles: parabolas with known tops; numpy's polyfit; a naive
bootstrap; coverage counted over simulations against bounds fixed beforehand."""

import numpy as np
import pytest

from gengap.core.errors import BadInput
from gengap.theory.optimal_batch import Peak, find_peak, fit_proportion, tops_of
from gengap.theory.seed_table import seed_table

SIZES = 2.0 ** np.arange(0, 11)
RATES = np.array([0.1, 0.3, 1.0, 3.0, 10.0])


def observe(top, rng, *, seeds=5, noise=0.3, curvature=0.5):
    table = 95 - curvature * (np.log2(SIZES) - top) ** 2 + noise * rng.standard_normal((seeds, len(SIZES)))
    return np.tile(SIZES, seeds), table.ravel(), np.repeat(np.arange(seeds), len(SIZES))


def peak(top, rng, **settings):
    sizes, values, names = observe(top, rng, **settings)
    return find_peak(sizes, values, seeds=names)


def test_the_smooth_top_is_covered_and_near():
    rng = np.random.default_rng(1)
    covered, away = 0, []
    for _ in range(100):
        top = rng.uniform(3, 7)
        found = peak(top, rng)
        assert found.verdict == "peak"
        assert found.bar[0] < found.batch_size < found.bar[1]
        if found.smooth is None:  # taken for lopsided by chance
            continue
        covered += found.smooth.interval[0] <= 2**top <= found.smooth.interval[1]
        away.append(np.log2(found.smooth.value) - top)
    assert len(away) >= 94  # 5 % are tested lopsided by chance, and few of those move by a quarter of an octave
    assert covered >= 84  # 95 expected; 84 is 5 standard errors below
    assert np.std(away) < 0.25  # a quarter of the grid's spacing


def test_without_noise_the_top_of_a_parabola_is_exact():
    found = peak(4.3, np.random.default_rng(0), noise=0.0, seeds=2)
    assert found.smooth.value == pytest.approx(2**4.3, rel=1e-9)
    assert (found.batch_size, found.bar) == (16.0, (8.0, 32.0))
    assert found.share == 1.0


def test_a_cliff_of_scattered_values_hides_no_peak_and_moves_no_top():
    # what small batches near the limit of stability look like: far below, and scattering a hundred times as much
    means, noise = [40.0, 80.0, 91.4, 90.7, 90.2, 90.0], [5.0, 2.0, 0.15, 0.2, 0.1, 0.1]
    rng, found = np.random.default_rng(4), []
    for _ in range(50):
        table = np.array(means) + np.array(noise) * rng.standard_normal((5, 6))
        sizes = np.tile(2.0 ** np.arange(6), 5)
        found.append(find_peak(sizes, table.ravel(), seeds=np.repeat(np.arange(5), 6)))
    assert sum(one.verdict == "peak" and one.batch_size == 4 for one in found) >= 45
    assert all(one.smooth is None for one in found)


def test_errors_of_unequal_scatter_are_those_of_scipy():
    from scipy import stats

    rng = np.random.default_rng(5)
    table = seed_table(
        np.repeat([1.0, 2.0, 4.0], 6), (rng.standard_normal((3, 6)) * np.array([[0.01], [1.0], [5.0]])).ravel()
    )
    assert not table.scatters_alike()
    assert stats.bartlett(*table.values.T).pvalue < 0.01
    error, degrees = table.errors_against(0)
    welch = stats.ttest_ind(table.values[:, 1], table.values[:, 0], equal_var=False)
    gap = table.means[1] - table.means[0]
    assert gap / error[1] == pytest.approx(welch.statistic)
    assert degrees[1] == int(welch.df)
    alike = seed_table(np.repeat([1.0, 2.0, 4.0], 6), rng.standard_normal(18))
    assert alike.scatters_alike() == (stats.bartlett(*alike.values.T).pvalue > 0.01)


def test_tops_are_those_of_polyfit():
    rng = np.random.default_rng(2)
    x, rows = np.arange(5.0), rng.standard_normal((20, 5))
    for row, top in zip(rows, tops_of(x, rows), strict=True):
        a, b, _ = np.polyfit(x, row, 2)
        assert np.isnan(top) if a >= 0 else top == pytest.approx(-b / (2 * a), rel=1e-8)


def test_the_share_of_resamples_is_that_of_a_naive_bootstrap():
    rng = np.random.default_rng(3)
    sizes, values, names = observe(4.4, rng, noise=1.0)
    found = find_peak(sizes, values, seeds=names)
    table = values.reshape(5, -1)
    naive = [SIZES[table[rng.integers(5, size=5)].mean(axis=0).argmax()] for _ in range(4_000)]
    share = np.mean(np.array(naive) == found.batch_size)
    assert abs(found.share - share) < 5 * np.sqrt(0.25 / 1_000 + 0.25 / 4_000)


@pytest.mark.parametrize(("top", "verdict"), [(-3, "lower edge"), (14, "upper edge")])
def test_a_best_at_the_edge_only_bounds_the_peak(top, verdict):
    found = peak(top, np.random.default_rng(4))
    assert found.verdict == verdict
    assert None in found.bar
    assert found.smooth is None


def test_batches_at_which_runs_diverge_bound_the_peak():
    sizes, values, names = observe(2.0, np.random.default_rng(10), seeds=3)
    kept = sizes >= 4
    alone = find_peak(sizes[kept], values[kept], seeds=names[kept])
    beside = find_peak(sizes[kept], values[kept], seeds=names[kept], lost=[1, 2])
    assert (alone.verdict, alone.bar) == ("lower edge", (None, 8.0))
    assert (beside.verdict, beside.bar) == ("peak", (2.0, 8.0))


def test_a_flat_curve_has_no_peak():
    rng = np.random.default_rng(5)
    alarms = sum(peak(5, rng, curvature=0.0).verdict == "peak" for _ in range(60))
    assert alarms <= 6


def test_one_seed_has_a_bar_and_no_interval():
    found = peak(4.3, np.random.default_rng(6), seeds=1, noise=0.01)
    assert found.verdict == "peak"
    assert "one seed" in found.reason
    assert (found.resampled, found.share, found.smooth.interval) == (None, None, None)


def test_losses_have_their_best_at_the_bottom():
    sizes, values, names = observe(4.3, np.random.default_rng(7))
    up, down = find_peak(sizes, values, seeds=names), find_peak(sizes, -values, seeds=names, higher_is_better=False)
    assert (down.batch_size, down.value, down.smooth) == (up.batch_size, -up.value, up.smooth)


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize(("slope", "verdict"), [(1.0, "proportional"), (0.5, "not proportional")])
def test_a_proportion_is_told_from_a_square_root(slope, verdict, smooth):
    rng = np.random.default_rng(8)
    covered = right = 0
    for _ in range(30):
        peaks = [peak(np.log2(24 * lr**slope), rng) for lr in RATES]
        found = fit_proportion(RATES, peaks, smooth=smooth)
        covered += found.slope.interval[0] <= slope <= found.slope.interval[1]
        right += found.verdict == verdict
    assert covered >= 23  # 28.5 expected; 23 is 4.6 standard errors below
    assert right >= (23 if smooth or slope == 1 else 15)


def exact(batch):
    return Peak("peak", "", batch, (batch / 2, batch * 2), 1.0, (batch, batch), 1.0, None, 10, 2)


def test_the_line_of_exact_peaks():
    found = fit_proportion(RATES, [exact(32 * lr) for lr in RATES])
    assert found.slope.value == pytest.approx(1.0, rel=1e-12)
    assert found.constant.value == pytest.approx(32.0, rel=1e-12)
    middle, low, high = found.predict(30.0)
    assert middle == pytest.approx(960.0, rel=1e-9)
    assert low < 960 < high
    spread = np.sum((np.log2(RATES) - np.log2(RATES).mean()) ** 2)
    assert found.slope.stderr == pytest.approx(np.sqrt(4 / 12 / spread), rel=1e-9)


def test_prediction_is_surest_amid_the_peaks():
    found = fit_proportion(RATES, [exact(32 * lr) for lr in RATES])
    width = [np.log2(high / low) for _, low, high in map(found.predict, (1.0, 10.0, 1_000.0))]
    assert width[0] < width[1] < width[2]


def test_peaks_that_are_none_are_counted_and_not_fitted():
    rng = np.random.default_rng(9)
    peaks = [*(exact(32 * lr) for lr in RATES), peak(14, rng)]
    found = fit_proportion([*RATES, 100.0], peaks)
    assert (found.n, found.bounds) == (5, 1)
    few = fit_proportion([0.1, 0.3], [exact(1), exact(2)])
    assert (few.verdict, few.slope) == ("not resolvable", None)
    with pytest.raises(BadInput, match="nothing to predict"):
        few.predict(1.0)


def test_bad_x_is_refused():
    with pytest.raises(BadInput, match="positive"):
        fit_proportion([0.0, 1.0, 2.0], [exact(1)] * 3)
    with pytest.raises(BadInput, match="for 1 peaks"):
        fit_proportion([1.0, 2.0], [exact(1)])
