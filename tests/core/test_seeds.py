"""Oracle: pinned numbers: a stream that changed would change every published run; counts of bits for independence."""

import math
from itertools import pairwise

from gengap.core.seeds import stream

NAMES = ("init", "order", "augment", "dropout", "probe")


def test_streams_are_pinned():
    assert stream(0, "init") == 3912388711783151084
    assert stream(0, "order", 0) == 3471081512423777433
    assert stream(7, "probe", 3, 1) == 8322580543679728239
    assert stream(2**63 - 1, "dropout") == 1472907413912023845


def test_streams_differ_by_seed_name_and_index():
    asked = [(seed, name, *rest) for seed in range(25) for name in NAMES for rest in ((), *((i,) for i in range(25)))]
    asked += [(seed, "order", i, j) for seed in range(12) for i in range(12) for j in range(12)]
    found = [stream(*each) for each in asked]
    assert len(set(found)) == len(asked)
    assert all(0 <= x < 2**63 for x in found)
    assert found == [stream(*each) for each in asked]


def test_every_bit_of_neighbouring_streams_is_a_coin():
    """2,048 neighbours: each of 63 bits, and of the changes from one to the next, is set in half of them, 5 sigma."""
    found = [stream(0, "order", epoch) for epoch in range(2049)]
    band = 5 * 0.5 * math.sqrt(2048)
    for numbers in (found[1:], [a ^ b for a, b in pairwise(found)]):
        for bit in range(63):
            assert abs(sum(x >> bit & 1 for x in numbers) - 1024) < band
