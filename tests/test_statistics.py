import numpy as np
import pandas as pd
import pytest
from scipy import stats

from modvar_lib import metrics
from modvar_lib.analysis.statistics import (
    describe,
    holm,
    in_words,
    interval,
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
    assert (one["n"], one["mean"], none["n"]) == (1, 0.7, 0)
    assert np.isnan([one["sd"], one["low"], one["high"], none["mean"], none["low"]]).all()


def test_differences_are_paired_by_seed():
    first = pd.Series([1.0, 5.0, 9.0], index=[0, 1, 2])
    second = pd.Series([10.0, 6.5, 1.5], index=[2, 1, 0])
    found = paired_difference(first, second)
    assert found["n"] == 3 and found["difference"] == pytest.approx((0.5 + 1.5 + 1.0) / 3)
    assert found["low"] > 0 and found["p"] == pytest.approx(2 / 8)
    assert found["d"] == pytest.approx(1.0 / 0.5)


INF, NAN = float("inf"), float("nan")
UNDEFINED = [  # values of the second arm by seed (of the first: 1, 2, 3), n, difference, note
    ({0: 2.0, 1: NAN}, 1, 1.0, "one pair only"),
    ({0: NAN}, 0, NAN, "no seed has both values"),
    ({7: 2.0}, 0, NAN, "no seed has both values"),
    ({0: 2.0, 1: 3.0, 2: 4.0}, 3, 1.0, "the pairs do not differ"),
    ({0: 2.0, 1: INF, 2: 5.0}, 2, 1.5, ""),
]


@pytest.mark.parametrize(("second", "n", "difference", "note"), UNDEFINED)
def test_undefined_pairs_are_left_out(second, n, difference, note):
    found = paired_difference(pd.Series([1.0, 2.0, 3.0]), pd.Series(second))
    assert found["n"] == n and found["difference"] == pytest.approx(difference, nan_ok=True)
    assert found["note"] == note
    if note:
        bounds = [found[name] for name in ("low", "high", "t_low", "t_high", "p", "d")]
        assert np.isnan(bounds).all()


def test_no_effect_is_not_found_and_a_large_one_is():
    noise = np.random.default_rng(0)
    first = pd.Series(noise.normal(size=16))
    false = [paired_difference(first, first + noise.normal(size=16))["p"] < 0.05 for _ in range(40)]
    assert np.mean(false) < 0.2
    assert paired_difference(first, first - 1 + 0.1 * noise.normal(size=16))["p"] < 0.001


def bounds(low, high, t_low, t_high, p=0.001):
    return {"low": low, "high": high, "t_low": t_low, "t_high": t_high, "p": p}


VERDICTS = [  # intervals (and p), and what is said at a margin of 0.05
    ((0.1, 0.3, 0.1, 0.3), "more"),
    ((-0.3, -0.1, -0.3, -0.1), "less"),
    ((0.1, 0.3, -0.1, 0.3), "not shown"),
    ((0.1, 0.3, 0.1, 0.3, 0.06), "not shown"),
    ((0.01, 0.03, 0.01, 0.02), "more, equivalent"),
    ((-0.04, 0.04, -0.05, 0.05), "equivalent"),
    ((-0.04, 0.04, -0.06, 0.05), "not shown"),
    ((NAN, NAN, NAN, NAN, NAN), "not shown"),
    *((half, "not shown") for half in ((NAN, 3, 1, 3), (1, NAN, 1, 3), (1, 3, NAN, 3))),
    ((1, 3, 1, NAN), "not shown"),
]


@pytest.mark.parametrize(("ends", "word"), VERDICTS)
def test_the_verdict_is_the_more_cautious_of_two_intervals(ends, word):
    assert verdict(bounds(*ends), margin=0.05) == word
    assert np.isnan(interval(bounds(*ends))).all() == np.isnan(ends).any()


def test_no_difference_is_no_word():
    assert in_words(pd.DataFrame(columns=["a", "b", "difference", "low", "high"]), ["a"], "b").empty


def test_one_word_is_equivalent():
    both = bounds(0.01, 0.03, 0.01, 0.02)
    assert verdict(both, 0.05, one_word=True) == "equivalent"
    assert verdict(both, 0.02, one_word=True) == "more"


def test_what_is_infinite_is_left_out_as_what_is_undefined():
    found = describe([1.0, np.inf, 3.0, -np.inf])
    assert (found["n"], found["mean"]) == (2, 2.0)


def test_values_against_chance():
    own = {"side_selectivity": 0.7, "side_selectivity_rotated": 0.4}
    own |= {"interchange_error": 1.0, "interchange_error_random": 4.0}
    table = pd.DataFrame(
        [{"seed": 0, "measure": m, "value": v, "note": ""} for m, v in own.items()]
    )
    found = metrics.against_chance(table).set_index("measure")["value"]
    assert found["side_selectivity_above_chance"] == pytest.approx(0.3)
    assert found["interchange_error_over_chance"] == 0.25 and len(found) == 6


def test_the_bootstrap_is_of_pairs():
    """Seeds that differ a hundred times more than regimes do: pairs cancel it."""
    seeds = pd.Series(100 * np.random.default_rng(0).normal(size=16))
    found = paired_difference(seeds, seeds + np.random.default_rng(1).normal(1, 0.5, size=16))
    assert 0.5 < found["low"] < 1 < found["high"] < 1.6 and found["p"] < 0.001


def test_holm_by_hand():
    """Three tests and one that was not made."""
    assert holm([0.02, np.nan, 0.5, 0.01]) == pytest.approx([0.04, np.nan, 0.5, 0.03], nan_ok=True)
    assert holm([0.4, 0.4, 0.4]) == pytest.approx([1, 1, 1]) and len(holm([])) == 0
