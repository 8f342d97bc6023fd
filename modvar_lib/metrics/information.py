"""What is left of each digit? Linear probes of a layer, fitted on pairs of one half of the test digits, scored on the other.

- `probe_r2`, side `left`: held-out R² of x, the left digit; `right`: of y; `both`: the mean. A network that keeps only x + y has
  nothing to be modular with.
- `probe_r2_sum`, `probe_r2_difference`: of x + y and x - y.
- `specialisation` F = |F_left - F_right| / 2 with F_side = R²(x) - R²(y) from the units that serve a side alone (R² below 0
  counted as 0). 1: each side's units know their own digit and nothing of the other; 0: no division of labour.

R² is 1 at best, 0 for the best constant, and may be below 0 on held-out pairs. Ridge regression on centred activations. A
silent layer scores about 0. `specialisation` is NaN, with the reason, where a side has no unit.
Sources: Alain and Bengio, arXiv:1610.01644 (linear probes); Béna and Goodman, arXiv:2106.02626 (F).
"""

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from torch import Tensor

from modvar_lib.metrics.subject import Subject, tidy
from modvar_lib.metrics.weights import ONE_SIDE

FITTED, SCORED = 5000, 5000  # pairs


def rows(subject: Subject) -> list[dict]:
    half = len(subject.digits) // 2
    fit = subject.draws[:FITTED, :2] % half
    test = half + subject.draws[:SCORED, 2:] % half  # other columns: other draws
    known, wanted = (_targets(subject, pairs) for pairs in (fit, test))
    fitted, scored = subject.activations(fit), subject.activations(test)
    table = []
    for layer in subject.layers:
        x, z = fitted[layer].numpy(), scored[layer].numpy()
        left, right, total, difference = probe(x, z, known, wanted)
        values = {
            ("probe_r2", "left"): left,
            ("probe_r2", "right"): right,
            ("probe_r2", "both"): (left + right) / 2,
            ("probe_r2_sum", "both"): total,
            ("probe_r2_difference", "both"): difference,
            ("specialisation", "both"): float("nan"),
        }
        groups = [units.numpy() for units in subject.sides(layer).values()]
        if all(units.any() for units in groups):
            of_left, of_right = (
                probe(x[:, units], z[:, units], known[:, :2], wanted[:, :2]).clip(min=0)
                for units in groups
            )
            values["specialisation", "both"] = (
                abs((of_left[0] - of_left[1]) - (of_right[0] - of_right[1])) / 2
            )
        for (measure, side), value in values.items():
            table += tidy(layer, {measure: float(value)}, ONE_SIDE, side)
    return table


def probe(x: np.ndarray, z: np.ndarray, known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Held-out R² of each target: fitted on activations x [n, U] and targets [n, T], scored on z and `wanted`.

    Units keep their sizes against each other: a unit that is almost never on would be blown up by a scale of its own.
    """
    x, z = x.astype(np.float64), z.astype(np.float64)
    mean = x.mean(0)
    scale = (x - mean).std() or 1.0
    model = Ridge(alpha=1e-4 * len(x)).fit((x - mean) / scale, known)
    return r2_score(wanted, model.predict((z - mean) / scale), multioutput="raw_values")


def _targets(subject: Subject, pairs: Tensor) -> np.ndarray:
    x, y = subject.digits.labels[pairs].unbind(-1)
    return np.stack([x, y, x + y, x - y], -1).astype(np.float32)
