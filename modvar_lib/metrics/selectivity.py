"""Does each unit serve one digit? Shares of variance over a layer's units, from the functional
ANOVA.

- `side_selectivity` SEL = Σ|V_L - V_R| / ΣV. 1: every unit serves one side alone, as in `towers`.
  0: every unit serves both alike, as in `summed`. `side_selectivity_rotated`, the value at chance:
  the same activations, of the first draws, after one random rotation of the layer (Haar).
- `interaction` INT = ΣV_I / ΣV, 0 to 1. 0: every unit is f(L) + g(R).
- `side_balance` = (ΣV_L - ΣV_R) / ΣV, -1 to 1. 0: both sides alike. A layer that ignores one side
  has a selectivity of 1 and a balance of 1 or -1: read the two together.

Selectivity depends on the basis, on purpose: it asks about units. A unit weighs by its variance: a
constant one does not count, and a ReLU unit that is scaled up, and down again in the next layer,
counts for more. NaN, with the reason, where nothing varies. Source: `subject`; the sums over units
are this project's.
"""

import torch

from modvar_lib.metrics.perturbations import haar
from modvar_lib.metrics.subject import NOTHING_VARIES, Property, Subject, anova, tidy

PROPERTIES = {
    "side_selectivity": Property(0, 1, ("permutation", "swap"), 1),
    "side_selectivity_rotated": Property(0, 1, ("swap",)),
    "interaction": Property(0, 1, ("permutation", "rotation", "swap"), -1),
    "side_balance": Property(-1, 1, ("permutation", "rotation")),
}


def rows(subject: Subject) -> list[dict]:
    table, generator = [], subject.generator()
    for layer, parts in subject.anova.items():
        units, total = len(parts.left), parts.total.sum()
        rotated = subject.first[layer] @ haar(torch.randn(units, units, generator=generator))
        values = (
            parts.selectivity,
            anova([{layer: rotated}])[layer].selectivity,
            float(parts.interaction.sum() / total),
            float((parts.left.sum() - parts.right.sum()) / total),
        )
        table += tidy(layer, dict(zip(PROPERTIES, values)), NOTHING_VARIES)
    return table
