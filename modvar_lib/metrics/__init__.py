"""Measures of a trained network. METRICS: {name: function(network, images, draws) -> tidy rows}, one file a measure.

network: see `models`; images: of the test split; draws: [N, 4] rows (left, right, another left, another right).
A row is (layer, side, measure, value); `measure` adds the columns that name the run.
"""

import pandas as pd
import torch

from modvar_lib import data
from modvar_lib.metrics import activation_change
from modvar_lib.runs import KEYS, Run

METRICS = {"activation_change": activation_change.rows}
COLUMNS = [*KEYS, "layer", "side", "measure", "value"]
PAIRS = 10_000  # held-out pairs a measure averages over: one for each test digit


def measure(run: Run, test_digits: data.Digits, pairs: int = PAIRS) -> pd.DataFrame:
    """Every registered measure of one run, on its seed's own held-out pairs: a table with COLUMNS."""
    draws = torch.from_numpy(data.evaluation_pairs(run.settings["seed"], pairs, len(test_digits)))
    network = run.network()
    with torch.no_grad():
        found = [
            row for rows in METRICS.values() for row in rows(network, test_digits.images, draws)
        ]
    return pd.DataFrame([{**run.key, **row} for row in found], columns=COLUMNS)
