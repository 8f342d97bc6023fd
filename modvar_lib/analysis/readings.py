"""Readings: what the original's text leaves open about its score, and how likely each gives the two
numbers that it reports.

"Take activation vectors": of held-out or of seen digits; before or after the nonlinearity; of all
hidden layers as one vector, or averaged over layers, with or without the bottleneck; the left or
the right half exchanged, or the mean of both; networks that failed counted or not. Readings of the
same networks are not independent of each other.
"""

from itertools import combinations

import numpy as np
import pandas as pd

from modvar_lib.analysis.study import select

OPEN = ["architecture", "pairs", "tap", "layers", "side", "failed_networks"]  # name a reading
TAPS = {"activation_change": "after", "activation_change_pre": "before"}
PAIRS = {"trained": "held out", "seen": "seen"}


def values(measures: pd.DataFrame) -> pd.DataFrame:
    """The score of every network under every reading: columns OPEN, regime, seed, value. An average
    is over the layers in which the network has a score. measures: a study's table, with
    `failed`."""
    score = select(measures, measure=TAPS, copy=PAIRS).replace({"measure": TAPS, "copy": PAIRS})
    score = score.rename(columns={"measure": "tap", "copy": "pairs"})
    single = select(score, place=["hidden", "before_bottleneck", "bottleneck"])
    layers = {
        "one vector": select(score, place="pooled"),
        "averaged": single,
        "averaged, no bottleneck": single[single["place"] != "bottleneck"],
    }
    keys = [*(name for name in OPEN if name in score), "regime", "seed", "failed"]
    means = {name: part.groupby(keys)["value"].mean() for name, part in layers.items()}
    every = pd.concat(part.reset_index().assign(layers=name) for name, part in means.items())
    counted = {"in": every, "out": every[~every["failed"]]}
    parts = (part.assign(failed_networks=name) for name, part in counted.items())
    return pd.concat(parts, ignore_index=True)[[*OPEN, "regime", "seed", "value"]]


def compared(table: pd.DataFrame, original: dict[str, list[float]]) -> pd.DataFrame:
    """A row per reading: n, mean and sd of each regime of `original`; and `chance`, that the means
    of 4 networks are within mean ± spread in every regime; the likeliest first. table: `values`;
    original: {regime: [mean, spread]}."""
    rows = []
    for _, part in table.groupby(OPEN, sort=False):
        row, chance = part[OPEN].iloc[0].to_dict(), 1.0
        for regime, (mean, spread) in original.items():
            found = select(part, regime=regime)["value"].dropna()
            row |= {f"n_{regime}": len(found), regime: found.mean(), f"sd_{regime}": found.std()}
            chance *= share_within(found, mean, spread, 4)
        rows.append(row | {"chance": chance})
    return pd.DataFrame(rows).sort_values("chance", ascending=False, ignore_index=True)


def share_within(values, mean: float, spread: float, count: int) -> float:
    """Of all sets of so many values, the share whose mean is within mean ± spread; NaN if there are
    fewer values.

    >>> share_within([0.6, 0.7, 0.8], 0.7, 0.04, count=2)
    0.3333333333333333
    """
    means = np.array(list(combinations(values, count))).reshape(-1, count).mean(1)
    return float(np.mean(np.abs(means - mean) <= spread + 1e-12)) if len(means) else np.nan
