"""Does damage stay on its side? Mean ablation of the units that serve one side.

`lesion_leak`, side `left`: freeze the left-serving units of a layer at their means, and see how the answer changes, pair by pair.
The part of that change's variance that does not depend on the left digit alone, (V_R + V_I) / V. 0: damage to the left units is
felt through the left digit only, as in `towers`. 1: only through the other digit or both at once. `both`: the mean of the sides.
At chance 1/2 or more: units with no side of their own.
NaN, with the reason, where no unit serves a side or freezing them changes the answer by a constant.
Source: after Béna and Goodman, arXiv:2106.02626 (ablation); the variance share is this project's.
"""

import torch

from modvar_lib.metrics.interchange import NO_UNIT, answers
from modvar_lib.metrics.subject import Subject, anova
from modvar_lib.metrics.weights import overwritten

DRAWS = 1000
NO_EFFECT = "freezing these units changes the answer by a constant"


def rows(subject: Subject) -> list[dict]:
    four = torch.cat(list(subject.quadruples(DRAWS)), 1)
    pairs, table = four.flatten(0, 1), []
    whole = answers(subject.network, subject, pairs)
    for layer in subject.layers[:-1]:
        found = {}
        mean = subject.anova[layer].mean.float()
        for side, units in subject.sides(layer).items():
            with overwritten(subject.network, layer, lambda h: torch.where(units, mean, h)):  # noqa: B023
                change = whole - answers(subject.network, subject, pairs)
            parts = anova([{layer: change.unflatten(0, (4, -1))}])[layer]
            total, own = parts.total.sum(), getattr(parts, side).sum()
            tiny = 1e-12 * whole.double().var(0).sum()
            note = NO_UNIT if not units.any() else NO_EFFECT if not total > tiny else ""
            found[side] = (float(1 - own / total) if not note else float("nan"), note)
        notes = {note for _, note in found.values()} - {""}
        found["both"] = sum(value for value, _ in found.values()) / 2, min(notes, default="")
        table += [
            {"layer": layer, "side": side, "measure": "lesion_leak", "value": value, "note": note}
            for side, (value, note) in found.items()
        ]
    return table
