"""Random streams: every draw is a pure function of (what for, seed, index); no global random state is used."""

import numpy as np

STREAMS = ("weights", "pairs", "goals", "evaluation", "tables", "measures", "additive")


def rng(stream: str, seed: int, index: int = 0) -> np.random.Generator:
    """The generator of one stream of one seed; streams, seeds and indices are independent of each other."""
    return np.random.default_rng([STREAMS.index(stream), seed, index])
