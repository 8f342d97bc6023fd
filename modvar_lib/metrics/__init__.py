"""Measures of a trained network, one file each, found here by its `rows` and PROPERTIES. METRICS:
{name: Metric}, from a `Subject` to tidy rows. EXTRAS cost more than all of them together, and are
measured where `extras` asks for it.

A row is (layer, side, measure, value, note): `side` is left, right or both; `note` says why a value
is NaN. Tables add the columns that name the network; `copy`, "trained" or what was done to it; and
`place`, where a layer is.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from math import nan
from operator import sub, truediv
from pkgutil import iter_modules

import pandas as pd
import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from modvar_lib import data
from modvar_lib.errors import InputError, lookup
from modvar_lib.metrics.perturbations import PERTURBATIONS
from modvar_lib.metrics.subject import Property, Subject, tidy  # noqa: F401
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
    """rows: Subject -> rows; properties: {name of a measure among its rows: Property}; followed:
    what gives its rows through training, if anything; extra: the copies it is measured on where
    `extras` names it. METRICS takes your own, too: see 10_your_own.ipynb."""

    rows: Callable[[Subject], list[dict]]
    properties: dict[str, Property]
    followed: Callable[[Subject], list[dict]] | None = None
    extra: tuple[str, ...] = ()


METRICS: dict[str, Metric] = {}
EXTRAS: dict[str, Metric] = {}
for _, file, _ in iter_modules(__path__):
    module = import_module(f"{__name__}.{file}")
    if hasattr(module, "PROPERTIES"):
        followed, extra = getattr(module, "FOLLOWED", module.rows), getattr(module, "EXTRA", ())
        registry = EXTRAS if extra else METRICS
        registry[file] = Metric(module.rows, module.PROPERTIES, followed, extra)
# Left out through training: they follow from others, or tell nothing new
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
    """Rows of METRICS, or of others. Errors: InputError if they are not what `Metric` describes."""
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
    """METRICS of a network, a table with COLUMNS, on draws of its own from held-out digits.

    copy: "trained"; "untrained" or one of PERTURBATIONS, measured instead; "seen", the score alone,
    on training digits; or one of EXTRAS alone. A network that diverged has the rows of any other,
    each NaN, with that reason.
    """
    metrics, copies = METRICS, (copy,)
    if copy in EXTRAS:  # which need no draws, or make their own
        metrics, copies, pairs = {copy: EXTRAS[copy]}, EXTRAS[copy].extra, 20
    elif copy == "seen":
        metrics, splits = {"score": METRICS["activation_change"]}, (splits[0], splits[0])
    elif copy not in ("trained", "untrained"):
        lookup(PERTURBATIONS, "copy", copy)
    parts = []
    for copy in copies:
        epochs, perturb = 0 if copy == "untrained" else None, PERTURBATIONS.get(copy)
        table = _measured(run, splits, pairs, metrics, epochs, perturb)
        parts.append(table.assign(copy=copy))
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def measure_training(run: Run, splits: Splits, pairs: int = 2000) -> pd.DataFrame:
    """What is followed through training, side `both`: before it, after those epochs of which the
    run has frames, and at the end. Columns: KEYS, epoch (so many are done), layer, place, side,
    measure, value (to six digits)."""
    followed = {k: replace(m, rows=m.followed) for k, m in METRICS.items() if m.followed}
    moments = [
        _measured(run, splits, pairs, followed, epoch).assign(epoch=epoch)
        for epoch in sorted({0, *run.frames, run.settings.epochs})
    ]
    table = pd.concat(moments, ignore_index=True)
    table = table.query("side == 'both' and measure not in @DERIVED").reset_index(drop=True)
    table["value"] = [float(f"{value:.6g}") for value in table["value"]]
    return table[[*KEYS, "epoch", "layer", "place", "side", "measure", "value"]]


def measure_group(settings: Settings, runs: list[Run]) -> dict[str, pd.DataFrame]:
    """The tables of a group, on all cores: `measures`, with the copies in `settings.extras`; and,
    of networks that have frames, `training`."""
    splits = data.digits(settings.dataset)
    copies = ["trained", *filter(None, map(str.strip, settings.extras.split(",")))]
    jobs: list[tuple[str, Callable, Run]]
    jobs = [("measures", partial(measure, copy=copy), run) for run in runs for copy in copies]
    jobs += [("training", measure_training, run) for run in runs if run.frames]
    label, tables = f"measuring {settings.arm} {settings.group}", {}
    with one_thread(True) as cores, threadpool_limits(1), ThreadPoolExecutor(cores) as pool:
        results = pool.map(lambda job: (job[0], job[1](job[2], splits)), jobs)
        for name, table in tqdm(results, label, len(jobs), unit="table", mininterval=5):
            tables.setdefault(name, []).append(table)
    return {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}


def _measured(run, splits, pairs, metrics, epochs, perturb=None) -> pd.DataFrame:
    """Rows of a network as it was after so many epochs, or of a perturbation of it. If it diverged,
    the untrained one stands in, for the names of rows."""
    seed, network, note = run.settings.seed, run.network(epochs), ""
    draws = torch.from_numpy(data.evaluation_pairs(seed, pairs, len(splits[1])))
    finite = all((weight.abs() <= HUGE).all() for weight in network.parameters())
    subject = Subject(network, splits, draws, seed) if finite else None
    if not subject or not all((p.energy <= HUGE**2).all() for p in subject.anova.values()):
        subject, note = Subject(run.network(0), splits, draws[:20], seed), DIVERGED
    if perturb:
        subject = replace(subject, network=perturb(subject))
    table = pd.DataFrame(measure_network(subject, metrics), columns=ROW).assign(**run.key)
    places = dict.fromkeys(subject.layers, "hidden") | dict(zip(reversed(subject.layers), PLACES))
    table["place"] = [places.get(layer, layer) for layer in table["layer"]]
    return table.assign(value=nan, note=note) if note else table
