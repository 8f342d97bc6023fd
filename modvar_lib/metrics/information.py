"""What is left of each digit? Linear probes of a layer, fitted on pairs of one half of the test
digits, scored on the other.

- `probe_r2`, side `left`: held-out R² of x, the left digit; `right`: of y; `both`: the mean. A
  network that keeps only x + y has nothing to be modular with.
- `probe_r2_sum`, `probe_r2_difference`: of x + y and x - y.
- `specialisation` F = |F_left - F_right| / 2 with F_side = R²(x) - R²(y) from the units that serve
  a side alone (R² below 0 counted as 0). 1: each side's units know their own digit and nothing of
  the other; 0: no division of labour.

R² is 1 at best, 0 for the best constant, and may be below 0 on held-out pairs. Ridge regression on
centred activations, 5,000 pairs each. A silent layer scores about 0. `specialisation` is NaN, with
the reason, where a side has no unit. Sources: Alain and Bengio, arXiv:1610.01644 (linear probes);
Béna and Goodman, arXiv:2106.02626 (F).
"""

from math import inf, nan

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from torch import Tensor

from modvar_lib.metrics.subject import ONE_SIDE, Property, Subject, sided, tidy

FOLLOWED, PAIRS = None, 5000
PROBES = Property(-inf, 1, ("permutation", "rotation"))
PROPERTIES = {
    **dict.fromkeys(("probe_r2", "probe_r2_sum", "probe_r2_difference"), PROBES),
    "specialisation": Property(0, 1, ("permutation",), 1),
}


def rows(subject: Subject) -> list[dict]:
    """`probe_r2` of each side, the other measures once."""

    def problem(pairs: Tensor) -> tuple[dict[str, Tensor], np.ndarray]:  # layers, targets [n, 4]
        x, y = subject.digits.labels[pairs].unbind(-1)
        return subject.activations(pairs), np.stack([x, y, x + y, x - y], -1).astype(np.float32)

    half, table = len(subject.digits) // 2, []
    fitted, known = problem(subject.draws[:PAIRS, :2] % half)
    scored, hidden = problem(half + subject.draws[:PAIRS, 2:] % half)  # other columns: other draws
    for layer in subject.layers:
        x, z = fitted[layer].numpy(), scored[layer].numpy()
        left, right, total, difference = map(float, probe(x, z, known, hidden))
        apart, groups = nan, [units.numpy() for units in subject.sides(layer).values()]
        if all(units.any() for units in groups):
            of_left, of_right = (
                probe(x[:, units], z[:, units], known[:, :2], hidden[:, :2]).clip(min=0)
                for units in groups
            )
            apart = abs(float(of_left[0] - of_left[1]) - float(of_right[0] - of_right[1])) / 2
        table += sided(layer, {"probe_r2": (left, right)})
        values = (total, difference, apart)
        table += tidy(layer, dict(zip(list(PROPERTIES)[1:], values)), ONE_SIDE)
    return table


def probe(x: np.ndarray, z: np.ndarray, known: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Held-out R² of each target: fitted on activations x [n, U] and targets [n, T], scored on z
    and `hidden`. One scale for all units: one that is almost never on would be blown up by its
    own."""
    x, z = x.astype(np.float64), z.astype(np.float64)
    mean = x.mean(0)
    scale = (x - mean).std() or 1.0
    model = Ridge(alpha=1e-4 * len(x)).fit((x - mean) / scale, known)
    return r2_score(hidden, model.predict((z - mean) / scale), multioutput="raw_values")
