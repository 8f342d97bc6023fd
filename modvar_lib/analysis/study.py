"""The tables of a study: they lie in groups, and analyses read them all as one.

A group is the seeds of one arm that one job trains (02_train) and measures (03_metric). Its tables
are in results/<study>/groups/<arm>/<first seed>-<last seed>/; KEYS name a network in each:

runs.csv      a row per network: settings and provenance
history.csv   a row per epoch (columns: see training.train)
measures.csv  a row per layer, side and measure; `copy`: the network itself (trained) or a copy of
              it; `place`: what the layer is
training.csv  where `frames` asked for it: measures at moments within training
"""

from collections.abc import Iterable
from functools import cache
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

ARM = KEYS[:-1]
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
    """One of TABLES, of all groups of a study; what is infinite is NaN. Architectures of other data
    sets than the default one (without it, the first) are called `OneHot mlp`, and so are those of
    one that is made. Raise InputError where a file is damaged, or groups do not go together."""
    keys, others = lookup(TABLES, "table", name)
    folder = study_folder(study) / "groups"
    paths = sorted(folder.glob(f"*/*/{name}.csv"))
    if not paths:
        raise InputError(
            f"study: {study!r} has no {name}.csv in {folder}; measure some networks first, with "
            "03_metric.ipynb"
        )
    parts = [runs.read_table(path, keys, others) for path in paths]
    groups = [runs.read_table(path.with_name("runs.csv"), *TABLES["runs"]) for path in paths]
    _same_settings(pd.concat(groups, ignore_index=True))
    for path, part, group in zip(paths, parts, groups):
        _whole(path, part, group.set_index("seed")["epochs"])
    whole = pd.concat(parts).drop_duplicates(ignore_index=True)
    if len(twice := whole[whole.duplicated(keys)]):
        network = " ".join(map(str, twice[KEYS].iloc[0]))
        raise InputError(f"study: {folder} has other {name} of {network} twice; delete one group")
    default, sets = Settings().dataset, {path.name.split("-")[0] for path in folder.iterdir()}
    plain = default if default in sets else min(sets - MADE, default=default)
    named = whole["dataset"] + " " + whole["architecture"]
    whole["architecture"] = whole["architecture"].where(whole["dataset"] == plain, named)
    if "value" in whole:
        whole["value"] = whole["value"].where(np.isfinite(whole["value"]))
    return whole.drop(columns=OURS, errors="ignore")


def _settings(networks: pd.DataFrame, but: Iterable[str]) -> pd.DataFrame:
    """The settings in a table `runs`, but for some; the default where a group is older than one."""
    saved = {k: v for k, v in Settings().saved().items() if k in networks and k not in but}
    return networks[[*saved]].fillna(saved)


def _same_settings(networks: pd.DataFrame) -> None:
    """Raise InputError where networks of one arm have several values of a setting."""
    settings = _settings(networks, KEYS).groupby([networks[name] for name in ARM])
    if (several := settings.nunique() > 1).any(axis=None):
        *arm, name = several.stack().idxmax()
        values = " and ".join(map(str, settings.get_group(tuple(arm))[name].unique()))
        raise InputError(f"{name}: {' '.join(arm)} has {values}; allowed: one value; use variants")


def _whole(path: Path, part: pd.DataFrame, epochs: pd.Series) -> None:
    """Raise InputError where a seed lacks rows that others of its group have. epochs: by seed."""
    kind = {"measures": "copy", "training": "epoch"}.get(path.stem, "regime")
    rows = pd.crosstab(part["seed"], part[kind]).reindex(epochs.index, fill_value=0)
    short = rows.ne(rows.max()).any(axis=1)
    if path.stem == "history":
        short = rows.iloc[:, 0] != epochs
    if short.any():
        raise InputError(f"study: {path} is damaged (seed {short.idxmax()} lacks rows); restore it")


def select(table: pd.DataFrame, **where) -> pd.DataFrame:
    """The rows in which every named column has a value, or one of several.

    >>> rows = pd.DataFrame({"layer": ["hidden1", "hidden2", "readout"], "side": "both"})
    >>> list(select(rows, layer=["hidden1", "readout"], side="both").index)
    [0, 2]
    """
    for name, values in where.items():
        several = pd.api.types.is_list_like(values)
        table = table[table[name].isin([*values]) if several else table[name] == values]
    return table


def in_layer(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of a layer, or of a place, of that name."""
    return table[(table["layer"] == name) | (table["place"] == name)]


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


def arms(table: pd.DataFrame) -> pd.Series:
    """What networks of one architecture were trained on: regime and, but for the default, variant.

    >>> rows = pd.DataFrame({"regime": ["fixed", "varying"], "variant": ["default", "standardised"]})
    >>> arms(rows).to_list()
    ['fixed', 'varying standardised']
    """
    return table["regime"] + (" " + table["variant"]).where(table["variant"] != "default", "")


def first_trained(table: pd.DataFrame, networks: pd.DataFrame) -> pd.Series:
    """Like `arms`; an arm with the settings of another, trained again under a variant, has the
    other's name: the shortest of them. networks: the table `runs`.

    >>> network = {"dataset": "MNIST", "architecture": "mlp", "regime": "fixed", "seed": 0}
    >>> networks = pd.DataFrame([network | {"variant": variant} for variant in ("default", "again")])
    >>> first_trained(networks, networks).to_list()
    ['fixed', 'fixed']
    """
    settings = _settings(networks, ("variant", "seed"))
    names = arms(networks).sort_values(key=lambda names: names.str.len(), kind="stable")
    first = names.groupby([settings[name] for name in settings]).transform("first")
    first = networks[ARM].assign(first=first).drop_duplicates(ARM)
    return table[ARM].merge(first, "left")["first"].set_axis(table.index)


def differing(networks: pd.DataFrame, arm: str) -> pd.Series:
    """The settings, but for regime and variant, in which each network of a table `runs` differs
    from an arm of its architecture (without that arm, the first); None: a second training of an
    arm."""
    settings, names = _settings(networks, KEYS), arms(networks)
    base = settings.loc[(names != arm).sort_values(kind="stable").index]
    base = base.groupby(networks["architecture"]).transform("first").loc[networks.index]
    second = names != first_trained(networks, networks)
    apart = [tuple(settings.columns[row]) for row in (settings != base).to_numpy()]
    return pd.Series(apart, networks.index, dtype=object).mask(second, None)


def along(study: str) -> pd.DataFrame:
    """Measures along training: the end, as in `measures`, and where moments before it were kept,
    those; with `epoch` (how many were done), `r2` (on x + y then), `arm`, and `failed`
    (`final`)."""
    history = table(study, "history").rename(columns={"sum_r2": "r2"})
    history["epoch"] += 1
    last = final(history, "r2")
    history = history.merge(last[[*KEYS, "failed"]], on=KEYS)
    ends = select(table(study, "measures"), copy="trained")
    parts = [ends.merge(last[[*KEYS, "epoch"]], on=KEYS)]
    if any(study_folder(study).glob("groups/*/*/training.csv")):
        parts.append(table(study, "training"))
    keys, moment = TABLES["training"][0], [*KEYS, "epoch"]
    every = pd.concat(parts)[[*keys, "place", "value"]].drop_duplicates(keys)
    every = every.merge(history[[*moment, "r2", "failed"]], on=moment)
    return every.assign(arm=arms(every))


def final(history: pd.DataFrame, of: str = "sum_r2") -> pd.DataFrame:
    """The last epoch of every network in a table of histories, with `failed`: its R² (`sum_r2` on x
    + y; `test_r2` on the goal of that epoch) is below the declared bound, or not a number."""
    last = history.sort_values("epoch", kind="stable").groupby(KEYS).tail(1).sort_index()
    return last.assign(failed=~(last[of] >= primary()["failed_below"]))


@cache
def primary() -> dict:
    """What config/primary.yaml declares."""
    return yaml.safe_load((data.ROOT / "config" / "primary.yaml").read_text())


def known(architecture: str) -> bool:
    """Whether its modularity is known by construction: towers, summed, and doses between."""
    return issubclass(ARCHITECTURES.get(architecture.split()[-1], object), KNOWN)


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
    """Architectures of a table: the declared ones first, in their order; none that is `known`,
    unless all are."""
    there, declared = table["architecture"].unique(), primary()["second"]["architectures"]
    plain = [name for name in there if not known(name)] or [*there]
    return sorted(plain, key=[*declared, *plain].index)


def pair(table: pd.DataFrame) -> list[str]:
    """The original's two arms; where a study has not both, the first declared contrast that it has,
    or else its first two arms: one with the original's first regime before others."""
    declared, there = primary(), list(dict.fromkeys(arms(table)))
    wanted = [*declared["original"]]
    pairs = [wanted, declared["second"]["contrast"], declared["third"]["contrasts"][0]]
    pairs.append(sorted(there, key=lambda arm: wanted[0] not in arm.split())[:2])
    found = next(two for two in pairs if set(two) <= set(there))
    if found != wanted:
        print(f"not in this study: both of {', '.join(wanted)}; read are {', '.join(found)}")
    return found


def shown(study: str, table: pd.DataFrame) -> list[str]:
    """The arms that a study's analyses show: `pair`, those declared, and, where it has no more than
    six in all, the others. 12_two_arms.ipynb compares any."""
    declared, there = primary(), set(arms(table))
    wanted = [*pair(table), *declared["second"]["contrast"]]
    if study == declared["third"]["study"]:
        wanted += [arm for two in declared["third"]["contrasts"] for arm in two]
    others = sorted(there - set(wanted))
    if others and len(there) > 6:
        print(f"{len(others)} other arms of this study: 12_two_arms.ipynb compares any two")
        others = []
    return [arm for arm in dict.fromkeys(wanted + others) if arm in there]


def lacking(what: str, wanted: Iterable, there: Iterable) -> list:
    """Those of `wanted` that are there; one line is printed of the others."""
    there = set(there)
    if absent := [str(one) for one in wanted if one not in there]:
        print(f"not in this study: {what} {', '.join(absent)}")
    return [one for one in wanted if one in there]


def write(table: pd.DataFrame, study: str, name: str, **options) -> None:
    """Write a derived table, results/<study>/<name>, whole or not at all; options of `to_csv`."""
    runs.write_table(table, study_folder(study) / name, **options)
