"""Statistics over networks, the sampling unit: thin over scipy. Undefined is NaN; one network gives
no interval."""

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 9999


def describe(values) -> dict[str, float]:
    """n, mean, sd (n - 1 in the denominator) and low, high: Student's t interval of the mean. Values
    that are NaN or infinite are left out of all.

    >>> {name: round(float(value), 2) for name, value in describe([0.5, 0.6, 0.7, float("nan")]).items()}
    {'n': 3.0, 'mean': 0.6, 'sd': 0.1, 'low': 0.35, 'high': 0.85}
    """
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
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

    n pairs; difference, its mean; low, high: BCa bootstrap interval of it (9,999 resamples); t_low,
    t_high: Student's t interval; p: two-sided sign-flip test, exact up to 13 pairs; d: Cohen's d of
    the differences (mean / sd); note: why some are NaN. Pairs with a NaN, or infinite, are left out; fewer
    than 2 pairs give NaN but for the mean.

    >>> result = paired_difference(pd.Series([0.5, 0.6, 0.7]), pd.Series([0.4, 0.4, 0.6]))
    >>> result["n"], round(float(result["difference"]), 3), float(result["p"])
    (3, -0.133, 0.25)
    """
    change = (
        (second - first).astype(float).sort_index().to_numpy()
    )  # the bootstrap hangs on the order
    change = change[np.isfinite(change)]
    n = len(change)
    names = ("difference", "low", "high", "t_low", "t_high", "p", "d")
    result = {"n": n, **dict.fromkeys(names, np.nan), "note": ""}
    if n:
        result["difference"] = change.mean()
    if n < 2 or np.ptp(change) == 0:
        why = ("no seed has both values", "one pair only")
        return {**result, "note": why[n] if n < 2 else "the pairs do not differ"}
    options = {"n_resamples": RESAMPLES, "rng": rng}
    low, high = stats.bootstrap(
        (change,), np.mean, confidence_level=CONFIDENCE, **options
    ).confidence_interval
    test = stats.permutation_test((change,), np.mean, permutation_type="samples", **options)
    of_t = describe(change)
    bounds = {"low": low, "high": high, "t_low": of_t["low"], "t_high": of_t["high"]}
    return result | bounds | {"p": test.pvalue, "d": change.mean() / change.std(ddof=1)}


def holm(p) -> np.ndarray:
    """p values of a family of tests, adjusted so that the chance of any false alarm is bounded
    (Holm's step-down). NaN stays, and does not count. Source: Holm, Scandinavian Journal of
    Statistics 6 (1979).

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)[: np.sum(~np.isnan(p))]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)).clip(max=1)
    return adjusted


def interval(
    difference: dict, lows=("low", "t_low"), highs=("high", "t_high")
) -> tuple[float, float]:
    """The outer bounds of the intervals of a `paired_difference`; NaN where any of them is."""
    bounds = np.array([difference[name] for name in (*lows, *highs)], dtype=float)
    return bounds.min(), bounds.max()


def verdict(difference: dict, margin: float, p: float | None = None, one_word: bool = False) -> str:
    """What is said of a `paired_difference`: more or less, if both of its intervals exclude 0 and p
    (default: its own) is below 0.05; equivalent, if both are within ± margin; not shown, if neither.
    So where the intervals disagree, the more cautious word. If both hold: both words, or, as one
    word, equivalent.

    >>> bounds = {"low": 0.01, "t_low": 0.02, "high": 0.04, "t_high": 0.05, "p": 0.01}
    >>> verdict(bounds, 0.05), verdict(bounds, 0.05, one_word=True), verdict(bounds, 0.03, p=0.1)
    ('more, equivalent', 'equivalent', 'not shown')
    """
    low, high = interval(difference)
    clear = (difference["p"] if p is None else p) < 1 - CONFIDENCE
    words = {
        "more": clear and low > 0,
        "less": clear and high < 0,
        "equivalent": -margin <= low and high <= margin,
    }
    said = [word for word, is_so in words.items() if is_so]
    return ", ".join(said[-1:] if one_word else said) or "not shown"


def in_words(table: pd.DataFrame, rows: list[str], columns: str) -> pd.DataFrame:
    r"""Differences to be read: each with its bootstrap interval as text, in rows and columns by
    those of the table.

    >>> row = {"arm": "varying", "read": "at the end", "difference": -0.171, "low": -0.22, "high": -0.116}
    >>> in_words(pd.DataFrame([row]), ["arm"], "read").loc["varying", "at the end"].replace("\xa0", " ")
    '-0.17 (-0.22 to -0.12)'
    """
    numbers = (
        (table[name].round(2) + 0.0).map("{:.2f}".format) for name in ("difference", "low", "high")
    )  # + 0.0: no -0.00
    words = [
        f"{middle} ({low}\xa0to\xa0{high})" for middle, low, high in zip(*numbers)
    ]  # the interval stays in one line
    words = [text.removesuffix(" (nan\xa0to\xa0nan)") for text in words]  # of one pair
    words = table.assign(words=words)[table["difference"].notna()]
    return words.set_index([*rows, columns])["words"].unstack(sort=False).fillna("")


def summary(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """`describe` of the column `value` for every group: columns of `by`, then n, mean, sd, low,
    high.

    >>> summary(pd.DataFrame({"regime": ["fixed", "fixed"], "value": [0.5, 0.7]}), ["regime"])[["regime", "n", "mean"]]
      regime  n  mean
    0  fixed  2   0.6
    """
    rows = [
        {**dict(zip(by, key)), **describe(part)}
        for key, part in table.groupby(by, sort=False)["value"]
    ]
    return pd.DataFrame(rows, columns=[*by, "n", "mean", "sd", "low", "high"])
