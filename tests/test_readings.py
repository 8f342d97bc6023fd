"""Readings of the score: which there are, and the chance of the original's numbers under one."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from modvar_lib.analysis import readings

PLACES = {  # of each layer, what it is, and its score under `fixed`, after the nonlinearity
    "hidden1": ("hidden", 0.1),
    "hidden2": ("before_bottleneck", 0.2),
    "bottleneck": ("bottleneck", 0.6),
    "pooled": ("pooled", 0.5),
    "readout": ("readout", 9.0),
}


@pytest.fixture(scope="module")
def measures():
    """Scores of 5 networks per regime that say where they come from: regime, layer, before or
    after, the seed."""
    axes = {"regime": ["fixed", "varying"], "seed": range(5), "layer": PLACES}
    axes |= {"copy": ["trained", "seen", "rotated"], "side": ["left", "both"]}
    axes["measure"] = [*readings.TAPS, "rho"]
    table = pd.DataFrame([*product(*axes.values())], columns=[*axes])
    table["place"], value = (table["layer"].map(lambda name, k=k: PLACES[name][k]) for k in (0, 1))
    value = value + (table["regime"] == "varying") + 0.01 * table["seed"]
    value += 10 * (table["measure"] == "activation_change_pre")
    return table.assign(architecture="mlp", failed=table["seed"] == 4, value=value)


def test_every_reading_is_there_once_and_says_what_it_takes(measures):
    original = {"fixed": [0.5, 0.1], "varying": [1.5, 0.1]}
    table = readings.compared(readings.values(measures), original)
    assert len(table) == len(table.drop_duplicates(readings.OPEN)) == 2 * 2 * 3 * 2 * 2
    found = table.set_index(readings.OPEN)
    means = {"one vector": 0.5, "averaged": 0.3, "averaged, no bottleneck": 0.15}
    taps, counted = {"after": 0, "before": 10}, {"in": (0.02, 5), "out": (0.015, 4)}
    for layers, tap, networks in product(means, taps, counted):
        row, (seeds, n) = (
            found.loc[("mlp", "held out", tap, layers, "left", networks)],
            counted[networks],
        )
        assert row["fixed"] == pytest.approx(means[layers] + taps[tap] + seeds)
        assert row["varying"] == pytest.approx(1 + row["fixed"]) and row["n_fixed"] == n
        assert row["chance"] == (layers == "one vector" and tap == "after")


def test_the_chance_is_the_share_of_sets_in_both_intervals():
    """By drawing."""
    random = np.random.default_rng(0)
    fixed, varying = random.normal(0.68, 0.05, 16), random.normal(0.5, 0.1, 13)
    drawn = [[random.choice(of, 4, False).mean() for of in (fixed, varying)] for _ in range(4000)]
    within = [abs(a - 0.68) <= 0.02 and abs(b - 0.55) <= 0.05 for a, b in drawn]
    chance = readings.share_within(fixed, 0.68, 0.02, 4)
    chance *= readings.share_within(varying, 0.55, 0.05, 4)
    assert chance == pytest.approx(np.mean(within), abs=0.03)
    assert np.isnan(readings.share_within(fixed[:3], 0.68, 0.02, 4))
