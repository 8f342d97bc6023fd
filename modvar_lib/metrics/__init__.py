"""Measures of a trained network, one file each. METRICS: {name: Metric}, whose function takes a `Subject` and returns tidy rows.

A row is (layer, side, measure, value, note): `side` is left, right or both; `note` says why a value is NaN. `measure` adds
the columns that name the run. `clusterability` costs minutes a network and is in COSTLY, not in METRICS.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch

from modvar_lib import data, models
from modvar_lib.metrics import (
    activation_change,
    digit_selectivity,
    information,
    interchange,
    lesion,
    refit,
    selectivity,
    weights,
)
from modvar_lib.metrics.subject import Subject
from modvar_lib.runs import KEYS, Run

COLUMNS = [*KEYS, "layer", "side", "measure", "value", "note"]
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
    """rows: Subject -> rows; properties: {name of a measure among its rows: Property}."""

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
            "weight_modularity_shuffled": Property(-0.5, 0.5, ()),
            "weight_ncut_shuffled": Property(0, 2, ()),
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
            "probe_r2": Property(-INF, 1, ("permutation", "rescaling")),
            "probe_r2_sum": Property(-INF, 1, ("permutation", "rescaling")),
            "probe_r2_difference": Property(-INF, 1, ("permutation", "rescaling")),
            "specialisation": Property(0, 1, ("permutation", "rescaling"), 1),
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


def measure_network(subject: Subject) -> list[dict]:
    """The rows of every registered measure."""
    with torch.no_grad():
        return [row for metric in METRICS.values() for row in metric.rows(subject)]


def measure(run: Run, test_digits: data.Digits, pairs: int = PAIRS) -> pd.DataFrame:
    """Every registered measure of one run, on its seed's own held-out draws: a table with COLUMNS.

    A run whose weights are not finite has the rows of any other, each NaN, with that reason.
    """
    seed = run.settings["seed"]
    draws = torch.from_numpy(data.evaluation_pairs(seed, pairs, len(test_digits)))
    if all(weights.isfinite().all() for weights in run.weights.values()):
        found = measure_network(Subject(run.network(), test_digits, draws, seed))
    else:
        stand_in = models.initial(run.settings["architecture"], seed)
        found = measure_network(Subject(stand_in, test_digits, draws[:20], seed))
        note = "the network's weights are not finite"
        found = [{**row, "value": float("nan"), "note": note} for row in found]
    return pd.DataFrame([{**run.key, **row} for row in found], columns=COLUMNS)
