"""The tables of a study: they lie in groups, and analyses read them all as one.

A group is the seeds of one arm that one job trains (02_train) and measures (03_metric). It leaves,
in results/<study>/groups/<arm>/<first seed>-<last seed>/, a few tidy tables, each with the columns
that name a network:

runs.csv      a row per network: settings and provenance
history.csv   a row per epoch (columns: see training.train)
measures.csv  a row per layer, side and measure; `copy`: the network itself (trained) or a copy of
              it; `place`: what the layer is
training.csv  where `frames` asked for it: measures at moments within training
"""

from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from modvar_lib import data, runs
from modvar_lib.architectures.calibration import Dose, Summed, Towers
from modvar_lib.errors import InputError, lookup
from modvar_lib.models import ARCHITECTURES
from modvar_lib.runs import KEYS, study_folder
from modvar_lib.settings import Settings

MADE = {name for name, make in data.DATASETS.items() if make}
KNOWN = Towers, Summed, Dose
KNOWN_REGIMES = ("interaction",)  # likewise: what its networks must do is known
OURS = ["arm", "failed", "r2", "pairs", "network", "networks"]  # columns that analyses add
TABLES = {  # name: columns that tell its rows apart, and others that it must have
    "runs": (KEYS, ["epochs", "period", "final_epochs"]),
    "history": ([*KEYS, "epoch"], ["test_r2", "sum_r2"]),
    "measures": ([*KEYS, "copy", "layer", "side", "measure"], ["place", "value", "note"]),
    "training": ([*KEYS, "epoch", "layer", "side", "measure"], ["place", "value"]),
}


def table(study: str, name: str) -> pd.DataFrame:
    """One of the TABLES of all groups of a study together; one line of error that names the file
    when one is damaged, or when groups do not go together: the same network twice with other
    values, one arm with several settings, other columns. Of several data sets, that of the default
    settings (or the first) is read as it is; architectures of another, and of a data set that is
    made, are called `OneHot mlp`."""
    folder = study_folder(study) / "groups"
    rows, others = lookup(TABLES, "table", name)
    paths = sorted(folder.glob(f"*/*/{name}.csv"))
    parts = {path: runs.read_table(path, rows, others) for path in paths}
    if name != "runs" and any(folder.glob("*/*/runs.csv")):
        table(study, "runs")  # the settings of all go together
        for path, part in parts.items():
            if odd := set(part) ^ set(parts[first := next(iter(parts))]):
                raise InputError(
                    f"study: only one of {first} and {path} has a column {min(odd)}; delete one of the groups"
                )
            _count(path, part)
    if not parts:
        raise InputError(
            f"study: {study!r} has no {name}.csv in {folder}; measure some networks first, with 03_metric.ipynb"
        )
    whole = pd.concat(parts.values(), ignore_index=True).drop_duplicates(ignore_index=True)
    twice = whole[whole.duplicated(rows)]
    if len(twice):
        network = " ".join(map(str, twice.iloc[0][KEYS]))
        raise InputError(
            f"study: {folder} has {name} of {network} twice, with other values; delete one of the groups"
        )
    if name == "runs":
        for setting in whole.columns.intersection([*Settings().saved()]).difference(KEYS):
            for arm, values in whole.groupby(KEYS[:-1])[setting]:
                if values.nunique(dropna=False) > 1:
                    several = " and ".join(map(str, values.unique()))
                    raise InputError(
                        f"{setting}: {' '.join(arm)} in {folder} has {several}; "
                        "allowed: one value per arm; give one of them a variant or another study"
                    )
    sets = sorted({path.name.split("-")[0] for path in folder.glob("*")} - MADE)
    usual = Settings().dataset if Settings().dataset in sets or not sets else sets[0]
    other = whole["dataset"] != usual
    whole.loc[other, "architecture"] = whole["dataset"] + " " + whole["architecture"]
    if "value" in whole:  # what is infinite is undefined
        whole["value"] = whole["value"].where(np.isfinite(whole["value"]))
    return whole.drop(columns=OURS, errors="ignore")


def _count(path: Path, part: pd.DataFrame) -> None:
    """Raise InputError unless a group's table has as many rows of each of its networks."""
    if not (path.parent / "runs.csv").is_file():
        return
    group = runs.read_table(path.parent / "runs.csv", KEYS, ["epochs"]).set_index("seed")["epochs"]
    kinds = [name for name in ("copy", "epoch") if name in part and path.stem != "history"]
    rows = (
        part.groupby(["seed", *kinds]).size().unstack(kinds)
        if kinds
        else part.groupby("seed").size()
    )
    rows = rows.reindex(group.index)
    whole = group if path.stem == "history" else rows.max()
    short = (rows != whole) if path.stem == "history" else (rows != whole).any(axis=1)
    if short.any():
        raise InputError(
            f"study: {path} is damaged (rows of seed {short.idxmax()} are missing); restore or delete its group"
        )


def select(table: pd.DataFrame, **where) -> pd.DataFrame:
    """The rows in which every named column has a value, or one of several.

    >>> rows = pd.DataFrame({"layer": ["hidden1", "hidden2", "readout"], "side": "both"})
    >>> list(select(rows, layer=["hidden1", "readout"], side="both").index)
    [0, 2]
    """
    for name, values in where.items():
        several = isinstance(values, list | tuple | set | dict | pd.Index | pd.Series)
        table = table[table[name].isin(list(values))] if several else table[table[name] == values]
    return table


def arms(table: pd.DataFrame) -> pd.Series:
    """What networks of one architecture were trained on, in words: the regime, and the variant
    where it is not the default.

    >>> arms(pd.DataFrame({"regime": ["fixed", "varying"], "variant": ["default", "standardised"]})).to_list()
    ['fixed', 'varying standardised']
    """
    variant = table["variant"].where(table["variant"] != "default", "")
    return (table["regime"] + " " + variant).str.strip()


def first_trained(table: pd.DataFrame, networks: pd.DataFrame) -> pd.Series:
    """Like `arms`; but an arm that has the settings of another, trained again under a variant, has
    that other's name: of arms with the same settings, the shortest. networks: the table `runs`.

    >>> network = {"dataset": "MNIST", "architecture": "mlp", "regime": "fixed", "seed": 0}
    >>> networks = pd.DataFrame([network | {"variant": variant} for variant in ("default", "again")])
    >>> first_trained(networks, networks).to_list()
    ['fixed', 'fixed']
    """
    settings = {
        k: v
        for k, v in Settings().saved().items()
        if k in networks and k not in ("variant", "seed")
    }
    every = networks.fillna(settings).assign(arm=arms(networks))
    every = every.sort_values("arm", key=lambda names: names.str.len(), kind="stable")
    every["first"] = every.groupby([*settings])["arm"].transform("first")
    names = every.drop_duplicates(KEYS[:-1]).set_index(KEYS[:-1])["first"]
    return pd.Series(
        names.reindex(pd.MultiIndex.from_frame(table[KEYS[:-1]])).to_numpy(), table.index
    )


def differing(networks: pd.DataFrame, arm: str) -> pd.Series:
    """The names of the settings, but for regime and variant, in which each network of a table `runs`
    differs from those of an arm of its architecture (without that arm, its first); None, where it is
    the second training of an arm (`first_trained`)."""
    settings = [k for k in Settings().saved() if k in networks and k not in KEYS]
    names, rows = arms(networks), networks[settings].fillna(Settings().saved())
    base = rows.loc[(names != arm).sort_values(kind="stable").index]
    base = base.groupby(networks["architecture"]).first()
    base = base.reindex(networks["architecture"]).set_axis(rows.index)
    again = names != first_trained(networks, networks)
    apart = [tuple(row.index[row]) for _, row in (rows != base).iterrows()]
    apart = [None if second else these for these, second in zip(apart, again)]
    return pd.Series(apart, rows.index, dtype=object)


def along(study: str) -> pd.DataFrame:
    """Measures along training: the end, as in `measures`, and where moments before it were kept,
    those; with `epoch` (how many were done), `r2` (on x + y then), `arm`, and `failed` (see
    `final`)."""
    history = table(study, "history").rename(columns={"sum_r2": "r2"})
    history["epoch"] += 1
    last = final(history, "r2")[[*KEYS, "epoch", "failed"]]
    every = [
        select(table(study, "measures"), copy="trained").merge(last.drop(columns="failed"), on=KEYS)
    ]
    if any(study_folder(study).glob("groups/*/*/training.csv")):
        every += [table(study, "training")]
    rows = [*KEYS, "epoch", "layer", "side", "measure"]
    every = pd.concat(every)[[*rows, "place", "value"]].drop_duplicates(rows, ignore_index=True)
    every = every.merge(history[[*KEYS, "epoch", "r2"]], on=[*KEYS, "epoch"]).merge(
        last.drop(columns="epoch"), on=KEYS
    )
    return every.assign(arm=arms(every))


def final(history: pd.DataFrame, of: str = "sum_r2") -> pd.DataFrame:
    """The last epoch of every network in a table of histories, with `failed`: its R² (`sum_r2` on x
    + y; `test_r2` on the goal of that epoch) is below the declared bound, or not a number."""
    last = history.sort_values("epoch", kind="stable").groupby(KEYS).tail(1).sort_index()
    return last.assign(failed=~(last[of] >= primary()["failed_below"]))


def primary() -> dict:
    """What config/primary.yaml declares: primary measures, the bound for a failed network, the
    original's values."""
    return yaml.safe_load((data.ROOT / "config" / "primary.yaml").read_text())


def known(architecture: str) -> bool:
    """Whether its modularity is known by construction: towers, summed, and doses between."""
    cls = ARCHITECTURES.get(architecture.split()[-1])
    return bool(cls) and issubclass(cls, KNOWN)


def ends(family: str) -> dict[str, str]:
    """Of an architecture those of its kind that are the ends of the scale.

    >>> ends("cnn")
    {'towers': 'cnn_towers', 'summed': 'cnn_summed'}
    """
    *prefix, name = family.split()
    return {
        end.__name__.lower(): " ".join([*prefix, other])
        for end in (Towers, Summed)
        for other, cls in ARCHITECTURES.items()
        if issubclass(cls, end) and cls.family is ARCHITECTURES.get(name)
    }


def families(table: pd.DataFrame) -> list[str]:
    """Architectures of a table: those declared first, in their order, then others; none that is
    `known`, unless all are."""
    there = list(dict.fromkeys(table["architecture"]))
    plain = [name for name in there if not known(name)] or there
    return sorted(plain, key=lambda name: (*_rank(name), there.index(name)))


def _rank(name: str) -> tuple[int, int]:
    order = primary()["second"]["architectures"]
    return (0, order.index(name)) if name in order else (1, 0)


def ordered(table: pd.DataFrame, **where) -> pd.DataFrame:
    """Like `select`, with rows in the order of the values, the first column's before the next's.

    >>> rows = pd.DataFrame({"arm": ["a", "b", "a"], "layer": ["y", "x", "x"]})
    >>> ordered(rows, arm=["b", "a"], layer=["x", "y"]).index.to_list()
    [1, 2, 0]
    """
    table = select(table, **where)
    for name, values in reversed(where.items()):
        place = {value: i for i, value in enumerate(values)}
        table = table.sort_values(name, key=lambda column: column.map(place), kind="stable")
    return table


def pair(table: pd.DataFrame) -> list[str]:
    """The two arms that the original compares; where a study has not both, its first two: the one
    with the original's first regime before others."""
    wanted, there = list(primary()["original"]), list(dict.fromkeys(arms(table)))
    if set(wanted) <= set(there):
        return wanted
    print(f"not in this study: both of {', '.join(wanted)}; read are {', '.join(there[:2])}")
    return sorted(there, key=lambda arm: wanted[0] not in arm.split())[:2]


def shown(study: str, table: pd.DataFrame) -> list[str]:
    """The arms that a study's analyses show: `pair`, those declared, and, where it has no more than
    six in all, the others. 12_two_arms.ipynb compares any."""
    declared, there = primary(), list(dict.fromkeys(arms(table)))
    wanted = [*pair(table), *declared["second"]["contrast"]]
    if study == declared["third"]["study"]:
        wanted += chain(*declared["third"]["contrasts"])
    others = sorted(set(there) - set(wanted))
    if len(there) > 6 and others:
        print(f"{len(others)} other arms of this study: 12_two_arms.ipynb compares any two")
    wanted = dict.fromkeys(wanted + others * (len(there) <= 6))
    return [arm for arm in wanted if arm in there]


def lacking(what: str, wanted, there) -> list:
    """Those of `wanted` that are there; one line is printed of the others."""
    if absent := [str(one) for one in wanted if one not in set(there)]:
        print(f"not in this study: {what} {', '.join(absent)}")
    return [one for one in wanted if one in set(there)]


def write(table: pd.DataFrame, study: str, name: str, **options) -> None:
    """Write a derived table of a study, results/<study>/<name>, whole or not at all. Options are
    those of `to_csv`."""
    runs.write_table(table, study_folder(study) / name, **options)
