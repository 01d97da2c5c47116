"""Random orders that stay the same for ever."""

import numpy as np


def permutation(seed: int, stream: int, n: int) -> np.ndarray:
    """The numbers below `n` in an order that is a pure function of `seed` and `stream`, both >= 0.

    From the raw words of a counter-based generator: NumPy promises those across versions, and the streams of its
    `Generator` methods it does not. Salmon et al. (2011), https://doi.org/10.1145/2063384.2063405.
    """
    words = np.random.Philox(key=np.array([seed, stream], np.uint64)).random_raw(n)
    return np.argsort(words, kind="stable")
