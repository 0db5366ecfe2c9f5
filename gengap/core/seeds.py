"""Named streams of randomness: the same (seed, name, indices) gives the same numbers, in any order of asking."""

import hashlib


def stream(seed: int, name: str, *indices: int) -> int:
    """Derive the seed of one stream.

    Args:
        seed: the run's seed.
        name: what the stream is for: "init", "order", "augment", "dropout", "probe".
        indices: which part of it, for example the epoch.

    Returns:
        A 63-bit integer, good for `torch.Generator.manual_seed` and `numpy.random.default_rng`.
    """
    label = "/".join([str(seed), name, *map(str, indices)])
    return int.from_bytes(hashlib.blake2b(label.encode(), digest_size=8).digest(), "little") >> 1
