"""Statistics over networks, the sampling unit: thin over scipy. Undefined is NaN; one network gives no interval."""

import numpy as np
import pandas as pd
from scipy import optimize, stats

CONFIDENCE = 0.95
RESAMPLES = 9999


def describe(values) -> dict[str, float]:
    """n, mean, sd (n - 1 in the denominator) and low, high: Student's t interval of the mean. NaN values are left out of all.

    >>> {name: round(float(value), 2) for name, value in describe([0.5, 0.6, 0.7, float("nan")]).items()}
    {'n': 3.0, 'mean': 0.6, 'sd': 0.1, 'low': 0.35, 'high': 0.85}
    """
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    n = len(values)
    mean = values.mean() if n else np.nan
    sd = values.std(ddof=1) if n > 1 else np.nan
    low, high = stats.t.interval(CONFIDENCE, n - 1, mean, sd / np.sqrt(n)) if n > 1 and sd > 0 else (np.nan, np.nan)
    return {"n": n, "mean": mean, "sd": sd, "low": low, "high": high}


def paired_difference(first: pd.Series, second: pd.Series, rng: int = 0) -> dict[str, float]:
    """second - first over networks with the same seed (the index of both series).

    n pairs; difference, its mean; low, high: BCa bootstrap interval of it (9,999 resamples); t_low, t_high: Student's t interval;
    p: two-sided sign-flip test, exact up to 13 pairs; d: Cohen's d of the differences (mean / sd); note: why some are NaN.
    Pairs with a NaN are left out; fewer than 2 pairs give NaN but for the mean.

    >>> result = paired_difference(pd.Series([0.5, 0.6, 0.7]), pd.Series([0.4, 0.4, 0.6]))
    >>> result["n"], round(float(result["difference"]), 3), float(result["p"])
    (3, -0.133, 0.25)
    """
    change = (second - first).dropna().to_numpy(dtype=float)
    n = len(change)
    names = ("difference", "low", "high", "t_low", "t_high", "p", "d")
    result = {"n": n, **dict.fromkeys(names, np.nan), "note": ""}
    if n:
        result["difference"] = change.mean()
    if n < 2 or np.ptp(change) == 0:
        why = ("no seed has both values", "one pair only")
        return {**result, "note": why[n] if n < 2 else "the pairs do not differ"}
    options = {"n_resamples": RESAMPLES, "rng": rng}
    low, high = stats.bootstrap((change,), np.mean, confidence_level=CONFIDENCE, **options).confidence_interval
    test = stats.permutation_test((change,), np.mean, permutation_type="samples", **options)
    of_t = describe(change)
    bounds = {"low": low, "high": high, "t_low": of_t["low"], "t_high": of_t["high"]}
    return result | bounds | {"p": test.pvalue, "d": change.mean() / change.std(ddof=1)}


def holm(p) -> np.ndarray:
    """p values of a family of tests, adjusted so that the chance of any false alarm is bounded (Holm's step-down). NaN stays, and
    does not count. Source: Holm, Scandinavian Journal of Statistics 6 (1979).

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)[: np.sum(~np.isnan(p))]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)).clip(max=1)
    return adjusted


def summary(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """`describe` of the column `value` for every group: columns of `by`, then n, mean, sd, low, high.

    >>> summary(pd.DataFrame({"regime": ["fixed", "fixed"], "value": [0.5, 0.7]}), ["regime"])[["regime", "n", "mean"]]
      regime  n  mean
    0  fixed  2   0.6
    """
    rows = [{**dict(zip(by, key)), **describe(part)} for key, part in table.groupby(by, sort=False)["value"]]
    return pd.DataFrame(rows, columns=[*by, "n", "mean", "sd", "low", "high"])


def differences(table: pd.DataFrame, by: list[str], first: str = "fixed", second: str = "varying", of="regime") -> pd.DataFrame:
    """`paired_difference` of `value`, second - first of the column `of`, paired by seed, for every group.

    >>> rows = [("hidden1", "fixed", 0, 0.5), ("hidden1", "fixed", 1, 0.6),
    ...         ("hidden1", "varying", 0, 0.4), ("hidden1", "varying", 1, 0.4)]
    >>> table = pd.DataFrame(rows, columns=["layer", "regime", "seed", "value"])
    >>> differences(table, ["layer"])[["layer", "n", "difference"]].round(2)
         layer  n  difference
    0  hidden1  2       -0.15
    """
    rows = []
    for key, part in table.groupby(by, sort=False):
        wide = part.pivot(index="seed", columns=of, values="value").reindex(columns=[first, second])
        rows.append({**dict(zip(by, key)), **paired_difference(wide[first], wide[second])})
    return pd.DataFrame(rows)


def in_and_out(table: pd.DataFrame, by: list[str], first: str = "fixed", second: str = "varying") -> pd.DataFrame:
    """`differences` twice, told apart by a column `networks`: over all pairs of networks, and over those in which neither failed
    (the column `failed` of the table)."""
    parts = {"all": table, "neither failed": table[~table["failed"]]}
    rows = [differences(part, by, first, second).assign(networks=kept) for kept, part in parts.items()]
    order = [*by, "networks", "n", "difference", "low", "high", "p", "d", "note"]
    return pd.concat(rows)[order].sort_values(by, kind="stable", ignore_index=True)


def on_scale(values: pd.Series, doses: list[float], arms: list[pd.Series], low: pd.Series, rng: int = 0) -> dict[str, float]:
    """Where a group of networks sits on a calibrated scale, each number with a percentile bootstrap interval over networks.

    share: (mean - mean of `low`) / (mean of the first arm - mean of `low`); 0 at `low`, 1 at the first arm, not bounded. NaN
    where a group has fewer than 2 networks, or the two ends are the same.
    dose: where the monotone (isotonic) fit of the arms' means over `doses` has the mean of `values`, within the doses.
    """

    def place(values, low, *arms):
        means = np.array([arm.mean() for arm in arms])
        rises = bool(means[-1] > means[0])
        fitted = optimize.isotonic_regression(means, increasing=rises).x
        order = slice(None) if rises else slice(None, None, -1)  # rising
        dose = np.interp(values.mean(), fitted[order], np.array(doses)[order])
        return (values.mean() - low.mean()) / (means[0] - low.mean()), dose

    groups = [np.asarray(group, dtype=float) for group in (values, low, *arms)]
    names = ("share", "share_low", "share_high", "dose", "dose_low", "dose_high")
    if min(len(group) for group in groups) < 2 or np.isclose(groups[1].mean(), groups[2].mean()):
        return {"n": len(groups[0]), **dict.fromkeys(names, np.nan)}
    random = np.random.default_rng(rng)
    drawn = [place(*(random.choice(group, len(group)) for group in groups)) for _ in range(1999)]
    tail = 100 * (1 - CONFIDENCE) / 2
    low_, high = np.percentile(drawn, [tail, 100 - tail], axis=0)
    share, dose = place(*groups)
    values = (share, low_[0], high[0], dose, low_[1], high[1])
    return {"n": len(groups[0]), **dict(zip(names, map(float, values)))}
