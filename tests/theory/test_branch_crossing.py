"""Where branches leave the tolerance. Oracles: excess curves with a known crossing, and simulated seeds."""

import math

import numpy as np
import pytest

from gengap.core.errors import BadInput
from gengap.theory.branch_crossing import branch_crossing

SIZES = [8, 16, 32, 64, 128, 256]


def exact(critical: float, tolerance: float) -> np.ndarray:
    """Losses whose excess is linear in log B and crosses the tolerance at `critical`."""
    return 1.0 + tolerance * np.log(np.array(SIZES) / 8) / math.log(critical / 8)


@pytest.mark.parametrize("critical", [9.0, 20.0, 64.0, 200.0])
def test_the_crossing_of_a_line_in_log_b(critical: float) -> None:
    found = branch_crossing(SIZES, [exact(critical, 0.01)], tolerance=0.01)
    assert found.value == pytest.approx(critical, rel=1e-9)
    assert found.verdict == "found"
    assert found.interval is None


def test_the_interval_covers_the_truth_and_does_not_say_everything() -> None:
    rng, hits, told = np.random.default_rng(0), 0, 0
    for _ in range(300):
        critical = float(np.exp(rng.uniform(math.log(12), math.log(200))))
        losses = exact(critical, 0.02) + 0.0025 * rng.standard_normal((4, len(SIZES)))
        found = branch_crossing(SIZES, losses, tolerance=0.02)
        low, high = found.interval
        hits += low <= critical <= high
        told += math.isfinite(high) and low > SIZES[0]
    assert hits / 300 > 0.95 - 5 * math.sqrt(0.05 * 0.95 / 300)
    assert told > 150


def test_all_within_is_a_lower_bound() -> None:
    found = branch_crossing(SIZES, 1 + 1e-4 * np.random.default_rng(1).standard_normal((3, 6)), tolerance=0.01)
    assert found.verdict == "at least"
    assert found.value is None
    assert found.interval == (256.0, math.inf)
    assert "at least 256" in str(found)


def test_seeds_that_differ_too_much_resolve_nothing() -> None:
    found = branch_crossing(SIZES, 1 + np.random.default_rng(2).standard_normal((3, 6)), tolerance=1e-3)
    assert found.verdict == "not resolvable"
    assert "add seeds" in found.reason


def test_a_branch_that_diverged_is_beyond() -> None:
    losses = np.ones((2, 6)) + 1e-6 * np.arange(6)
    losses[1, 4:] = math.inf
    found = branch_crossing(SIZES, losses, tolerance=0.01)
    assert [row.standing for row in found.sizes][4] == "beyond"
    assert found.value == 64
    assert found.interval == (64.0, 128.0)
    assert found.to_dict()["sizes"][4]["loss"] is None


@pytest.mark.parametrize(
    ("sizes", "losses", "tolerance", "said"),
    [
        ([8], [[1.0]], 0.1, "at least two"),
        ([16, 8], [[1.0, 1.0]], 0.1, "ascending"),
        ([8, 16], [[1.0]], 0.1, "shape"),
        ([8, 16], [[math.nan, 1.0]], 0.1, "diverged"),
        ([8, 16], [[1.0, 1.0]], -1.0, "tolerance is -1.0"),
    ],
)
def test_what_cannot_be_used_is_refused(sizes: list, losses: list, tolerance: float, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        branch_crossing(sizes, losses, tolerance=tolerance)


def test_a_branch_that_equals_the_reference_is_within_and_not_another_reference() -> None:
    found = branch_crossing([8, 16, 32], [[1.0, 1.0, 2.0], [1.0, 1.0, 2.1]], tolerance=0.1)
    assert [row.standing for row in found.sizes] == ["reference", "within", "beyond"]
    assert found.interval == (16.0, 32.0)
