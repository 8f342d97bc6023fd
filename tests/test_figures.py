"""Figures: fit for a page and for a colour-blind reader, the same bytes every time, and what they
show is what is measured."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from modvar_lib.analysis import figures


@pytest.fixture(autouse=True)
def style():
    figures.style()
    yield
    plt.close("all")


def test_colours_can_be_told_apart_without_red_or_green():
    """Simulated deuteranopia and protanopia (Viénot, Brettel and Mollon 1999), as distances in
    linear RGB."""
    linear = np.array([to_rgb(colour) for colour in figures.COLOURS]) ** 2.2
    blind = {
        "protan": [[0.1124, 0.8876, 0], [0.1124, 0.8876, 0], [0.004, -0.004, 1]],
        "deutan": [[0.2927, 0.7073, 0], [0.2927, 0.7073, 0], [-0.0223, 0.0223, 1]],
    }
    for name, matrix in blind.items():
        seen = linear @ np.array(matrix).T
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
        assert apart[np.triu_indices(len(seen), 1)].min() > 0.04, name


def test_an_arm_has_one_colour_and_marker_in_every_figure():
    both = figures.looks(["varying", "fixed"])
    assert [both[name]["color"] for name in ("fixed", "varying")] == figures.COLOURS[:2]
    many = figures.looks(["varying", *map(str, range(24)), "fixed"])
    assert both == {name: many[name] for name in both}
    assert len({tuple(look.values()) for look in many.values()}) == 26
    others = {look["color"] for name, look in many.items() if name not in both}
    assert not others & set(figures.COLOURS[:2])
    assert figures.looks(["a", "b"])["a"] == figures.looks(["fixed", "a"])["a"]
    assert len(figures.looks(map(str, range(60)))) == 60  # more than there are looks


def test_values_below_0_are_drawn_and_no_interval_below_0_of_what_cannot_be():
    rows = [("m", "h", "fixed", value) for value in (-0.2, 0.1, 0.3)]
    values = pd.DataFrame(rows, columns=["measure", "layer", "arm", "value"])
    summary = pd.DataFrame([("m", "h", "fixed", 0.07, -0.5, 0.6)])
    summary.columns = ["measure", "layer", "arm", "mean", "low", "high"]
    (ax,) = figures.by_layer(values, summary, {"m": "M"}, "toy").axes
    assert ax.get_ylim()[0] < -0.2
    for shift, lowest in ((0, -0.5), (0.3, 0)):
        moved = values.assign(value=values["value"] + shift)
        (ax,) = figures.dots(moved, summary, ["fixed"], {"m": "M"}, "toy").axes
        (bar,) = ax.collections[0].get_segments()
        assert bar[0][0] == pytest.approx(lowest)


def test_a_saved_figure_is_the_same_every_time_and_says_what_it_shows(tmp_path):
    for name in "ab":
        figure, ax = plt.subplots()
        ax.plot([0, 1], [2, 3])
        figure.suptitle("a line")
        figures.save(figure, tmp_path / name, "one line that rises", "04: summary.csv")
    for kind in ("png", "svg"):
        first, second = ((tmp_path / f"{name}.{kind}").read_bytes() for name in "ab")
        assert first == second
        assert b"one line that rises" in first and b"04: summary.csv" in first


def test_a_contrast_shows_both_intervals_and_the_word():
    numbers = {"difference": -0.2, "low": -0.3, "high": -0.1, "t_low": -0.32, "t_high": -0.08}
    numbers |= {"n": 16, "verdict": "less", "name": "a - b"}
    (ax,) = figures.contrasts(pd.DataFrame([numbers]), 0.05, "difference", "toy").axes
    spans = [tuple(part.get_segments()[0][:, 0]) for part in ax.collections[:2]]
    assert spans == [(-0.32, -0.08), (-0.3, -0.1)] and ax.texts[0].get_text() == "less, n = 16"


def test_along_shows_the_last_stretch_above_a_half():
    table = pd.DataFrame({"r2": [0.6, 0.3, 0.7, 0.9], "value": [9, 9, 1, 2], "epoch": [1, 2, 3, 4]})
    (ax,) = figures.along(table.assign(arm="fixed", seed=0, measure="m"), {"m": "M"}, "toy").axes
    line, end = ax.lines
    assert line.get_xydata().tolist() == [[0.7, 1], [0.9, 2]]
    assert end.get_xydata().tolist() == [[0.9, 2]]
