"""Oracles: SplitMix64 in Python integers, itself checked against published values; chi-square counts; normal moments."""

import math
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import stats

from gengap.core.seeds import stream
from gengap.problem import counter_random
from gengap.problem.counter_random import below, happens, normal, uniform, words

MASK = 2**64 - 1
MANY = torch.arange(2**16)


def splitmix64(state):
    while True:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield z ^ (z >> 31)


def twin(key, sample, draws):
    (state,) = islice(splitmix64(key), sample, sample + 1)
    return list(islice(splitmix64(state), draws))


def unsigned(bits):
    return [[x & MASK for x in row] for row in bits.tolist()]


def test_the_twin_gives_the_published_sequence():
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert list(islice(splitmix64(1234567), 5)) == published


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**63 - 1), st.lists(st.integers(0, 500), min_size=1, max_size=5), st.integers(0, 4))
def test_words_are_those_of_the_twin(key, samples, draws):
    found = unsigned(words(key, torch.tensor(samples), draws))
    assert found == [twin(key, sample, draws) for sample in samples]


def test_indices_of_any_integer_dtype_give_the_same():
    expected = words(7, torch.tensor([3, 200]), 2)
    for dtype in (torch.uint8, torch.int16, torch.int32):
        assert torch.equal(words(7, torch.tensor([3, 200], dtype=dtype), 2), expected)


def excess(counts):
    """Deviation of a chi-square statistic from its expectation, in its standard deviations."""
    counts = np.asarray(counts, dtype=float)
    expected = counts.sum() / counts.size
    freedom = counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom)


def cells(bits, shift, n=16):
    return ((bits >> shift) & (n - 1)).numpy()


def test_a_bias_of_a_tenth_would_be_seen():
    """65,536 numbers in 256 cells, half of them a tenth too full, without any noise: 655 where 255 is expected."""
    fair = 2**16 / 256
    assert excess([1.1 * fair] * 128 + [0.9 * fair] * 128) > 15


@pytest.mark.parametrize("shift", [0, 8, 29, 40, 56])
@pytest.mark.parametrize("epoch", [0, 1])
def test_every_byte_is_uniform_over_samples(shift, epoch):
    bits = words(stream(0, "augment", epoch), MANY, 2)
    for draw in bits.unbind(1):
        assert abs(excess(np.bincount(cells(draw, shift, 256), minlength=256))) < 5


@pytest.mark.parametrize("shift", [0, 28, 60])
def test_neighbours_are_independent(shift):
    """Pairs of numbers in 16 x 16 cells: two draws of a sample, two samples, two epochs, two seeds, two purposes."""
    here = words(stream(0, "augment", 0), MANY, 2)
    first = here[:, 0]
    others = {
        "draw": here[:, 1],
        "sample": words(stream(0, "augment", 0), MANY + 1, 1)[:, 0],
        "epoch": words(stream(0, "augment", 1), MANY, 1)[:, 0],
        "seed": words(stream(1, "augment", 0), MANY, 1)[:, 0],
        "purpose": words(stream(0, "stability", 0), MANY, 1)[:, 0],
    }
    for name, other in others.items():
        pairs = 16 * cells(first, shift) + cells(other, shift)
        assert abs(excess(np.bincount(pairs, minlength=256))) < 5, name


def test_a_key_next_to_another_gives_unrelated_numbers():
    a, b = words(1000, MANY, 1)[:, 0], words(1001, MANY, 1)[:, 0]
    assert abs(excess(np.bincount(16 * cells(a, 60) + cells(b, 60), minlength=256))) < 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_numbers_are_the_leading_bits(dtype):
    digits = 24 if dtype == torch.float32 else 53
    bits = torch.tensor([[0, -1, 1 << 62, 123456789012345678]])
    expected = [(x >> (64 - digits)) / 2**digits for x in unsigned(bits)[0]]
    found = uniform(bits, dtype)
    assert found.dtype == dtype
    assert found[0].tolist() == expected
    assert found.max() < 1


@pytest.mark.parametrize("n", [1, 2, 9, 81, 2**31])
def test_integers_are_all_equally_likely(n):
    bits = words(5, MANY, 1)[:, 0]
    found = below(bits, n)
    assert found.tolist() == [((x & MASK) >> 32) * n >> 32 for x in bits.tolist()]
    assert (found.min() >= 0) & (found.max() < n)
    if 1 < n < 100:
        assert abs(excess(np.bincount(found.numpy(), minlength=n))) < 5


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_events_happen_as_often_as_they_should(p):
    found = happens(words(6, MANY, 1)[:, 0], p)
    assert abs(found.double().mean() - p) <= 5 * math.sqrt(p * (1 - p) / len(MANY))


def test_normal_numbers_are_those_of_box_and_muller():
    rows = []
    for sample in (0, 41):
        u = [(x >> 11) / 2**53 for x in twin(9, sample, 6)]
        radius, angle = np.sqrt(-2 * np.log1p(-np.array(u[:3]))), 2 * np.pi * np.array(u[3:])
        rows.append([*(radius * np.cos(angle)), *(radius * np.sin(angle))][:5])
    found = normal(9, torch.tensor([0, 41]), (5,), torch.float64)
    np.testing.assert_allclose(found.numpy(), rows, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_numbers_are_normal(dtype):
    found = normal(stream(0, "stability", 0), torch.arange(2000), (7, 9), dtype).double().flatten().numpy()
    error = 1 / math.sqrt(found.size)
    assert abs(found.mean()) < 5 * error
    assert abs(found.var() - 1) < 5 * math.sqrt(2) * error  # the variance of z^2 is 2
    assert abs((found**4).mean() - 3) < 5 * math.sqrt(96) * error  # and that of z^4 is 105 - 9
    assert stats.kstest(found, "norm").pvalue > 1e-5
    assert error < 0.003


def test_the_halves_of_a_sample_are_independent():
    """A cosine and the sine of the same angle: uncorrelated, and their squares too."""
    cosine, sine = normal(3, torch.arange(30_000), (2,), torch.float64).unbind(1)
    for a, b in ((cosine, sine), (cosine**2 - 1, sine**2 - 1)):
        assert abs((a * b).mean()) < 5 * (a * b).std() / math.sqrt(len(a))


def test_a_sample_gets_its_numbers_in_any_batch(monkeypatch):
    samples = torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:50]
    whole = normal(4, samples, (3, 5))
    assert whole.shape == (50, 3, 5)
    assert torch.equal(torch.cat([normal(4, part, (3, 5)) for part in samples.split(7)]), whole)
    monkeypatch.setattr(counter_random, "BLOCK", 40)
    assert torch.equal(normal(4, samples, (3, 5)), whole)
    assert torch.equal(words(4, samples, 9)[:, :4], words(4, samples, 4))


def test_odd_shapes_and_dtypes():
    assert normal(0, torch.arange(4), ()).shape == (4,)
    assert normal(0, torch.arange(4), (0, 2)).shape == (4, 0, 2)
    assert normal(0, torch.arange(0), (3,)).shape == (0, 3)
    half = normal(0, torch.arange(4), (3,), torch.bfloat16)
    assert torch.equal(half, normal(0, torch.arange(4), (3,)).to(torch.bfloat16))


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    normal(0, torch.arange(4), (3,))
    assert torch.equal(before, torch.get_rng_state())
