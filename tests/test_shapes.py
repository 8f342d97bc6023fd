"""Studies of every shape through the analyses: an answer, or one line each. Small tables, made from
those of one published network."""

import functools
import shutil

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest

from modvar_lib import data, runs
from modvar_lib.analysis import figures, statistics
from modvar_lib.errors import InputError
from modvar_lib.metrics import transfer
from modvar_lib.settings import Settings

ANALYSES = ["04_analysis", "05_why_the_score_moves", "06_ruler", "07_controls", "08_multiverse"]
ANALYSES += ["12_two_arms"]
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
    words = [[*name.split(), "default"] for name in names]
    return [group(regime=regime, variant=variant, **values) for regime, variant, *_ in words]


def rescaled(regime: str) -> dict[str, pd.DataFrame]:
    return group(regime=regime, variant="standardised", standardise=True)


def each(change, groups):
    return [{name: change(table) for name, table in tables.items()} for tables in groups]


def infinite(table):
    if "value" not in table:
        return table
    some = table["measure"].isin(["activation_change", "effect_selectivity", "interaction"])
    return table.assign(value=table["value"].mask(some & (table["seed"] == 0), np.inf))


def other_layers(table):
    return table.replace({"hidden1": "gate", "hidden2": "mix"})


def whole_training(groups):
    return [{k: table for k, table in one.items() if k != "training"} for one in groups]


TWO = ("fixed", "varying")
OURS = {"failed": "yes", "pairs": 1, "r2": "x", "arm": "mine", "networks": 2, "network": "n"}
SHAPES = {  # name: groups
    "original": lambda: arms(*TWO),
    "all failed": lambda: arms(*TWO, r2=0.2),
    "variants only": lambda: arms("fixed short", "varying short", "varying long"),
    "one arm": lambda: arms("fixed"),
    "infinity": lambda: each(infinite, arms(*TWO)),
    "one arm failed": lambda: [*arms("fixed"), *arms("varying", r2=0.2)],
    "one arm, not an original one": lambda: arms("mine"),
    "no arm of the original": lambda: arms("mine", "yours"),
    "one seed": lambda: arms(*TWO, seeds="0"),
    "other seeds": lambda: [*arms("fixed", seeds="0-2"), *arms("varying", seeds="4-6")],
    "a regime of one's own": lambda: [*arms(*TWO, "mine"), rescaled("varying")],
    "an architecture of one's own": lambda: each(other_layers, arms(*TWO, architecture="mine")),
    "two data sets": lambda: [*arms(*TWO), *arms(*TWO, dataset="OneHot")],
    "another data set": lambda: arms(*TWO, dataset="OneHot"),
    "columns called like ours": lambda: each(lambda table: table.assign(**OURS), arms(*TWO)),
    "rows in reverse": lambda: each(lambda table: table[::-1], arms(*TWO)),
    "standardised": lambda: [*arms("fixed"), rescaled("varying"), rescaled("tables")],
    "nothing within training": lambda: whole_training(arms(*TWO)),
}
QUICK = 5  # of them; the others are slow


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
    [pytest.param(s, marks=[pytest.mark.slow] * (i >= QUICK)) for i, s in enumerate(SHAPES)],
)
@pytest.mark.parametrize("name", ANALYSES)
def test_a_study_of_any_shape_has_an_answer(results, quick, shape, name, capsys):
    keep(results, *SHAPES[shape]())
    try:
        execute(name, study="mine")
    except InputError as error:
        assert name == "12_two_arms" and shape.startswith("one arm") and "\n" not in str(error)
        return
    said = capsys.readouterr().out.replace("The published study has 16", "")
    assert "results:" in said and "published study" not in said


DAMAGE = {  # of a group: the table, and what becomes of its lines
    "cut at a line's end": ("measures.csv", lambda lines: lines[:-40]),
    "half": ("measures.csv", lambda lines: lines[: len(lines) // 2]),
    "without an epoch": ("history.csv", lambda lines: lines[:-1]),
    "in conflict": ("measures.csv", lambda lines: [lines[0], "<<<<<<< HEAD\n", *lines[1:]]),
    "with a short row": ("measures.csv", lambda lines: [*lines, "MNIST,mlp,fixed,default\n"]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_table_is_one_line(results, quick, damage):
    name, change = DAMAGE[damage]
    path = keep(results, *arms(*TWO)) / name
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))
    for analysis in ANALYSES:
        with pytest.raises(InputError, match=r"^study: .*csv is damaged \([^\n]*\); [^\n]*$"):
            execute(analysis, study="mine")


def test_two_data_sets_are_not_pooled(results, quick):
    """The second has its own name; what is told of the first is what is told without the second."""
    keep(results, *arms(*TWO))
    alone = execute("04_analysis", study="mine")["summary"]
    keep(results, *arms(*TWO, dataset="OneHot"))
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
    keep(results, *arms(*TWO))
    with pytest.raises(InputError, match=f"^{line}"):
        execute("12_two_arms", study="mine", **given)


def test_the_asked_for_contrast_is_told(results, quick):
    keep(results, *arms(*TWO, "mine"))
    asked = {"first": "varying", "second": "mine", "measure": "interaction", "layer": "hidden1"}
    found = execute("12_two_arms", study="mine", **asked)["found"]
    assert set(found["contrast"]) == {"mine - varying"} and (found["n"].dropna() == 3).any()
    assert set(found["measure"]) == {"interaction"}


def test_published_networks_are_fine_tuned_once(results, quick, monkeypatch):
    """The first step alone, of one network each of two arms that keep their weights."""
    monkeypatch.setattr(transfer, "STEPS", (0, 8))
    for arm in ("fixed", "varying-standardised"):
        name = f"OneHot-mlp-{arm}"
        source = data.ROOT / "results" / "third" / "groups" / name
        shutil.copytree(source, results / "mine" / "groups" / name)
    first, again = (execute("14_transfer", study="mine", networks=1) for _ in range(2))
    assert len(first["wanted"]) == 2 and again["wanted"] == []
    assert set(first["rows"]["arm"]) == {"fixed", "varying standardised", "untrained"}
    tuned = pd.read_csv(results / "mine" / "fine_tuned.csv")
    assert set(tuned["seed"]) == {16} and len(tuned) == 2 * 2 * 2 * 2
    means = first["summary"].set_index(["arm", "goals", "steps"])["mean"]
    assert means["fixed", "new goals", 8] > means["fixed", "new goals", 0]
    pd.testing.assert_frame_equal(first["summary"], again["summary"])
    assert set(first["came"]["came true"]) == {"not trained"}
