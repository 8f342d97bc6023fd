import numpy as np
import pandas as pd
import pytest
from scipy import stats

from modvar_lib.statistics import describe, paired_difference


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
    )
    assert np.isnan(paired_difference(pd.Series([1.0]), pd.Series([np.nan]))["difference"])


def test_no_effect_is_not_found_and_a_large_one_is():
    noise = np.random.default_rng(0)
    first = pd.Series(noise.normal(size=16))
    false = [paired_difference(first, first + noise.normal(size=16))["p"] < 0.05 for _ in range(40)]
    assert np.mean(false) < 0.2
    assert paired_difference(first, first - 1 + 0.1 * noise.normal(size=16))["p"] < 0.001


def test_the_same_table_gives_the_same_interval():
    first, second = (pd.Series(np.random.default_rng(seed).normal(size=8)) for seed in (0, 1))
    assert paired_difference(first, second) == paired_difference(first, second)
