"""Is the split causal? Interchange interventions on the units of one side.

Run (L, R); overwrite the left-serving units of a layer with theirs on (L', R'); a modular network answers as on (L', R).

- `interchange_error`, side `left`: E(answer - answer on (L', R))² / Var(answer); `right` likewise with (L, R'); `both`: the mean.
  0: the units of a side carry that digit and nothing else, as in `towers`. About 1: no better than not intervening, for a goal
  to which both digits contribute alike. Unbounded above.
- `interchange_error_random`: mean over 10 random sets of as many units of the layer, of those that vary. The value at chance.
- `interchange_percentile`: share of those sets with a smaller error, 0 to 1; 0: the split beats them all.

NaN, with the reason, where no unit serves a side or the answer never varies.
Source: Geiger et al., Causal Abstractions of Neural Networks, NeurIPS 2021, arXiv:2106.02997.
"""

import torch
from torch import Tensor, nn

from modvar_lib import data
from modvar_lib.metrics.subject import Subject
from modvar_lib.metrics.weights import overwritten

DRAWS = 500
RANDOM_SETS = 10
NO_UNIT = "no unit serves this side"
CONSTANT = "the answer never varies"


def answers(network: nn.Module, subject: Subject, pairs: Tensor) -> Tensor:
    """[n, K] for [n, 2] rows."""
    return network(data.halves(subject.digits.images, pairs))


def rows(subject: Subject) -> list[dict]:
    four = torch.cat(list(subject.quadruples(DRAWS)), 1)  # [4, n, 2]
    target = dict(
        zip(("left", "right"), (answers(subject.network, subject, four[i]) for i in (1, 2)))
    )
    variance = torch.cat(list(target.values())).double().var(0, correction=0).sum()
    source, generator, table = subject.activations(four[3]), subject.generator(), []

    def error(layer: str, units: Tensor, side: str) -> float:
        with overwritten(subject.network, layer, lambda h: torch.where(units, source[layer], h)):
            out = answers(subject.network, subject, four[0])
        return float((out - target[side]).double().square().sum(1).mean() / variance)

    for layer in subject.layers[:-1]:
        found, live = {}, torch.nonzero(subject.anova[layer].total > 0).flatten()
        for side, units in subject.sides(layer).items():
            if not units.any() or variance == 0:
                found[side] = (float("nan"),) * 3
                continue
            own = error(layer, units, side)
            orders = [torch.randperm(len(live), generator=generator) for _ in range(RANDOM_SETS)]
            sets = [live[order[: units.sum()]] for order in orders]
            random = [
                error(layer, torch.zeros_like(units).index_fill(0, s, True), side) for s in sets
            ]
            random = torch.tensor(random).double()
            found[side] = own, float(random.mean()), float((random < own).double().mean())
        found["both"] = tuple((p + q) / 2 for p, q in zip(found["left"], found["right"]))
        for side, values in found.items():
            note = "" if values[0] == values[0] else CONSTANT if variance == 0 else NO_UNIT
            names = ("interchange_error", "interchange_error_random", "interchange_percentile")
            table += [
                {"layer": layer, "side": side, "measure": name, "value": value, "note": note}
                for name, value in zip(names, values)
            ]
    return table
