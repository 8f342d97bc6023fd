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


def test_a_regime_has_the_same_colour_in_every_figure():
    both = figures.colours(["varying", "fixed"])
    assert both == {"fixed": figures.COLOURS[0], "varying": figures.COLOURS[1]}
    assert figures.colours(["varying", "tables"])["varying"] == both["varying"]
    assert len(set(figures.colours(["fixed", "varying", "a", "b", "c", "d"]).values())) == 6


def test_a_saved_figure_is_the_same_every_time_and_says_what_it_shows(tmp_path):
    for name in "ab":
        figure, ax = plt.subplots()
        ax.plot([0, 1], [2, 3])
        figure.suptitle("a line")
        figures.save(
            figure, tmp_path / name, "one line that rises", "04_analysis.ipynb: summary.csv"
        )
    for kind in ("png", "svg"):
        first, second = ((tmp_path / f"{name}.{kind}").read_bytes() for name in "ab")
        assert (
            first == second
            and b"one line that rises" in first
            and b"04_analysis.ipynb: summary.csv" in first
        )


def test_a_contrast_shows_both_intervals_and_the_word():
    numbers = {
        "difference": -0.2,
        "low": -0.3,
        "high": -0.1,
        "t_low": -0.32,
        "t_high": -0.08,
        "n": 16,
        "verdict": "less",
        "name": "a - b",
    }
    (ax,) = figures.contrasts(pd.DataFrame([numbers]), 0.05, "difference", "toy").axes
    spans = [tuple(part.get_segments()[0][:, 0]) for part in ax.collections[:2]]
    assert spans == [(-0.32, -0.08), (-0.3, -0.1)] and ax.texts[0].get_text() == "less, n = 16"


def test_along_shows_the_last_stretch_above_a_half():
    table = pd.DataFrame({"r2": [0.6, 0.3, 0.7, 0.9], "value": [9, 9, 1, 2], "epoch": [1, 2, 3, 4]})
    (ax,) = figures.along(table.assign(arm="fixed", seed=0, measure="m"), {"m": "M"}, "toy").axes
    line, end = ax.lines
    assert line.get_xydata().tolist() == [[0.7, 1], [0.9, 2]] and end.get_xydata().tolist() == [
        [0.9, 2]
    ]


def test_readings_lie_in_the_plane_of_the_two_means():
    table = pd.DataFrame(
        {
            "architecture": "cnn",
            "tap": ["before", "after"],
            "fixed": [0.7, 0.6],
            "varying": [0.5, 0.55],
            "chance": [0.5, 0],
        }
    )
    (ax,) = figures.readings(table, {"fixed": [0.68, 0.02], "varying": [0.55, 0.05]}, "toy").axes
    assert sorted(tuple(points.get_offsets()[0]) for points in ax.collections) == [
        (0.6, 0.55),
        (0.7, 0.5),
    ]
    box = ax.patches[0]
    assert (*box.get_xy(), box.get_width(), box.get_height()) == pytest.approx(
        (0.66, 0.5, 0.04, 0.1)
    )
