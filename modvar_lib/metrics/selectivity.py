"""Does each unit serve one digit? Shares of variance over the units of a layer, from the functional ANOVA (see `subject`).

- `side_selectivity` SEL = Σ|V_L - V_R| / ΣV. 1: every unit serves one side alone, as in `towers`. 0: every unit serves both
  alike, as in `summed`. A random rotation of the layer brings it to its floor, `side_selectivity_rotated` (one rotation, of the
  same activations): the value at chance for these activations.
- `interaction` INT = ΣV_I / ΣV, 0 to 1. 0: every unit is f(L) + g(R).
- `side_balance` = (ΣV_L - ΣV_R) / ΣV, -1 to 1. 0: both sides alike. A layer that ignores one side has a selectivity of 1 and a
  balance of 1 or -1: read the two together.

Selectivity depends on the basis, on purpose: it asks about units. A unit weighs by its variance, so constant and dead units
do not count, and a ReLU unit that is scaled up, and down again in the next layer, counts for more. A layer in which nothing
varies has no value (NaN, with the reason).
Source: the functional ANOVA as in `subject`; the sums over units are this project's.
"""

import torch

from modvar_lib.calibration import haar
from modvar_lib.metrics.subject import Anova, Subject, anova, tidy

ROTATED_DRAWS = 1000
NOTHING_VARIES = "nothing varies in this layer"


def selectivity(found: Anova) -> float:
    """Σ|V_L - V_R| / ΣV of a layer.

    >>> unit = lambda *values: torch.tensor(values, dtype=torch.float64)
    >>> selectivity(Anova(unit(3, 0), unit(0, 3), unit(0, 0), unit(0, 0), unit(3, 3)))
    1.0
    >>> selectivity(Anova(unit(3, 1), unit(1, 2), unit(0, 1), unit(0, 0), unit(4, 4)))
    0.375
    """
    return float((found.left - found.right).abs().sum() / found.total.sum())


def rows(subject: Subject) -> list[dict]:
    table = []
    rotated = rotated_anova(subject)
    for layer, found in subject.anova.items():
        total = found.total.sum()
        values = {
            "side_selectivity": selectivity(found),
            "side_selectivity_rotated": selectivity(rotated[layer]),
            "interaction": float(found.interaction.sum() / total),
            "side_balance": float((found.left.sum() - found.right.sum()) / total),
        }
        table += tidy(layer, values, NOTHING_VARIES)
    return table


def rotated_anova(subject: Subject) -> dict[str, Anova]:
    """Of every layer, its activations turned by a random rotation (Haar) each."""
    generator, turns = subject.generator(), {}

    def turned(layer, values):
        units = values.shape[-1]
        if layer not in turns:
            turns[layer] = haar(torch.randn(units, units, generator=generator))
        return values @ turns[layer]

    return anova(
        {
            k: turned(k, v).unflatten(0, (4, -1))
            for k, v in subject.activations(four.flatten(0, 1)).items()
        }
        for four in subject.quadruples(ROTATED_DRAWS)
    )
