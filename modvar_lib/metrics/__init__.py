"""Measures of a trained network, one file each. METRICS: {name: Metric}, from a `Subject` to tidy
rows.

A row is (layer, side, measure, value, note): `side` is left, right or both; `note` says why a value
is NaN. Tables add the columns that name the network; `copy`, "trained" or what was done to it; and
`place`, where a layer is. `clusterability`, in COSTLY, and `transfer`, which trains, cost more than
all others together: they are measured where `extras` asks for them.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from operator import sub, truediv

import pandas as pd
import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from modvar_lib import calibration, data
from modvar_lib.errors import InputError, lookup
from modvar_lib.metrics import transfer
from modvar_lib.metrics.subject import Property, Subject, tidy  # noqa: F401 (for a measure of one's own)
from modvar_lib.runs import KEYS, Run
from modvar_lib.settings import Settings
from modvar_lib.training import one_thread

Splits = tuple[data.Digits, data.Digits]
ROW = ["layer", "side", "measure", "value", "note"]
COLUMNS = [*KEYS, "copy", "layer", "place", "side", "measure", "value", "note"]
PAIRS = 10_000  # held-out draws a measure averages over: one for each test digit
PLACES = ("readout", "bottleneck", "before_bottleneck")  # from the end; all others are "hidden"
HUGE = 1e15  # what is computed of weights and activations above it would overflow
DIVERGED = f"the network diverged: weights or activations are not finite, or above {HUGE:g}"


@dataclass(frozen=True)
class Metric:
    """rows: Subject -> rows; properties: {name of a measure among its rows: Property}. METRICS
    takes your own, too: see 10_your_own.ipynb."""

    rows: Callable[[Subject], list[dict]]
    properties: dict[str, Property]


def _metrics(*names: str) -> dict[str, Metric]:
    modules = {name: import_module(f"{__name__}.{name}") for name in names}
    return {name: Metric(module.rows, module.PROPERTIES) for name, module in modules.items()}


LIGHT = _metrics(
    *("activation_change", "selectivity", "effect_selectivity", "interchange", "separation"),
    *("purity", "subspace_interchange", "preactivation", "lesion"),
)
METRICS = LIGHT | _metrics("digit_selectivity", "weights", "information", "refit")
COSTLY = _metrics("clusterability")
# Followed through training, those of DERIVED left out: they follow from others, or tell nothing new
NARROW = partial(METRICS["subspace_interchange"].rows, widest=512)  # wider layers: at the end only
FOLLOWED = LIGHT | {"subspace_interchange": replace(METRICS["subspace_interchange"], rows=NARROW)}
DERIVED = ["zero_norm", "zero_norm_pre", "interchange_percentile"]
DERIVED += ["activation_change_centred", "activation_change_centred_pre"]
CHANCE = {  # what is read against its value at chance: (measure, its value at chance, how)
    "side_selectivity_above_chance": ("side_selectivity", "side_selectivity_rotated", sub),
    "effect_selectivity_above_chance": ("effect_selectivity", "effect_selectivity_rotated", sub),
    "effect_selectivity_of_possible": (
        "effect_selectivity",
        "effect_selectivity_rotated",
        lambda v, c: (v - c) / (1 - c),
    ),
    "weight_modularity_above_chance": ("weight_modularity", "weight_modularity_shuffled", sub),
    "interchange_error_over_chance": ("interchange_error", "interchange_error_random", truediv),
}

NAMES = {  # what tables and figures call them
    "activation_change": "original score",
    "effect_selectivity_above_chance": "selectivity minus chance (by effect)",
    "effect_selectivity_of_possible": "... as part of what is possible",
    "side_selectivity": "side selectivity",
    "side_selectivity_above_chance": "selectivity minus chance (by variance)",
    "interaction": "interaction",
    "purity": "purity of units",
    "separation": "separation",
    "alignment": "alignment",
    "subspace_interchange": "subspace interchange",
    "interchange_error_over_chance": "interchange error / chance",
    "lesion_leak": "lesion leak",
    "weight_modularity": "weights: Newman's Q",
    "specialisation": "specialisation F",
}


def against_chance(measures: pd.DataFrame) -> pd.DataFrame:
    """A table of measures with those in CHANCE added: value minus value at chance (`above`), that
    as a part of what is possible (`of_possible`: 1 where every unit serves one side alone), or the
    ratio (`over`)."""
    keys = [name for name in measures.columns if name not in ("measure", "value", "note")]
    wide = measures.pivot(index=keys, columns="measure", values="value")
    parts = [
        how(wide[measure], wide[chance]).rename("value").reset_index().assign(measure=name)
        for name, (measure, chance, how) in CHANCE.items()
        if measure in wide and chance in wide
    ]
    return pd.concat([measures, *parts], ignore_index=True)


def measure_network(subject: Subject, metrics: dict[str, Metric] | None = None) -> list[dict]:
    """Rows of all registered measures, or of `metrics`. Errors: InputError if they are not what
    `Metric` describes."""
    table = []
    for name, metric in (METRICS if metrics is None else metrics).items():
        with torch.no_grad():
            table += (rows := metric.rows(subject))
        for row in rows:
            if set(row) != set(ROW) or row["measure"] not in metric.properties:
                allowed = f"{', '.join(ROW)}, measure one of {', '.join(metric.properties)}"
                raise InputError(f"measure: {name} gives {row}; allowed: rows of {allowed}")
    return table


def measure(run: Run, splits: Splits, pairs: int = PAIRS, copy: str = "trained") -> pd.DataFrame:
    """Every registered measure of a network, a table with COLUMNS, on draws of its own from
    held-out digits.

    copy: "trained"; or one of `calibration.COPIES`, measured instead; "seen", the score alone, on
    training digits; or "clusterability" alone. A network that diverged has the rows of any other,
    each NaN, with that reason.
    """
    lookup({"trained": 0, "seen": 0, **calibration.COPIES, **COSTLY}, "copy", copy)
    subject, note = _subject(run, splits if copy != "seen" else (splits[0], splits[0]), pairs)
    if copy in calibration.COPIES:
        subject = replace(subject, network=calibration.COPIES[copy](run, subject))
    metrics = {"seen": {"score": METRICS["activation_change"]}, "clusterability": COSTLY}.get(copy)
    table = _table(run, subject, measure_network(subject, metrics), note)
    return table.assign(copy="trained" if copy in COSTLY else copy)[COLUMNS]


def measure_transfer(run: Run, splits: Splits) -> pd.DataFrame:
    """`transfer` of a network and of the same before its training (copy: untrained), a table with
    COLUMNS."""
    parts = []
    for copy, epochs in (("trained", None), ("untrained", 0)):
        subject, note = _subject(run, splits, 20, epochs)
        rows = transfer.rows(subject.network, splits, subject.seed)
        parts.append(_table(run, subject, rows, note).assign(copy=copy))
    return pd.concat(parts)[COLUMNS]


def measure_training(run: Run, splits: Splits, pairs: int = 2000) -> pd.DataFrame:
    """The measures in FOLLOWED through training, side `both`: before it, after those epochs of
    which the run has frames, and at the end. Columns: KEYS, epoch (so many are done), layer, place,
    side, measure, value (to six digits)."""
    moments = []
    for epoch in sorted({0, *run.frames, run.settings.epochs}):
        subject, note = _subject(run, splits, pairs, epoch)
        table = _table(run, subject, measure_network(subject, FOLLOWED), note)
        moments.append(table.assign(epoch=epoch))
    table = pd.concat(moments, ignore_index=True)
    table = table.query("side == 'both' and measure not in @DERIVED").reset_index(drop=True)
    table["value"] = [float(f"{value:.6g}") for value in table["value"]]
    return table[[*KEYS, "epoch", "layer", "place", "side", "measure", "value"]]


def measure_group(settings: Settings, runs: list[Run]) -> dict[str, pd.DataFrame]:
    """The tables of a group, on all cores: `measures`, with the copies in `settings.extras`; and, of
    networks that have frames, `training`."""
    splits = data.digits(settings.dataset)
    copies = ["trained", *filter(None, map(str.strip, settings.extras.split(",")))]
    jobs = [
        ("measures", measure_transfer if copy == "transfer" else partial(measure, copy=copy), run)
        for run in runs
        for copy in copies
    ]
    jobs += [("training", measure_training, run) for run in runs if run.frames]
    label, tables = f"measuring {settings.arm} {settings.group}", {}
    with one_thread(True) as cores, threadpool_limits(1), ThreadPoolExecutor(cores) as pool:
        results = pool.map(lambda job: (job[0], job[1](job[2], splits)), jobs)
        for name, table in tqdm(results, label, len(jobs), unit="table", mininterval=5):
            tables.setdefault(name, []).append(table)
    return {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}


def _subject(run: Run, splits: Splits, pairs: int, epochs: int | None = None):
    """A Subject, and why it has no values if the network diverged: then the untrained one stands
    in, for the names of rows."""
    seed, network = run.settings.seed, run.network(epochs)
    draws = torch.from_numpy(data.evaluation_pairs(seed, pairs, len(splits[1])))
    if all((weight.abs() <= HUGE).all() for weight in network.parameters()):
        subject = Subject(network, splits, draws, seed)
        if all((parts.energy <= HUGE**2).all() for parts in subject.anova.values()):
            return subject, ""
    return Subject(run.network(0), splits, draws[:20], seed), DIVERGED


def _table(run: Run, subject: Subject, rows: list[dict], note: str) -> pd.DataFrame:
    places = dict.fromkeys(subject.layers, "hidden") | dict(zip(reversed(subject.layers), PLACES))
    table = pd.DataFrame(rows, columns=ROW).assign(**run.key)
    table["place"] = [places.get(layer, layer) for layer in table["layer"]]
    return table.assign(value=float("nan"), note=note) if note else table
