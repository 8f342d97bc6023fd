"""Studies of every shape through the analyses: an answer, or one line each. Small tables, made from
those of one published network."""

import functools

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest

from modvar_lib import data, runs
from modvar_lib.analysis import figures, statistics
from modvar_lib.errors import InputError
from modvar_lib.settings import Settings

ANALYSES = [
    *("04_analysis", "05_why_the_score_moves", "06_ruler", "07_controls", "08_multiverse"),
    "12_two_arms",
]
PUBLISHED = data.ROOT / "results" / "paper" / "groups" / "MNIST-mlp-fixed" / "000-007"


@functools.cache
def published(name: str) -> pd.DataFrame:
    table = pd.read_csv(PUBLISHED / f"{name}.csv", keep_default_na=False, na_values=[""])
    table = table[table["seed"] == 0]
    if name == "training":
        table = table[table["epoch"].isin([2, 8])]
    return table.drop(columns=runs.KEYS)


def group(seeds: str = "0-2", r2: float = 0.9, **values) -> dict[str, pd.DataFrame]:
    """The tables of a group of three epochs, 8 epochs apart in `training`."""
    keys = {"dataset": "MNIST", "architecture": "mlp", "regime": "fixed", "variant": "default"}
    keys |= {name: values.pop(name) for name in list(values) if name in keys}
    about = Settings(seeds=seeds, epochs=10, period=2, final_epochs=2).runs()
    parts = {name: [] for name in ("runs", "history", "measures", "training")}
    for one in about:
        saved = one.saved() | keys | values
        random = np.random.default_rng([one.seed, *map(ord, keys["regime"] + keys["variant"])])
        parts["runs"].append(pd.DataFrame([saved]))
        history = pd.DataFrame({"epoch": range(10), "sum_r2": np.linspace(0.1, r2, 10)})
        history += [0, 0.001 * random.random()]
        parts["history"].append(history.assign(test_r2=history["sum_r2"], **keys, seed=one.seed))
        for name in ("measures", "training"):
            table = published(name).assign(**keys, seed=one.seed)
            shift = 1 + 0.1 * random.standard_normal(len(table))
            parts[name].append(table.assign(value=table["value"] * shift))
    return {name: pd.concat(part, ignore_index=True) for name, part in parts.items()}


def keep(results, *groups: dict[str, pd.DataFrame]):
    """The study `mine` with these groups; the folder of the first."""
    folders = []
    for tables in groups:
        first = tables["runs"].iloc[0]
        arm = "-".join(first[runs.KEYS[:-1]]).removesuffix("-default")
        seeds = sorted(tables["runs"]["seed"])
        folders.append(results / "mine" / "groups" / arm / f"{seeds[0]:03d}-{seeds[-1]:03d}")
        for name, table in tables.items():
            runs.write_table(table, folders[-1] / f"{name}.csv")
    return folders[0]


def arms(*names: str, **values) -> list[dict[str, pd.DataFrame]]:
    return [
        group(**dict(zip(("regime", "variant"), [*name.split(), "default"])), **values)
        for name in names
    ]


def rescaled(regime: str) -> dict[str, pd.DataFrame]:
    return group(regime=regime, variant="standardised", standardise=True)


def changed(change, *groups):
    return [{name: change(table) for name, table in tables.items()} for tables in groups]


def infinite(table):
    if "value" not in table:
        return table
    some = table["measure"].isin(["activation_change", "effect_selectivity", "interaction"])
    return table.assign(value=table["value"].mask(some & (table["seed"] == 0), np.inf))


def other_layers(table):
    names = {"hidden1": "gate", "hidden2": "mix"}
    return table.replace({"layer": names}) if "layer" in table else table


OURS = {"failed": "yes", "pairs": 1, "r2": "x", "arm": "mine", "networks": 2, "network": "n"}
SHAPES = {  # name: groups
    "original": lambda: arms("fixed", "varying"),
    "all failed": lambda: arms("fixed", "varying", r2=0.2),
    "one arm failed": lambda: [*arms("fixed"), *arms("varying", r2=0.2)],
    "variants only": lambda: arms("fixed short", "varying short", "varying long"),
    "one arm": lambda: arms("fixed"),
    "one arm, not an original one": lambda: arms("mine"),
    "no arm of the original": lambda: arms("mine", "yours"),
    "one seed": lambda: arms("fixed", "varying", seeds="0"),
    "other seeds": lambda: [*arms("fixed", seeds="0-2"), *arms("varying", seeds="4-6")],
    "a regime of one's own": lambda: [*arms("fixed", "varying", "mine"), rescaled("varying")],
    "an architecture of one's own": lambda: changed(
        other_layers, *arms("fixed", "varying", architecture="mine")
    ),
    "two data sets": lambda: [
        *arms("fixed", "varying"),
        *arms("fixed", "varying", dataset="OneHot"),
    ],
    "another data set": lambda: arms("fixed", "varying", dataset="OneHot"),
    "columns called like ours": lambda: changed(
        lambda table: table.assign(**OURS), *arms("fixed", "varying")
    ),
    "rows in reverse": lambda: changed(lambda table: table[::-1], *arms("fixed", "varying")),
    "infinity": lambda: changed(infinite, *arms("fixed", "varying")),
    "standardised": lambda: [*arms("fixed"), rescaled("varying"), rescaled("tables")],
    "nothing within training": lambda: [
        {name: table for name, table in one.items() if name != "training"}
        for one in arms("fixed", "varying")
    ],
}


ODDEST = ["original", "all failed", "variants only", "one arm", "infinity"]  # the others are slow


def execute(name: str, **parameters) -> dict:
    """The code of a notebook, here and now; figures are drawn, not saved."""
    cells = nbformat.read(data.ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    space = {}
    for cell in cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, name, "exec"), space)
            if "parameters" in cell.metadata.get("tags", []):
                space |= parameters
    return space


@pytest.fixture
def quick(monkeypatch):
    """Few resamples, and no pictures."""
    monkeypatch.setattr(statistics, "RESAMPLES", 49)
    monkeypatch.setattr(figures, "show", lambda figure, *args: plt.close(figure))


@pytest.mark.filterwarnings("ignore")  # a bootstrap of two pairs warns
@pytest.mark.parametrize(
    "shape",
    [shape if shape in ODDEST else pytest.param(shape, marks=pytest.mark.slow) for shape in SHAPES],
)
@pytest.mark.parametrize("name", ANALYSES)
def test_a_study_of_any_shape_has_an_answer(results, quick, shape, name, capsys):
    keep(results, *SHAPES[shape]())
    try:
        execute(name, study="mine")
    except InputError as error:
        assert name == "12_two_arms" and shape.startswith("one arm") and "\n" not in str(error)
        return
    said = capsys.readouterr().out
    assert "results:" in said and "published study" not in said.replace(
        "The published study has 16", ""
    )


def cut(folder):
    """At a line's end: the last network lacks rows."""
    path = folder / "measures.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-40]))


def half(folder):
    path = folder / "measures.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) // 2]))


def short_history(folder):
    path = folder / "history.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def conflict(folder):
    path = folder / "measures.csv"
    path.write_text(path.read_text().replace("\n", "\n<<<<<<< HEAD\n", 1))


def short_row(folder):
    path = folder / "measures.csv"
    path.write_text(path.read_text() + "MNIST,mlp,fixed,default\n")


@pytest.mark.parametrize("spoil", [cut, half, short_history, conflict, short_row])
def test_a_damaged_table_is_one_line(results, quick, spoil):
    spoil(keep(results, *arms("fixed", "varying")))
    for name in ANALYSES:
        with pytest.raises(InputError, match=r"^study: .*csv is damaged \(.*\); ") as error:
            execute(name, study="mine")
        assert "\n" not in str(error.value)


def test_two_data_sets_are_not_pooled(results, quick):
    """The second has its own name; what is told of the first is what is told without the second."""
    alone, both = [], arms("fixed", "varying")
    keep(results, *both)
    alone = execute("04_analysis", study="mine")["summary"]
    keep(results, *arms("fixed", "varying", dataset="OneHot"))
    together = execute("04_analysis", study="mine")["summary"]
    assert set(together["architecture"]) == {"mlp", "OneHot mlp"}
    pd.testing.assert_frame_equal(together[together["dataset"] == "MNIST"], alone)


def test_rows_in_reverse_and_columns_of_ones_own_change_nothing(results, quick):
    found = {}
    for shape in ("original", "rows in reverse", "columns called like ours"):
        keep(results, *SHAPES[shape]())
        table = execute("12_two_arms", study="mine")["found"]
        found[shape] = table[["read", "networks", "n", "difference", "p"]]
    for table in found.values():
        pd.testing.assert_frame_equal(table, found["original"])


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"first": "varyin"}, "first: got 'varyin'; allowed: .*did you mean varying"),
        ({"second": "none"}, "second: got 'none'; allowed: fixed, varying"),
        ({"first": "fixed", "second": "fixed"}, "second: got 'fixed'; allowed: another arm"),
        ({"measure": "beauty"}, "measure: got 'beauty'; allowed: "),
        ({"layer": "hidden9"}, "layer: got 'hidden9'; allowed: .*hidden2"),
        ({"architecture": "cnn"}, "architecture: got 'cnn'; allowed: mlp"),
        ({"margin": -1}, "margin: got -1; allowed: a number from 0"),
    ],
)
def test_any_two_arms_any_measure(results, quick, given, line):
    keep(results, *arms("fixed", "varying"))
    with pytest.raises(InputError, match=f"^{line}"):
        execute("12_two_arms", study="mine", **given)


def test_the_asked_for_contrast_is_told(results, quick):
    keep(results, *arms("fixed", "varying", "mine"))
    asked = {"first": "varying", "second": "mine", "measure": "interaction", "layer": "hidden1"}
    found = execute("12_two_arms", study="mine", **asked)["found"]
    assert set(found["contrast"]) == {"mine - varying"} and (found["n"].dropna() == 3).any()
    assert set(found["measure"]) == {"interaction"}
