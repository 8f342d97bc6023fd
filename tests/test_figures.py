"""What is published as a figure: fit for a page, for a colour-blind reader, and for one who does not see it."""

import re

import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from modvar_lib import data, figures, verify

PUBLISHED = [
    path for study in verify.studies() for path in sorted(verify.figures_of(study).glob("*.png"))
]


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_figure_is_of_a_pages_width_and_says_what_it_shows_and_where_from(path):
    picture = Image.open(path)
    assert picture.width == round(figures.PAGE * figures.STYLE["savefig.dpi"])
    about = picture.text
    assert path.parent.name in about["Title"] and len(about["Description"]) > 40
    notebook, tables = about["Source"].split(": ")
    folder = verify.tables_of(path.parent.name)
    assert (folder / "notebooks" / notebook).is_file()
    assert all((folder / name).is_file() for name in tables.split(", "))
    drawn = path.with_suffix(".svg").read_text()
    assert about["Description"][:30] in drawn


@pytest.mark.parametrize("study", verify.studies())
def test_every_figure_in_a_published_notebook_has_alternative_text(study):
    count = 0
    for path in verify.tables_of(study).glob("notebooks/*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                if "image/png" in output.get("data", {}):
                    count += 1
                    assert len(output.metadata["image/png"]["alt"]) > 20, path.name
    assert count > len(PUBLISHED)


def test_colours_can_be_told_apart_without_red_or_green():
    """Simulated deuteranopia and protanopia (Viénot, Brettel and Mollon 1999), as distances in linear RGB."""
    linear = np.array([to_rgb(colour) for colour in figures.COLOURS]) ** 2.2
    blind = {
        "protan": [[0.1124, 0.8876, 0], [0.1124, 0.8876, 0], [0.004, -0.004, 1]],
        "deutan": [[0.2927, 0.7073, 0], [0.2927, 0.7073, 0], [-0.0223, 0.0223, 1]],
    }
    for name, matrix in blind.items():
        seen = linear @ np.array(matrix).T
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
        assert apart[np.triu_indices(len(seen), 1)].min() > 0.04, name


def units(regime):
    table = pd.DataFrame([(e, u) for e in (0, 2, 4) for u in range(3)], columns=["epoch", "unit"])
    balance = (table["unit"] - 1) * table["epoch"] / 4
    return table.assign(regime=regime, layer="hidden1", balance=balance, share=1 / 3)


def test_the_film_and_its_animation_follow_the_epochs(tmp_path):
    both = pd.concat([units("fixed"), units("varying")])
    figure = figures.film(both, {0: "x - 2y", 2: "x + y"}, "toy")
    picture = figure.axes[1].images[0].get_array()
    assert picture.shape == (3, 4, 4)  # units, epochs, RGBA
    last_left, last_right = picture[0, -1, :3], picture[-1, -1, :3]
    assert last_left[2] > last_left[0] and last_right[0] > last_right[2]  # blue; orange
    assert np.allclose(picture[:, 0], picture[:, 1]) and (picture[0, 1] != picture[0, 2]).any()
    figures.animation(both, {0: "x - 2y", 2: "x + y"}, tmp_path / "film.gif")
    shown = Image.open(tmp_path / "film.gif")
    assert shown.n_frames >= 3
    first = np.asarray(shown.convert("RGB"))
    shown.seek(2)
    assert (np.asarray(shown.convert("RGB")) != first).any()


def test_no_notebook_shows_a_figure_without_words_for_it():
    for path in (data.ROOT / "notebooks").glob("*.ipynb"):
        source = "\n".join(
            c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"
        )
        assert not re.search(r"plt\.show|figures\.save", source), path.name
