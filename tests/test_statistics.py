import numpy as np
import pandas as pd
import pytest
from scipy import stats

from modvar_lib import metrics
from modvar_lib.analysis.statistics import (
    at_equal_error,
    describe,
    differences,
    holm,
    in_and_out,
    paired_difference,
    verdict,
)


def test_describe_by_hand():
    found = describe([1.0, 2.0, 3.0, np.nan])
    assert (found["n"], found["mean"], found["sd"]) == (3, 2.0, 1.0)
    half = stats.t.ppf(0.975, 2) / np.sqrt(3)
    assert (found["low"], found["high"]) == pytest.approx((2 - half, 2 + half))


def test_one_network_gives_no_interval_and_none_gives_nothing():
    one, none = describe([0.7]), describe([])
    assert (
        one["n"] == 1
        and one["mean"] == 0.7
        and np.isnan([one["sd"], one["low"], one["high"]]).all()
    )
    assert none["n"] == 0 and np.isnan([none["mean"], none["low"]]).all()


def test_differences_are_paired_by_seed():
    first = pd.Series([1.0, 5.0, 9.0], index=[0, 1, 2])
    second = pd.Series([10.0, 6.5, 1.5], index=[2, 1, 0])
    found = paired_difference(first, second)
    assert found["n"] == 3 and found["difference"] == pytest.approx((0.5 + 1.5 + 1.0) / 3)
    assert (
        found["low"] > 0
        and found["p"] == pytest.approx(2 / 8)
        and found["d"] == pytest.approx(1.0 / 0.5)
    )


def test_undefined_pairs_are_left_out():
    found = paired_difference(pd.Series([1.0, np.nan]), pd.Series([2.0, 3.0]))
    assert (
        found["n"] == 1
        and found["difference"] == 1
        and np.isnan([found["low"], found["p"], found["d"]]).all()
        and found["note"] == "one pair only"
    )
    nothing = paired_difference(pd.Series([1.0]), pd.Series([np.nan]))
    assert np.isnan(nothing["difference"]) and nothing["note"] == "no seed has both values"
    apart = paired_difference(pd.Series([1.0], index=[0]), pd.Series([2.0], index=[1]))
    assert apart["n"] == 0 and apart["note"] == "no seed has both values"


def test_no_effect_is_not_found_and_a_large_one_is():
    noise = np.random.default_rng(0)
    first = pd.Series(noise.normal(size=16))
    false = [paired_difference(first, first + noise.normal(size=16))["p"] < 0.05 for _ in range(40)]
    assert np.mean(false) < 0.2
    assert paired_difference(first, first - 1 + 0.1 * noise.normal(size=16))["p"] < 0.001


def curve(seed, *points):
    """Of (R², value), an epoch each."""
    return pd.DataFrame(points, columns=["r2", "value"]).assign(
        seed=seed, epoch=range(1, len(points) + 1)
    )


def test_at_equal_error_by_hand():
    """The better network, whichever it is, where it first reaches the R² at which the other ended;
    none that began above."""
    slow = pd.concat(
        [curve(0, (0.1, 1), (0.5, 2)), curve(1, (0.3, 5), (0.9, 6)), curve(2, (0.2, 0), (0.3, 1))]
    )
    fast = pd.concat(
        [
            curve(0, (0.4, 3), (0.6, 7), (0.2, 9), (0.8, 8)),
            curve(1, (0.2, 0), (0.7, 4)),
            curve(2, (0.6, 2), (0.9, 3)),
        ]
    )
    found = at_equal_error(slow.sample(frac=1, random_state=0), fast)
    assert found["r2"].tolist() == [0.5, 0.7, 0.3]
    assert found["first"].tolist() == pytest.approx([2, 5 + 2 / 3, 1])
    assert found["second"].tolist() == pytest.approx([5, 4, np.nan], nan_ok=True)


def test_the_verdict_is_the_more_cautious_of_two_intervals():
    def said(low, high, t_low, t_high, p=0.001):
        return verdict(
            {"low": low, "high": high, "t_low": t_low, "t_high": t_high, "p": p}, margin=0.05
        )

    assert said(0.1, 0.3, 0.1, 0.3) == "more" and said(-0.3, -0.1, -0.3, -0.1) == "less"
    assert said(0.1, 0.3, -0.1, 0.3) == said(0.1, 0.3, 0.1, 0.3, p=0.06) == "not shown"
    assert said(0.01, 0.03, 0.01, 0.02) == "more, equivalent"
    assert (
        said(-0.04, 0.04, -0.05, 0.05) == "equivalent"
        and said(-0.04, 0.04, -0.06, 0.05) == "not shown"
    )
    nan = float("nan")
    assert said(nan, nan, nan, nan, nan) == "not shown"


def test_differences_in_and_out_of_failures():
    rows = [("fixed", s, 1.0, False) for s in range(3)] + [("varying", 0, 2.0, False)]
    rows += [("varying", 1, 2.5, False), ("varying", 2, 9.0, True)]
    table = pd.DataFrame(rows, columns=["regime", "seed", "value", "failed"]).assign(what="it")
    found = in_and_out(table, ["what"]).set_index("networks")
    assert found["n"].to_dict() == {"all": 3, "neither failed": 2}
    assert found["difference"].to_dict() == {"all": 3.5, "neither failed": 1.25}


def test_values_against_chance():
    own = {"side_selectivity": 0.7, "side_selectivity_rotated": 0.4}
    own |= {"interchange_error": 1.0, "interchange_error_random": 4.0}
    table = pd.DataFrame(
        [{"seed": 0, "measure": m, "value": v, "note": ""} for m, v in own.items()]
    )
    found = metrics.against_chance(table).set_index("measure")["value"]
    assert found["side_selectivity_above_chance"] == pytest.approx(0.3)
    assert found["interchange_error_over_chance"] == 0.25 and len(found) == 6


def test_students_interval_of_a_paired_difference_is_scipys():
    first, second = (pd.Series(np.random.default_rng(seed).normal(size=9)) for seed in (0, 1))
    found = paired_difference(first, second)
    theirs = stats.ttest_rel(second, first).confidence_interval(0.95)
    assert (found["t_low"], found["t_high"]) == pytest.approx((theirs.low, theirs.high))
    assert found["low"] != found["t_low"] and found["low"] < found["difference"] < found["high"]


def test_the_bootstrap_is_of_pairs():
    """Seeds that differ a hundred times more than regimes do: pairs cancel it."""
    seeds = pd.Series(100 * np.random.default_rng(0).normal(size=16))
    found = paired_difference(seeds, seeds + np.random.default_rng(1).normal(1, 0.5, size=16))
    assert 0.5 < found["low"] < 1 < found["high"] < 1.6 and found["p"] < 0.001


def test_holm_by_hand():
    """Three tests and one that was not made."""
    assert holm([0.02, np.nan, 0.5, 0.01]) == pytest.approx([0.04, np.nan, 0.5, 0.03], nan_ok=True)
    assert holm([0.4, 0.4, 0.4]) == pytest.approx([1, 1, 1]) and len(holm([])) == 0


def test_differences_of_groups_do_not_mix_them():
    rows = [
        (layer, regime, seed, value)
        for layer, shift in (("a", 1), ("b", -1))
        for seed in range(3)
        for regime, value in (("fixed", seed), ("varying", seed + shift + 0.1 * seed))
    ]
    table = pd.DataFrame(rows, columns=["layer", "regime", "seed", "value"])
    found = differences(table.sample(frac=1, random_state=0), ["layer"]).set_index("layer")[
        "difference"
    ]
    assert found.to_dict() == pytest.approx({"a": 1.1, "b": -0.9})
