"""The seed of each image's own random generator."""

import hashlib


def noise_seed(seed: int, sample_index: int = 0) -> int:
    """Return the 63-bit generator seed of a sample of a user's seed; those of different samples are uncorrelated."""
    return int.from_bytes(hashlib.sha256(f"{seed} {sample_index}".encode()).digest()[:8]) >> 1
