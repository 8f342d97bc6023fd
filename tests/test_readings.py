"""Readings of the score: which there are, and the chance of the original's numbers under one."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from modvar_lib.analysis import readings


@pytest.fixture(scope="module")
def measures():
    """Scores of 5 networks per regime that say where they come from: regime, layer, before or
    after, the seed."""
    places = {
        "hidden1": "hidden",
        "hidden2": "before_bottleneck",
        "bottleneck": "bottleneck",
        "pooled": "pooled",
        "readout": "readout",
    }
    value = {"hidden1": 0.1, "hidden2": 0.2, "bottleneck": 0.6, "pooled": 0.5, "readout": 9.0}
    rows = [
        {
            **{
                "architecture": "mlp",
                "regime": regime,
                "seed": seed,
                "failed": seed == 4,
                "copy": copy,
            },
            **{"layer": layer, "place": place, "side": side, "measure": measure},
            "value": value[layer]
            + (regime == "varying")
            + 10 * (measure == "activation_change_pre")
            + 0.01 * seed,
        }
        for regime, seed, copy, (layer, place), side, measure in product(
            ("fixed", "varying"),
            range(5),
            ("trained", "seen", "rotated"),
            places.items(),
            ("left", "both"),
            readings.TAPS,
        )
    ]
    return pd.DataFrame([*rows, {**rows[0], "measure": "rho"}])


def test_every_reading_is_there_once_and_says_what_it_takes(measures):
    table = readings.compared(
        readings.values(measures), {"fixed": [0.5, 0.1], "varying": [1.5, 0.1]}
    )
    assert len(table) == len(table.drop_duplicates(readings.OPEN)) == 2 * 2 * 3 * 2 * 2
    found = table.set_index(readings.OPEN)
    for layers, value in {
        "one vector": 0.5,
        "averaged": 0.3,
        "averaged, no bottleneck": 0.15,
    }.items():
        for tap, more in {"after": 0, "before": 10}.items():
            for networks, mean, n in (("in", 0.02, 5), ("out", 0.015, 4)):
                row = found.loc[("mlp", "held out", tap, layers, "left", networks)]
                assert row["fixed"] == pytest.approx(value + more + mean) and row["n_fixed"] == n
                assert row["varying"] == pytest.approx(1 + value + more + mean)
                assert row["chance"] == (layers == "one vector" and tap == "after")


def test_the_chance_is_the_share_of_sets_in_both_intervals():
    """By drawing."""
    random = np.random.default_rng(0)
    fixed, varying = random.normal(0.68, 0.05, 16), random.normal(0.5, 0.1, 13)
    drawn = [
        (random.choice(fixed, 4, False).mean(), random.choice(varying, 4, False).mean())
        for _ in range(4000)
    ]
    within = [abs(a - 0.68) <= 0.02 and abs(b - 0.55) <= 0.05 for a, b in drawn]
    chance = readings.share_within(fixed, 0.68, 0.02, 4) * readings.share_within(
        varying, 0.55, 0.05, 4
    )
    assert chance == pytest.approx(np.mean(within), abs=0.03)
    assert np.isnan(readings.share_within(fixed[:3], 0.68, 0.02, 4))
