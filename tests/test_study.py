"""A study: what a config file asks for, and its groups' tables read as one."""

import numpy as np
import pandas as pd
import pytest

from modvar_lib import data, runs
from modvar_lib.analysis import study
from modvar_lib.config import read_config
from modvar_lib.errors import InputError
from modvar_lib.settings import Settings

CONFIG = {
    "study": "tiny",
    "seeds": "0-3",
    "group_size": 2,
    "epochs": 4,
    "regime": ["fixed", "varying"],
    "arms": [{}, {"variant": "short", "period": 1, "seeds": "0-2"}],
}


def test_groups_of_a_config():
    """Lists are crossed, arms come on top, seeds are cut into groups in order."""
    config = read_config(CONFIG)
    assert config.study == "tiny" and config.notebooks == ["04_analysis"]
    assert [(one.arm, one.group) for one in config.groups] == [
        (f"MNIST-mlp-{regime}{variant}", group)
        for variant, groups in (("", ("000-001", "002-003")), ("-short", ("000-001", "002-002")))
        for regime in ("fixed", "varying")
        for group in groups
    ]
    assert {(one.period, one.epochs) for one in config.groups} == {(10, 4), (1, 4)}


@pytest.mark.parametrize(
    "path", sorted((data.ROOT / "config").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_projects_configs_are_studies(path):
    if path.stem != "primary":
        config = read_config(path)
        assert config.study in (path.stem, "original")
        assert len({one.arm for one in config.groups}) >= 2


def rows(settings: Settings, **values) -> dict[str, pd.DataFrame]:
    """Tables of a group, as 03_metric leaves them."""
    about = pd.DataFrame([one.saved() for one in settings.runs()])
    names, epochs = about[runs.KEYS], pd.DataFrame({"epoch": range(settings.epochs)})
    history = names.merge(epochs, "cross").assign(test_r2=0.9, sum_r2=0.9)
    row = {"copy": "trained", "layer": "pooled", "place": "pooled", "side": "both"}
    measures = names.merge(pd.DataFrame({"measure": ["m", "n"]}), "cross")
    measures = measures.assign(**row | {"value": 0.5, "note": ""} | values)
    return {"runs": about.assign(cpu="x"), "history": history, "measures": measures}


def write(settings: Settings, **values) -> None:
    for name, table in rows(settings, **values).items():
        runs.write_table(table, runs.group_folder(settings) / f"{name}.csv")


@pytest.fixture
def groups(results):
    """Two groups of one arm and one of another."""
    asked = {"seeds": "0-1"}, {"seeds": "2-3"}, {"seeds": "0-1", "regime": "varying"}
    found = [Settings(study="s", **one) for one in asked]
    for one in found:
        write(one)
    return found


def test_a_table_is_that_of_all_groups_together(groups):
    for name, per_network in (("runs", 1), ("history", 100), ("measures", 2)):
        table = study.table("s", name)
        assert len(table) == 6 * per_network and set(runs.KEYS) < set(table)
        assert set(map(tuple, table[runs.KEYS].to_numpy())) == {
            ("MNIST", "mlp", regime, "default", seed)
            for regime, n in (("fixed", 4), ("varying", 2))
            for seed in range(n)
        }
    assert study.table("s", "measures")["note"].eq("").all()


def test_groups_that_overlap_with_the_same_values_count_once(groups):
    write(Settings(study="s", seeds="1-2"))
    assert len(study.table("s", "runs")) == 6 and len(study.table("s", "measures")) == 12


def table_change(name, change, why):
    def spoil(path):
        change(pd.read_csv(path, keep_default_na=False)).to_csv(path, index=False)

    return name, spoil, why


DAMAGED = {  # the table, what is done to it, and why it is damaged
    "of another arm": table_change(
        "measures", lambda t: t.assign(regime="varying"), "it is of MNIST-mlp-varying"
    ),
    "of two arms": table_change(
        "history", lambda t: t.assign(regime=["varying", *t["regime"][1:]]), "it is of .* and "
    ),
    "a column missing": table_change("measures", lambda t: t.drop(columns="place"), "it has no"),
    "a key missing": table_change("history", lambda t: t.drop(columns="seed"), "it has no column"),
    "a row missing": table_change("history", lambda t: t[:-1], "seed 3 lacks rows"),
    "the end missing": table_change("history", lambda t: t[t["epoch"] < 99], "seed 2 lacks rows"),
    "a network missing": table_change("measures", lambda t: t[:2], "seed 3 lacks rows"),
    "text for a number": table_change(
        "measures", lambda t: t.assign(value="big"), "value has text"
    ),
    "text for a seed": table_change("runs", lambda t: t.assign(seed="one"), "seed has text"),
    "cut short": (
        "history",
        lambda p: p.write_bytes(p.read_bytes()[:-3]),
        "a line is cut short|.*fields",
    ),
    "empty": ("measures", lambda p: p.write_bytes(b""), "No columns"),
    "not text": ("measures", lambda p: p.write_bytes(b"\xff\xfe\x00"), ""),
    "a folder": ("runs", lambda p: (p.unlink(), p.mkdir()), ".*directory"),
    "absent": ("runs", lambda p: p.unlink(), ".*No such file"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_table_is_one_line(groups, case):
    name, spoil, why = DAMAGED[case]
    path = runs.group_folder(groups[1]) / f"{name}.csv"
    spoil(path)
    with pytest.raises(
        InputError, match=rf"^study: {path} is damaged \((?:{why}).*restore"
    ) as caught:
        study.table("s", "measures" if case == "absent" else name)
    assert "\n" not in str(caught.value)


TWICE = r"study: .*groups has other measures of MNIST mlp fixed default 1 twice; delete one"
SEVERAL = "epochs: MNIST mlp fixed default has 100 and 7; allowed: one value"


@pytest.mark.parametrize(
    ("settings", "values", "name", "line"),
    [
        ({"seeds": "1-2"}, {"value": 0.25}, "measures", TWICE),
        ({"seeds": "4-5", "epochs": 7}, {}, "runs", SEVERAL),
        ({"seeds": "4-5", "epochs": 7}, {}, "measures", SEVERAL),
    ],
)
def test_groups_that_do_not_go_together_are_one_line(groups, settings, values, name, line):
    write(Settings(study="s", **settings), **values)
    with pytest.raises(InputError, match=f"^{line}"):
        study.table("s", name)


def test_what_a_group_was_made_with_is_there_to_see(groups):
    """Another version of the code is no error: its column says which network has it. A setting that
    a group is too old to have has its default."""
    path = runs.group_folder(groups[1]) / "runs.csv"
    table = pd.read_csv(path).drop(columns="penalty").assign(**{"git.commit": "other"})
    table.to_csv(path, index=False)
    found = study.table("s", "runs")["git.commit"].eq("other")
    assert found.tolist() == [False, False, True, True, False, False]


def test_a_group_whose_folder_has_the_name_of_markup_is_not_shown(groups):
    path = runs.group_folder(groups[0]).parents[1] / "MNIST-<b>-fixed" / "000-001" / "history.csv"
    runs.write_table(rows(groups[0])["history"].assign(architecture="<b>"), path)
    with pytest.raises(InputError, match=r"history.csv is damaged \(it is of MNIST-<b>-fixed\)"):
        study.table("s", "history")


def test_an_empty_study_and_an_unknown_table_are_one_line(results):
    none = "study: 'nothing' has no measures.csv in .*; measure some networks first, with 03_"
    for name, line in (("measures", none), ("measure", "table: got 'measure'; allowed: runs, ")):
        with pytest.raises(InputError, match=f"^{line}"):
            study.table("nothing", name)


def test_text_that_looks_like_a_number_or_like_nothing_stays_text(groups):
    """A variant such as 64, or a layer called nan. A number is read as it was written."""
    write(Settings(study="s", variant="64", seeds="0-1"), layer="nan", value=0.1 + 0.2)
    found = study.select(study.table("s", "measures"), variant="64")
    assert set(found["layer"]) == {"nan"} and set(found["value"]) == {0.1 + 0.2}


def test_select():
    sides = ["both", "left", "both"]
    table = pd.DataFrame({"layer": ["a", "b", "c"], "side": sides, "seed": [0, 1, 2]})
    for where, rows in (
        ({"side": "both"}, [0, 2]),
        ({"layer": ("a", "b"), "side": "both"}, [0]),
        ({"layer": table["layer"].iloc[:1]}, [0]),
        ({"layer": {"c": 1}}, [2]),
        ({"seed": 7}, []),
    ):
        assert study.select(table, **where).index.to_list() == rows
    with pytest.raises(KeyError):
        study.select(table, regime="fixed")


def test_failed_networks_are_counted_and_kept():
    """Below the bound or not a number, at the last epoch."""
    last = {0: 0.9, 1: 0.49, 2: np.nan, 3: -5.0, 4: 0.5}
    rows = [
        ("MNIST", "mlp", "fixed", "default", seed, e, r2 if e else 0.9)
        for seed, r2 in last.items()
        for e in (0, 1)
    ]
    history = pd.DataFrame(rows, columns=[*runs.KEYS, "epoch", "sum_r2"]).assign(test_r2=0.9)
    final = study.final(history).set_index("seed")["failed"]
    assert final.to_dict() == {0: False, 1: True, 2: True, 3: True, 4: False}
    assert not study.final(history, "test_r2")["failed"].any()


def test_families_are_the_declared_ones_first_and_none_of_known_modularity():
    names = ["summed", "mine", "vit", "dose20", "mlp", "cnn_towers", "OneHot towers", "OneHot mlp"]
    table = pd.DataFrame({"architecture": names})
    assert study.families(table) == ["mlp", "vit", "mine", "OneHot mlp"]
    assert study.families(table[table["architecture"] == "summed"]) == ["summed"]
    assert study.ends("mlp") == {"towers": "towers", "summed": "summed"}
    assert study.ends("mine") == {}
    assert study.ends("OneHot vit")["towers"] == "OneHot vit_towers"


def of_arms(*names):
    rows = [[*name.split(), "default"][:2] for name in names]
    return pd.DataFrame(rows, columns=["regime", "variant"])


RESCALED = ["tables standardised", "varying standardised", "factor standardised", "fixed"]
PAIRS = [  # arms of a study, and the two that are compared
    (["varying", *RESCALED], ["fixed", "varying"]),
    (RESCALED, ["fixed", "varying standardised"]),
    (["mine", "fixed short", "yours"], ["fixed short", "mine"]),
    (["mine"], ["mine"]),
]


@pytest.mark.parametrize(("there", "found"), PAIRS)
def test_arms_are_the_originals_or_declared_or_the_first_two(there, found, capsys):
    assert study.pair(of_arms(*there)) == found
    said = f"not in this study: both of fixed, varying; read are {', '.join(found)}\n"
    assert capsys.readouterr().out == ("" if "varying" in there else said)


def test_arms_that_are_shown(capsys):
    """The pair and what is declared; others, unless they are many."""
    third = ["fixed", "varying standardised", "tables standardised"]
    assert study.shown("third", of_arms(*RESCALED)) == [*third, "factor standardised"]
    capsys.readouterr()
    many = of_arms("varying", *RESCALED, "a", "b", "c")
    assert study.shown("mine", many) == ["fixed", "varying", "varying standardised"]
    assert study.shown("third", many) == ["fixed", "varying", *third[1:]]
    assert capsys.readouterr().out.startswith("5 other arms of this study: 12_two_arms")


def test_an_arm_differs_in_the_settings_that_are_its_own():
    keys = {"dataset": "MNIST", "architecture": "mlp", "seed": 0, "epochs": 100, "penalty": 0.0}
    rows = [("fixed", "default", 10), ("fixed", "again", 10), ("varying", "p1", 1)]
    rows = [{**keys, "regime": r, "variant": v, "period": p} for r, v, p in rows]
    rows.append(rows[0] | {"variant": "dear", "penalty": 0.1, "period": 2})
    found = study.differing(pd.DataFrame(rows), "fixed").to_list()
    assert found == [(), None, ("period",), ("period", "penalty")]


def test_a_finished_group_with_other_seeds_or_settings_is_one_line(results):
    group = {"study": "toy", "seeds": "0-2", "group_size": 3}
    (asked,) = read_config(group).groups
    networks = pd.DataFrame([run.saved() for run in asked.runs()])
    runs.write_table(networks, runs.group_folder(asked) / "runs.csv")
    assert read_config(group).groups == [asked]
    with pytest.raises(ValueError, match=r"seeds: got 000-002, but the networks of .* are 0, 1, 2"):
        read_config(group | {"seeds": [0, 2]})
    with pytest.raises(ValueError, match=r"epochs: got 50, but the networks of .* have 100"):
        read_config(group | {"epochs": 50, "final_epochs": 10})
