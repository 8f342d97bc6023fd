"""Does damage stay on its side? Mean ablation of the units that serve one side.

`lesion_leak`, side `left`: freeze the left-serving units of a layer at their means, and see how the
answer changes, pair by pair. The part of that change's variance that does not depend on the left
digit alone, (V_R + V_I) / V. 0: damage to the left units is felt through the left digit only, as in
`towers`. 1: only through the other digit or both at once. `both`: the mean of the sides. At chance
1/2 or more: units with no side of their own. Of every layer but the readout, over the first draws.
NaN, with the reason, where no unit serves a side or freezing them changes the answer by a constant.
Source: after Béna and Goodman, arXiv:2106.02626 (ablation); the variance share is this project's.
"""

from math import nan

import torch

from modvar_lib import data
from modvar_lib.metrics.subject import NO_UNIT, Property, Subject, anova, tidy
from modvar_lib.models import run_from

NO_EFFECT = "freezing these units changes the answer by a constant"
PROPERTIES = {"lesion_leak": Property(0, 1, ("permutation", "rescaling", "swap"), -1)}


def rows(subject: Subject) -> list[dict]:
    """Rows of each side, of every layer but the readout."""
    pictures = data.halves(subject.digits.images, subject.first_pairs.flatten(0, 1))
    whole, table = subject.first["readout"].flatten(0, 1), []
    least = 1e-12 * whole.double().var(0).sum()
    for layer in subject.layers[:-1]:
        values, notes, mean = [], [], subject.anova[layer].mean.float()
        for side, units in subject.sides(layer).items():
            frozen = torch.where(units, mean, subject.first[layer].flatten(0, 1))
            change = whole - run_from(subject.network, layer, frozen, pictures)
            parts = anova([{layer: change.unflatten(0, (4, -1))}])[layer]
            total, own = parts.total.sum(), getattr(parts, side).sum()
            notes.append(NO_UNIT if not units.any() else NO_EFFECT if not total > least else "")
            values.append(nan if notes[-1] else float(1 - own / total))
            table += tidy(layer, {"lesion_leak": values[-1]}, notes[-1], side)
        table += tidy(layer, {"lesion_leak": sum(values) / 2}, min(filter(None, notes), default=""))
    return table
