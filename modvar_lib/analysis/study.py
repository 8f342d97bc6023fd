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

import pandas as pd
import yaml

from modvar_lib import data, runs
from modvar_lib.errors import InputError, lookup
from modvar_lib.runs import KEYS, study_folder
from modvar_lib.settings import Settings

TABLES = {  # name: columns that tell its rows apart, and others that it must have
    "runs": (KEYS, ["epochs", "period", "final_epochs"]),
    "history": ([*KEYS, "epoch"], ["test_r2", "sum_r2"]),
    "measures": ([*KEYS, "copy", "layer", "side", "measure"], ["place", "value", "note"]),
    "training": ([*KEYS, "epoch", "layer", "side", "measure"], ["place", "value"]),
}


def table(study: str, name: str) -> pd.DataFrame:
    """One of the TABLES of all groups of a study together; one line of error that names the file
    when one is damaged, or when groups do not go together: the same network twice with other
    values, one arm with several settings, other columns."""
    folder = study_folder(study) / "groups"
    rows, others = lookup(TABLES, "table", name)
    parts = {
        path: runs.read_table(path, [*rows, *others])
        for path in sorted(folder.glob(f"*/*/{name}.csv"))
    }
    if name != "runs" and any(folder.glob("*/*/runs.csv")):
        table(study, "runs")  # the settings of all go together
        for path, part in parts.items():
            if odd := set(part) ^ set(parts[first := next(iter(parts))]):
                raise InputError(
                    f"study: only one of {first} and {path} has a column {min(odd)}; delete one of the groups"
                )
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
    return whole


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


def primary() -> dict:
    """What config/primary.yaml declares: primary measures, the bound for a failed network, the
    original's values."""
    return yaml.safe_load((data.ROOT / "config" / "primary.yaml").read_text())


def final(history: pd.DataFrame, of: str = "sum_r2") -> pd.DataFrame:
    """The last epoch of every network in a table of histories, with `failed`: its R² (`sum_r2` on x
    + y; `test_r2` on the goal of that epoch) is below the declared bound, or not a number."""
    last = history.groupby(KEYS, as_index=False).tail(1)
    return last.assign(failed=~(last[of] >= primary()["failed_below"]))


def need(table: pd.DataFrame, notebook: str, arms: list[str]) -> None:
    """One line of error unless a table has these arms, each `architecture regime`."""
    absent = sorted(set(arms) - set(table["architecture"] + " " + table["regime"]))
    if absent:
        raise InputError(
            f"study: it has no networks of {', '.join(absent)}; {notebook} needs {', '.join(arms)}, as config/paper.yaml has"
        )


def write(table: pd.DataFrame, study: str, name: str, **options) -> None:
    """Write a derived table of a study, results/<study>/<name>, whole or not at all. Options are
    those of `to_csv`."""
    runs.write_table(table, study_folder(study) / name, **options)
