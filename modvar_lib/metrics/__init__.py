"""Measures of a trained network, one file each. METRICS: {name: Metric}, whose function takes a `Subject` and returns tidy rows.

A row is (layer, side, measure, value, note): `side` is left, right or both; `note` says why a value is NaN. `measure` adds
the columns that name the run. COSTLY holds `clusterability`, which costs more than all others together and is measured apart.
"""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from modvar_lib import calibration, data, files, models
from modvar_lib.errors import InputError, lookup
from modvar_lib.metrics import (
    activation_change,
    clusterability,
    digit_selectivity,
    information,
    interchange,
    lesion,
    refit,
    selectivity,
    weights,
)
from modvar_lib.metrics.subject import Subject, tidy  # noqa: F401 (for one's own)
from modvar_lib.progress import Shown
from modvar_lib.runs import KEYS, Run, fingerprint, load, paths, study_folder
from modvar_lib.training import one_thread

ROW = ["layer", "side", "measure", "value", "note"]
COLUMNS = [*KEYS, *ROW]
PAIRS = 10_000  # held-out draws a measure averages over: one for each test digit
INF = float("inf")


@dataclass(frozen=True)
class Property:
    """What a measure declares of itself, and the tests hold it to.

    low, high: bounds of a value. invariant: among `permutation` (of the units of a layer), `rescaling` (of each ReLU unit, undone
    in the next layer), `rotation` (of a layer, undone in the next), `swap` (of the sides; `left` and `right` trade places).
    modular: 1 if more is more modular, -1 if less is, 0 if it does not say.
    """

    low: float
    high: float
    invariant: tuple[str, ...]
    modular: int = 0


@dataclass(frozen=True)
class Metric:
    """rows: Subject -> rows; properties: {name of a measure among its rows: Property}.

    >>> def silent_share(subject):
    ...     "Share of a layer's units that are the same for every picture."
    ...     shares = {k: float((found.total == 0).double().mean()) for k, found in subject.anova.items()}
    ...     return [row for layer, share in shares.items() for row in tidy(layer, {"silent": share}, "")]
    >>> METRICS["silent"] = Metric(silent_share, {"silent": Property(0, 1, ("permutation", "rescaling"))})
    >>> _, test_digits = data.digits()
    >>> draws = torch.from_numpy(data.evaluation_pairs(0, 100, len(test_digits)))
    >>> rows = measure_network(Subject(models.initial("towers", seed=0), test_digits, draws))
    >>> {row["layer"]: row["value"] for row in rows if row["measure"] == "silent"}
    {'hidden1': 0.0, 'hidden2': 0.015625, 'bottleneck': 0.0, 'readout': 0.0}
    >>> del METRICS["silent"]
    """

    rows: Callable[[Subject], list[dict]]
    properties: dict[str, Property]


UNITS = ("permutation", "swap")
ALL = ("permutation", "rescaling", "rotation", "swap")
METRICS = {
    "activation_change": Metric(
        activation_change.rows,
        {
            "activation_change": Property(0, INF, ("permutation", "rotation")),
            "activation_change_pre": Property(0, INF, ("permutation",)),
            "zero_norm": Property(0, 1, ("permutation", "rescaling", "rotation")),
            "zero_norm_pre": Property(0, 1, ("permutation", "rescaling")),
            "offset_share": Property(0, 1, ("permutation", "rotation", "swap")),
            "exchanged_share": Property(0, 1, ("permutation", "rotation", "swap")),
            "activation_change_centred": Property(0, 2**0.5, ("permutation", "rotation", "swap")),
            "activation_change_expected": Property(0, 2**0.5, ("permutation", "rotation", "swap")),
        },
    ),
    "selectivity": Metric(
        selectivity.rows,
        {
            "side_selectivity": Property(0, 1, UNITS, 1),
            "side_selectivity_rotated": Property(0, 1, ("swap",)),
            "interaction": Property(0, 1, ("permutation", "rotation", "swap"), -1),
            "side_balance": Property(-1, 1, ("permutation", "rotation")),
        },
    ),
    "digit_selectivity": Metric(
        digit_selectivity.rows,
        {
            "digit_selectivity": Property(0, 1, ("permutation",), 1),
            "digit_interaction": Property(0, 1, ("permutation",), -1),
            "digit_share": Property(0, 1, ("permutation", "rotation")),
        },
    ),
    "weights": Metric(
        weights.rows,
        {
            "weight_modularity": Property(-0.5, 0.5, ("permutation", "rescaling", "swap"), 1),
            "weight_ncut": Property(0, 2, ("permutation", "rescaling", "swap"), -1),
            "weight_modularity_shuffled": Property(-0.5, 0.5, ("rescaling",)),
            "weight_ncut_shuffled": Property(0, 2, ("rescaling",)),
        },
    ),
    "interchange": Metric(
        interchange.rows,
        {
            "interchange_error": Property(0, INF, ("permutation", "rescaling", "swap"), -1),
            "interchange_error_random": Property(0, INF, ()),
            "interchange_percentile": Property(0, 1, ()),
        },
    ),
    "lesion": Metric(
        lesion.rows, {"lesion_leak": Property(0, 1, ("permutation", "rescaling", "swap"), -1)}
    ),
    "information": Metric(
        information.rows,
        {
            "probe_r2": Property(-INF, 1, ("permutation", "rotation")),
            "probe_r2_sum": Property(-INF, 1, ("permutation", "rotation")),
            "probe_r2_difference": Property(-INF, 1, ("permutation", "rotation")),
            "specialisation": Property(0, 1, ("permutation",), 1),
        },
    ),
    "refit": Metric(
        refit.rows,
        {
            "refit_r2": Property(-INF, 1, ("permutation", "rescaling", "rotation")),
            "refit_r2_difference": Property(-INF, 1, ("permutation", "rescaling", "rotation")),
            "refit_steps": Property(0, refit.STEPS, ("permutation", "rescaling")),
        },
    ),
}
COSTLY = {
    "clusterability": Metric(
        clusterability.rows,
        {
            "cluster_ncut": Property(0, clusterability.CLUSTERS, ("permutation", "rescaling")),
            "cluster_ncut_shuffled": Property(0, clusterability.CLUSTERS, ()),
            "cluster_z": Property(-INF, INF, (), -1),
            "cluster_percentile": Property(0, 1, (), -1),
        },
    )
}


CHANCE = {  # what is read against its value at chance: (measure, its value at chance, how)
    "side_selectivity_above_chance": ("side_selectivity", "side_selectivity_rotated", "sub"),
    "weight_modularity_above_chance": ("weight_modularity", "weight_modularity_shuffled", "sub"),
    "interchange_error_over_chance": ("interchange_error", "interchange_error_random", "div"),
}


def against_chance(measures: pd.DataFrame) -> pd.DataFrame:
    """A table of measures with those in CHANCE added: value less its value at chance (`above`), or their ratio (`over`)."""
    keys = [name for name in measures.columns if name not in ("measure", "value", "note")]
    wide = measures.pivot(index=keys, columns="measure", values="value")
    parts = [
        getattr(wide[own], how)(wide[chance]).rename("value").reset_index().assign(measure=name)
        for name, (own, chance, how) in CHANCE.items()
        if own in wide and chance in wide
    ]
    return pd.concat([measures, *parts], ignore_index=True)


def measure_network(subject: Subject) -> list[dict]:
    """The rows of every registered measure."""
    with torch.no_grad():
        return [row for name in METRICS for row in _rows(METRICS, name, subject)]


def _rows(registry: dict[str, Metric], name: str, subject: Subject) -> list[dict]:
    """Of one measure; one line of error when they are not what `Metric` describes."""
    found, allowed = registry[name].rows(subject), registry[name].properties
    for row in found:
        if set(row) != set(ROW) or row["measure"] not in allowed:
            raise InputError(
                f"measure: {name} gives {row}; allowed: rows of {', '.join(ROW)}, measure being one of {', '.join(allowed)}"
            )
    return found


USUAL = [[a, r] for a in ("mlp", "towers") for r in ("fixed", "varying")]


def measure_study(study: str) -> pd.DataFrame:
    """`measure` of every run of a study, on all cores. Each run's rows are kept in results/<study>/measures/ and taken from there
    the next time, unless the run or the code of the measures has changed."""
    if study.startswith("published/"):
        raise InputError(
            f"study: got {study!r}, whose tables hold more networks than are kept there; allowed: a study of your own"
        )
    return _measured(study, [(path, None) for path in paths(study)])


def measure_copies(study: str) -> pd.DataFrame:
    """`measure` of copies, a column `copy` more: those in `calibration.COPIES` of each default `mlp` and `towers` on `fixed` and
    `varying`; and `seen`, the score alone of every network on these regimes, on pairs of digits seen in training."""
    pair = [path for path in paths(study) if path.parent.name.split("-")[2] in ("fixed", "varying")]
    wanted = [(path, copy) for copy in calibration.COPIES for path in _usual(study)]
    return _measured(study, wanted + [(path, "seen") for path in pair], ", copies")


def measure_costly(study: str) -> pd.DataFrame:
    """The COSTLY measures of each default `mlp` and `towers` on `fixed` and `varying`, as `measure`."""
    wanted = [(path, "costly") for path in _usual(study)]
    return _measured(study, wanted, ", costly").drop(columns="copy")


def measure_frames(study: str, pairs: int = 2000) -> pd.DataFrame:
    """Whom each unit serves, through training: of the first run of each arm that has `frames`, for each hidden layer and unit,
    before training, after every frame and at the end, the variances of its functional ANOVA. Columns: KEYS, epoch (so many
    are done), layer, unit, left, right, interaction (to four digits)."""
    framed = [path for path in paths(study) if (path / "frames.safetensors").exists()]
    first, found = {path.parent: path for path in reversed(framed)}, []
    for run in map(load, sorted(first.values())):
        _, digits = data.digits(run.settings["dataset"])
        seed, last = run.settings["seed"], run.settings["epochs"]
        draws = torch.from_numpy(data.evaluation_pairs(seed, pairs, len(digits)))
        for epoch in [0, *run.frames, last]:
            with torch.no_grad():
                layers = Subject(run.network(epoch), digits, draws, seed).anova
            for layer in list(layers)[:-2]:  # all before the bottleneck
                parts = {
                    name: getattr(layers[layer], name) for name in ("left", "right", "interaction")
                }
                rows = pd.DataFrame(parts).map(lambda value: float(f"{value:.4g}"))
                rows = rows.rename_axis("unit").reset_index()
                found.append(rows.assign(**run.key, epoch=epoch, layer=layer))
    columns = [*KEYS, "epoch", "layer", "unit", "left", "right", "interaction"]
    return pd.concat(found)[columns] if found else pd.DataFrame(columns=columns)


def _usual(study: str) -> list[Path]:
    return [path for path in paths(study) if path.parent.name.split("-")[1:] in USUAL]


def _measured(study: str, wanted: list[tuple[Path, str | None]], what: str = "") -> pd.DataFrame:
    folder, splits = study_folder(study) / "measures" / _fingerprint(), {}
    weights = {path: _digest((path / "weights.safetensors").read_bytes()) for path, _ in wanted}
    names = {  # of a file: whose measures, of which weights; then a checksum of the file itself
        (path, copy): "-".join(filter(None, [path.parent.name, path.name, copy, weights[path]]))
        for path, copy in wanted
    }
    there = {path.name.rsplit(".", 2)[0]: path for path in folder.glob("*.csv")}
    whole = {name for name, path in there.items() if _digest(path.read_bytes()) in path.name}
    for damaged in there.keys() - whole:
        there.pop(damaged).unlink()
    todo = [key for key, name in names.items() if name not in whole]

    def one(path: Path, copy: str | None) -> None:
        run, name = load(path), names[path, copy]
        digits = splits[run.settings["dataset"]][copy != "seen"]
        found = measure(run, digits, copy=copy).assign(**{"copy": copy} if copy else {})
        content = found.to_csv(index=False).encode()
        there[name] = folder / f"{name}.{_digest(content)}.csv"
        files.write(there[name], content)
        shown.count()

    for name in {load(path).settings["dataset"] for path, _ in todo}:
        splits[name] = data.digits(name)
    label = f"measuring {study}{what}"
    cores = torch.get_num_threads()
    with (
        Shown(len(todo), 1, label, "network") as shown,
        one_thread(True),
        threadpool_limits(1),  # NumPy's and scikit-learn's
        ThreadPoolExecutor(cores) as pool,
    ):
        jobs = [pool.submit(one, *key) for key in todo]
        try:
            for job in jobs:
                job.result()
        finally:
            pool.shutdown(cancel_futures=True)
    found = [pd.read_csv(there[name]) for name in names.values()]
    return pd.concat(found or [pd.DataFrame(columns=[*COLUMNS, "copy"])], ignore_index=True)


def _fingerprint() -> str:
    """Of the code of the registered measures and of the copies."""
    own = [sys.modules[name] for name in sorted(sys.modules) if name.startswith(__name__)]
    return fingerprint([*own, calibration], [metric.rows for metric in METRICS.values()])


def _digest(content: bytes) -> str:
    return files.digest(content)[:12]


def measure(
    run: Run, digits: data.Digits, pairs: int = PAIRS, copy: str | None = None
) -> pd.DataFrame:
    """Every registered measure of one run, or of a copy of it (see `measure_copies`), or the `costly` ones, on draws of its own
    from held-out digits (`seen`: from those of training): a table with COLUMNS. A run whose weights are not finite has the
    rows of any other, each NaN, with that reason.
    """
    seed, note = run.settings["seed"], ""
    draws = torch.from_numpy(data.evaluation_pairs(seed, pairs, len(digits)))
    network = run.network()
    if not all(weights.isfinite().all() for weights in run.weights.values()):
        note = "the network's weights are not finite"
        network, draws = models.initial(run.settings["architecture"], seed), draws[:20]
    subject = Subject(network, digits, draws, seed)
    with torch.no_grad():
        if copy == "seen":
            found = activation_change.rows(subject)
        elif copy == "costly":
            found = [row for name in COSTLY for row in _rows(COSTLY, name, subject)]
        elif copy:
            changed = lookup(calibration.COPIES, "copy", copy)(run, subject)
            found = measure_network(Subject(changed, digits, draws, seed))
        else:
            found = measure_network(subject)
    if note:
        found = [{**row, "value": float("nan"), "note": note} for row in found]
    return pd.DataFrame([{**run.key, **row} for row in found], columns=COLUMNS)
