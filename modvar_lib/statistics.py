"""Statistics over networks, the sampling unit: thin over scipy. Undefined is NaN; one network gives no interval."""

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 9999


def describe(values) -> dict[str, float]:
    """n, mean, sd (n - 1 in the denominator) and low, high: Student's t interval of the mean. NaN values are left out of all."""
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    n = len(values)
    mean = values.mean() if n else np.nan
    sd = values.std(ddof=1) if n > 1 else np.nan
    low, high = (
        stats.t.interval(CONFIDENCE, n - 1, mean, sd / np.sqrt(n))
        if n > 1 and sd > 0
        else (np.nan, np.nan)
    )
    return {"n": n, "mean": mean, "sd": sd, "low": low, "high": high}


def paired_difference(first: pd.Series, second: pd.Series, rng: int = 0) -> dict[str, float]:
    """second - first over networks with the same seed (the index of both series).

    n pairs; difference, its mean; low, high: bootstrap interval of it (BCa, 9,999 resamples); p: two-sided sign-flip test,
    exact up to 13 pairs; d: Cohen's d of the differences (mean / sd). Pairs with a NaN are left out; fewer than 2 pairs give
    NaN but for the mean.
    """
    change = (second - first).dropna().to_numpy(dtype=float)
    n = len(change)
    result = {
        "n": n,
        "difference": change.mean() if n else np.nan,
        "low": np.nan,
        "high": np.nan,
        "p": np.nan,
        "d": np.nan,
    }
    if n < 2 or np.ptp(change) == 0:
        return result
    interval = stats.bootstrap(
        (change,), np.mean, confidence_level=CONFIDENCE, n_resamples=RESAMPLES, rng=rng
    ).confidence_interval
    test = stats.permutation_test(
        (change,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, rng=rng
    )
    return {
        **result,
        "low": interval.low,
        "high": interval.high,
        "p": test.pvalue,
        "d": change.mean() / change.std(ddof=1),
    }
