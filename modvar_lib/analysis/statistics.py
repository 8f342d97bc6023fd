"""Statistics over networks, the sampling unit: thin over scipy. What is undefined is NaN."""

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 9999


def describe(values) -> dict[str, float]:
    """n, mean, sd (n - 1 in the denominator) and low, high: Student's t interval of the mean.
    Values that are NaN or infinite are left out; one alone has no sd and no interval.

    >>> found = describe([0.5, 0.6, 0.7, float("nan")])
    >>> {name: round(float(value), 2) for name, value in found.items()}
    {'n': 3.0, 'mean': 0.6, 'sd': 0.1, 'low': 0.35, 'high': 0.85}
    """
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    n = len(values)
    mean = values.mean() if n else np.nan
    sd = values.std(ddof=1) if n > 1 else np.nan
    low = high = np.nan
    if sd > 0:
        low, high = stats.t.interval(CONFIDENCE, n - 1, mean, sd / np.sqrt(n))
    return {"n": n, "mean": mean, "sd": sd, "low": low, "high": high}


def paired_difference(first: pd.Series, second: pd.Series) -> dict:
    """second - first over networks with the same seed (the index of both series).

    n pairs; difference, its mean; low, high: BCa bootstrap interval of it; t_low, t_high: Student's
    t interval; p: two-sided sign-flip test, exact up to 13 pairs; d: Cohen's d (mean / sd of the
    differences); note: why these are NaN. Pairs with a NaN, or infinite, are left out.

    >>> result = paired_difference(pd.Series([0.5, 0.6, 0.7]), pd.Series([0.4, 0.4, 0.6]))
    >>> result["n"], round(float(result["difference"]), 3), float(result["p"])
    (3, -0.133, 0.25)
    """
    change = (second - first).astype(float).sort_index().to_numpy()  # resamples depend on the order
    change = change[np.isfinite(change)]
    n, (_, mean, sd, t_low, t_high) = len(change), describe(change).values()
    names = ("low", "high", "t_low", "t_high", "p", "d")
    found = {"n": n, "difference": mean} | dict.fromkeys(names, np.nan) | {"note": ""}
    if n < 2 or np.ptp(change) == 0:
        why = "no seed has both values", "one pair only", "the pairs do not differ"
        return found | {"note": why[min(n, 2)]}
    options = {"n_resamples": RESAMPLES, "rng": 0}
    boot = stats.bootstrap((change,), np.mean, confidence_level=CONFIDENCE, **options)
    low, high = boot.confidence_interval
    test = stats.permutation_test((change,), np.mean, permutation_type="samples", **options)
    bounds = {"low": low, "high": high, "t_low": t_low, "t_high": t_high}
    return found | bounds | {"p": test.pvalue, "d": mean / sd}


def holm(p, size: int = 0) -> np.ndarray:
    """p values of a family of tests, adjusted so that the chance of any false alarm is bounded
    (Holm's step-down). NaN stays, and does not count, unless size says how many tests were
    declared. Source: Holm, Scandinavian Journal of Statistics 6 (1979).

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)[: np.sum(~np.isnan(p))]
    adjusted = np.full(len(p), np.nan)
    left = max(size, len(order)) - np.arange(len(order))
    adjusted[order] = np.maximum.accumulate(p[order] * left).clip(max=1)
    return adjusted


def interval(difference: dict, kinds=("", "t_")) -> tuple[float, float]:
    """The outer bounds of the intervals of a `paired_difference` (kinds: "", the bootstrap's; "t_",
    Student's); NaN where any of them is."""
    bounds = np.array([difference[kind + end] for kind in kinds for end in ("low", "high")], float)
    return bounds.min(), bounds.max()


def verdict(difference: dict, margin: float, p: float | None = None, one_word: bool = False) -> str:
    """What is said of a `paired_difference`: more or less, if both of its intervals exclude 0 and p
    (default: its own) is below 0.05; equivalent, if both are within ± margin; not shown, if
    neither. If both hold: both words, or, as one word, equivalent.

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
    r"""Differences to be read, each with its bootstrap interval, in rows and columns by those of
    the table.

    >>> row = {"arm": "varying", "read": "at the end", "difference": -0.171}
    >>> row |= {"low": -0.22, "high": -0.116}
    >>> in_words(pd.DataFrame([row]), ["arm"], "read").loc["varying"].str.replace("\xa0", " ").item()
    '-0.17 (-0.22 to -0.12)'
    """
    text = "{:.2f} ({:.2f}\xa0to\xa0{:.2f})".format  # the interval stays in one line
    numbers = table[["difference", "low", "high"]].round(2) + 0.0  # no -0.00
    words = [text(*row).removesuffix(" (nan\xa0to\xa0nan)") for row in numbers.to_numpy()]
    words = table.assign(words=words).dropna(subset="difference")
    return words.set_index([*rows, columns])["words"].unstack(sort=False).fillna("")


def summary(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """`describe` of the column `value` for every group: columns of `by`, n, mean, sd, low, high.

    >>> table = pd.DataFrame({"regime": ["fixed", "fixed"], "value": [0.5, 0.7]})
    >>> summary(table, ["regime"])[["regime", "n", "mean"]]
      regime  n  mean
    0  fixed  2   0.6
    """
    parts = [part for _, part in table.groupby(by, sort=False)]
    rows = [part[by].iloc[0].to_dict() | describe(part["value"]) for part in parts]
    return pd.DataFrame(rows, columns=[*by, "n", "mean", "sd", "low", "high"])
