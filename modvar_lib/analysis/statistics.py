"""Statistics over networks, the sampling unit: thin over scipy. Undefined is NaN; one network gives
no interval."""

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 9999
READS = END, EQUAL = "at the end", "at equal error"  # of training: how two arms are compared


def describe(values) -> dict[str, float]:
    """n, mean, sd (n - 1 in the denominator) and low, high: Student's t interval of the mean. NaN
    values are left out of all.

    >>> {name: round(float(value), 2) for name, value in describe([0.5, 0.6, 0.7, float("nan")]).items()}
    {'n': 3.0, 'mean': 0.6, 'sd': 0.1, 'low': 0.35, 'high': 0.85}
    """
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

    n pairs; difference, its mean; low, high: BCa bootstrap interval of it (9,999 resamples); t_low,
    t_high: Student's t interval; p: two-sided sign-flip test, exact up to 13 pairs; d: Cohen's d of
    the differences (mean / sd); note: why some are NaN. Pairs with a NaN are left out; fewer than 2
    pairs give NaN but for the mean.

    >>> result = paired_difference(pd.Series([0.5, 0.6, 0.7]), pd.Series([0.4, 0.4, 0.6]))
    >>> result["n"], round(float(result["difference"]), 3), float(result["p"])
    (3, -0.133, 0.25)
    """
    change = (
        (second - first).dropna().sort_index().to_numpy(dtype=float)
    )  # in one order: the bootstrap hangs on it
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


def verdict(difference: dict, margin: float, p: float | None = None) -> str:
    """What is said of a `paired_difference`: more or less, if both of its intervals exclude 0 and p
    (default: its own) is below 0.05; equivalent, if both are within ± margin; both words, if both
    hold; not shown, if neither. So where the intervals disagree, the more cautious word.

    >>> bounds = {"low": 0.01, "t_low": 0.02, "high": 0.04, "t_high": 0.05, "p": 0.01}
    >>> verdict(bounds, margin=0.05), verdict(bounds, margin=0.05, p=0.1), verdict(bounds, margin=0.03, p=0.1)
    ('more, equivalent', 'equivalent', 'not shown')
    """
    low, high = (
        min(difference["low"], difference["t_low"]),
        max(difference["high"], difference["t_high"]),
    )
    clear = (difference["p"] if p is None else p) < 1 - CONFIDENCE
    words = {
        "more": clear and low > 0,
        "less": clear and high < 0,
        "equivalent": -margin <= low and high <= margin,
    }
    return ", ".join(word for word, holds in words.items() if holds) or "not shown"


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


def at_equal_error(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Networks of two arms, matched by seed, where their errors are equal. Of each pair, r is the
    lower of the two final R²: that network is read at its end, the other where its R² first reaches
    r, linearly between the kept moments around that point.

    first, second: columns seed, epoch, r2, value. A row per seed of both: r2, first, second; NaN
    where there is no such point.

    >>> slow = pd.DataFrame({"seed": 0, "epoch": [1, 2], "r2": [0.2, 0.6], "value": [0.0, 0.5]})
    >>> fast = pd.DataFrame({"seed": 0, "epoch": [1, 2], "r2": [0.4, 0.8], "value": [0.1, 0.9]})
    >>> at_equal_error(slow, fast).round(2).to_dict("records")
    [{'r2': 0.6, 'first': 0.5, 'second': 0.5}]
    """
    rows = {}
    for seed in sorted(set(first["seed"]) & set(second["seed"])):
        curves = [
            table[table["seed"] == seed].sort_values("epoch")[["r2", "value"]].to_numpy()
            for table in (first, second)
        ]
        r2 = min(curve[-1, 0] for curve in curves)
        rows[seed] = {
            "r2": r2,
            **dict(zip(("first", "second"), (_reached(curve, r2) for curve in curves))),
        }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["r2", "first", "second"])


def matched_difference(first: pd.DataFrame, second: pd.DataFrame, read: str) -> dict[str, float]:
    """`paired_difference` of two arms, `read` being one of READS, and level: the mean of the first
    over the same pairs. Tables as in `at_equal_error`.

    >>> rows = [(0, 1, 0.4, 0.1), (0, 2, 0.8, 0.9), (1, 1, 0.3, 0.2), (1, 2, 0.7, 0.6)]
    >>> table = pd.DataFrame(rows, columns=["seed", "epoch", "r2", "value"])
    >>> less = table.assign(value=table["value"] / 2)
    >>> round(float(matched_difference(table, less, "at the end")["difference"]), 3)
    -0.375
    """
    if read == EQUAL:
        pairs = at_equal_error(first, second)
    else:
        ends = (
            arm.sort_values("epoch").groupby("seed").tail(1).set_index("seed")["value"]
            for arm in (first, second)
        )
        pairs = pd.concat(ends, axis=1, keys=["first", "second"])
    level = pairs["first"][pairs["second"].notna()].mean()
    return {"level": level} | paired_difference(pairs["first"], pairs["second"])


def _reached(curve: np.ndarray, r2: float) -> float:
    """The value where a curve of (R², value) first reaches r2."""
    if curve[-1, 0] == r2:
        return curve[-1, 1]
    after = np.flatnonzero(curve[:, 0] >= r2)
    if not len(after) or after[0] == 0:
        return np.nan
    (r2_before, before), (r2_after, value) = curve[after[0] - 1 : after[0] + 1]
    return before + (value - before) * (r2 - r2_before) / (r2_after - r2_before)


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


def differences(
    table: pd.DataFrame, by: list[str], first: str = "fixed", second: str = "varying", of="regime"
) -> pd.DataFrame:
    """`paired_difference` of `value`, second - first of the column `of`, paired by seed, for every
    group.

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
    return pd.DataFrame(rows, columns=[*by, *paired_difference(pd.Series(), pd.Series())])


def in_and_out(
    table: pd.DataFrame, by: list[str], first: str = "fixed", second: str = "varying"
) -> pd.DataFrame:
    """`differences` twice, told apart by a column `networks`: over all pairs of networks, and over
    those in which neither failed (the column `failed` of the table)."""
    parts = {"all": table, "neither failed": table[~table["failed"]]}
    rows = [
        differences(part, by, first, second).assign(networks=kept) for kept, part in parts.items()
    ]
    order = [*by, "networks", "n", "difference", "low", "high", "p", "d", "note"]
    return pd.concat(rows)[order].sort_values(by, kind="stable", ignore_index=True)
