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
    assert {one.period for one in config.groups} == {10, 1} and {
        one.epochs for one in config.groups
    } == {4}


@pytest.mark.parametrize(
    "path", sorted((data.ROOT / "config").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_projects_configs_are_studies(path):
    if path.stem != "primary":
        config = read_config(path)
        assert (
            config.study in (path.stem, "original") and len({one.arm for one in config.groups}) >= 2
        )


def rows(settings: Settings, **values) -> dict[str, pd.DataFrame]:
    """Tables of a group, as 03_metric leaves them."""
    names = [{k: one.saved()[k] for k in runs.KEYS} for one in settings.runs()]
    about = pd.DataFrame([{**one.saved(), "cpu": "x"} for one in settings.runs()])
    history = pd.DataFrame(
        [
            {**n, "epoch": e, "test_r2": 0.9, "sum_r2": 0.9}
            for n in names
            for e in range(settings.epochs)
        ]
    )
    row = {
        "copy": "trained",
        "layer": "pooled",
        "place": "pooled",
        "side": "both",
        "measure": "m",
        "value": 0.5,
        "note": "",
    }
    measures = pd.DataFrame(
        [{**n, **row, "measure": m, **values} for n in names for m in ("m", "n")]
    )
    return {"runs": about, "history": history, "measures": measures}


def write(settings: Settings, **values) -> None:
    for name, table in rows(settings, **values).items():
        runs.write_table(table, runs.group_folder(settings) / f"{name}.csv")


@pytest.fixture
def groups(results):
    """Two groups of one arm and one of another."""
    found = [Settings(study="s", seeds=seeds) for seeds in ("0-1", "2-3")] + [
        Settings(study="s", regime="varying", seeds="0-1")
    ]
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


def again(groups):
    write(Settings(study="s", seeds="1-2"), value=0.25)
    return (
        "measures",
        r"study: .*groups has measures of MNIST mlp fixed default 1 twice, with other values; delete one",
    )


def other_settings(groups):
    write(Settings(study="s", seeds="4-5", epochs=7))
    return (
        "runs",
        r"epochs: MNIST mlp fixed default in .*groups has 100 and 7; allowed: one value per arm",
    )


def unknown_column(groups):
    write(Settings(study="s", seeds="4-5"), weight=2.0)
    return (
        "measures",
        r"study: only one of .*000-001/measures.csv and .*004-005/measures.csv has a column weight; delete one",
    )


def spoilt(name, change, why):
    def spoil(groups):
        path = runs.group_folder(groups[1]) / f"{name}.csv"
        change(path)
        return (
            name,
            rf"study: .*MNIST-mlp-fixed/002-003/{name}.csv is damaged \({why}.*\); restore",
        )

    return spoil


def table_change(function):
    return lambda path: function(pd.read_csv(path, keep_default_na=False)).to_csv(path, index=False)


NOT_A_STUDY = {
    "the same network with other values": again,
    "an arm of several settings": other_settings,
    "the same, where its measures are read": lambda groups: ("measures", other_settings(groups)[1]),
    "a column that others have not": unknown_column,
    "of another arm": spoilt(
        "measures", table_change(lambda t: t.assign(regime="varying")), "it is of MNIST-mlp-varying"
    ),
    "of two arms": spoilt(
        "history",
        table_change(lambda t: t.assign(regime=["varying", *t["regime"][1:]])),
        "it is of .* and ",
    ),
    "a column missing": spoilt(
        "measures", table_change(lambda t: t.drop(columns="place")), "it has no column place"
    ),
    "a key missing": spoilt(
        "history", table_change(lambda t: t.drop(columns="seed")), "it has no column seed"
    ),
    "text for a number": spoilt(
        "measures", table_change(lambda t: t.assign(value="big")), "value has text"
    ),
    "text for a seed": spoilt(
        "runs", table_change(lambda t: t.assign(seed="one")), "seed has text"
    ),
    "cut short": spoilt(
        "history", lambda p: p.write_bytes(p.read_bytes()[:-3]), ".*cut short|.*fields"
    ),
    "empty": spoilt("measures", lambda p: p.write_bytes(b""), "No columns"),
    "not text": spoilt("measures", lambda p: p.write_bytes(b"\xff\xfe\x00"), ".*"),
    "a folder": spoilt("runs", lambda p: (p.unlink(), p.mkdir()), ".*directory"),
}


@pytest.mark.parametrize("case", NOT_A_STUDY)
def test_groups_that_do_not_go_together_are_one_line(groups, case):
    name, line = NOT_A_STUDY[case](groups)
    with pytest.raises(InputError, match=f"^{line}") as caught:
        study.table("s", name)
    assert "\n" not in str(caught.value)


def test_what_a_group_was_made_with_is_there_to_see(groups):
    """Another version of the code is no error: its column says which network has it."""
    path = runs.group_folder(groups[1]) / "runs.csv"
    table_change(lambda t: t.assign(**{"git.commit": "other"}))(path)
    assert list(study.table("s", "runs")["git.commit"].eq("other")) == [
        False,
        False,
        True,
        True,
        False,
        False,
    ]


def test_a_group_whose_folder_has_the_name_of_markup_is_not_shown(groups):
    path = runs.group_folder(groups[0]).parents[1] / "MNIST-<b>-fixed" / "000-001" / "history.csv"
    runs.write_table(rows(groups[0])["history"].assign(architecture="<b>"), path)
    with pytest.raises(InputError, match=r"history.csv is damaged \(it is of MNIST-<b>-fixed\)"):
        study.table("s", "history")


def test_an_empty_study_and_an_unknown_table_are_one_line(results):
    with pytest.raises(
        InputError,
        match=r"^study: 'nothing' has no measures.csv in .*; measure some networks first, with 03_",
    ):
        study.table("nothing", "measures")
    with pytest.raises(
        InputError,
        match=r"^table: got 'measure'; allowed: runs, history, measures.*did you mean measures",
    ):
        study.table("nothing", "measure")
    with pytest.raises(InputError, match=r"^study: got '/etc'; allowed: "):
        study.table("/etc", "passwd")


def test_text_that_looks_like_a_number_or_like_nothing_stays_text(groups):
    """A variant such as 64, or a layer called nan."""
    variant = Settings(study="s", variant="64", seeds="0-1")
    write(variant, layer="nan")
    table = study.table("s", "measures")
    assert set(table["variant"]) == {"default", "64"} and set(
        study.select(table, variant="64")["layer"]
    ) == {"nan"}


def test_numbers_are_read_as_they_were_written(groups):
    value = 0.1 + 0.2
    write(groups[0], value=value)
    assert set(
        study.select(study.table("s", "measures"), seed=[0, 1], regime="fixed")["value"]
    ) == {value}


def test_select():
    table = pd.DataFrame(
        {"layer": ["a", "b", "c"], "side": ["both", "left", "both"], "seed": [0, 1, 2]}
    )
    assert list(study.select(table, side="both").index) == [0, 2]
    assert list(study.select(table, layer=("a", "b"), side="both").index) == [0]
    assert list(study.select(table, layer=table["layer"].iloc[:1]).index) == [0]
    assert (
        list(study.select(table, layer={"c": 1}).index) == [2]
        and len(study.select(table, seed=7)) == 0
    )
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
    assert (
        study.ends("mlp") == {"towers": "towers", "summed": "summed"} and study.ends("mine") == {}
    )
    assert study.ends("OneHot vit")["towers"] == "OneHot vit_towers"


def test_rows_in_the_order_of_the_values():
    table = pd.DataFrame({"arm": ["b", "a", "b", "c"], "layer": ["x", "y", "y", "x"]})
    assert list(study.ordered(table, layer=["y", "x"], arm=["a", "b"]).index) == [1, 2, 0]


def test_arms_are_the_originals_or_the_first_two(capsys):
    def table(*names):
        rows = [[*name.split(), "default"][:2] for name in names]
        return pd.DataFrame(rows, columns=["regime", "variant"])

    assert study.pair(table("varying", "tables", "fixed")) == ["fixed", "varying"]
    assert capsys.readouterr().out == ""
    assert study.pair(table("mine", "fixed short", "yours")) == ["fixed short", "mine"]
    assert "not in this study: both of fixed, varying" in capsys.readouterr().out
    assert study.pair(table("mine")) == ["mine"]


def test_an_arm_differs_in_the_settings_that_are_its_own():
    keys = {"dataset": "MNIST", "architecture": "mlp", "seed": 0, "epochs": 100, "penalty": 0.0}
    rows = [("fixed", "default", 10), ("fixed", "again", 10), ("varying", "p1", 1)]
    rows = [{**keys, "regime": r, "variant": v, "period": p} for r, v, p in rows]
    rows.append(rows[0] | {"variant": "dear", "penalty": 0.1, "period": 2})
    found = study.differing(pd.DataFrame(rows), "fixed").to_list()
    assert found == [(), None, ("period",), ("period", "penalty")]


def test_what_was_declared_in_advance_is_there():
    declared = study.primary()
    assert (
        declared["measure"] == "activation_change"
        and declared["layer"] == "pooled"
        and declared["side"] == "both"
    )
    assert (
        declared["failed_below"] == 0.5 and declared["modularity"]["measure"] == "side_selectivity"
    )


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
