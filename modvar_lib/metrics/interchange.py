"""Is the split causal? Interchange interventions on the units of one side.

Run (L, R); overwrite the left-serving units of a layer with theirs on (L', R'); a modular network
answers as on (L', R).

- `interchange_error`, side `left`: E(answer - answer on (L', R))² / Var(answer); `right` likewise
  with (L, R'); `both`: the mean. 0: the units of a side carry that digit and nothing else, as in
  `towers`. About 1: no better than not intervening, for a goal to which both digits contribute
  alike. Unbounded above.
- `interchange_error_random`: mean over 10 random sets of as many units of the layer, of those that
  vary. The value at chance.
- `interchange_percentile`: share of those sets with a smaller error, 0 to 1; 0: the split beats
  them all.

Of every layer but the readout, over the first 500 draws. NaN, with the reason, where no unit serves
a side or the answer never varies. Source: Geiger et al., Causal Abstractions of Neural Networks,
NeurIPS 2021, arXiv:2106.02997.
"""

from math import inf, nan

import torch
from torch import Tensor

from modvar_lib import data
from modvar_lib.metrics.subject import NO_UNIT, Property, Subject, quadruples, sided
from modvar_lib.models import run_from

DRAWS, RANDOM_SETS = 500, 10
CONSTANT = "the answer never varies"
PROPERTIES = {
    "interchange_error": Property(0, inf, ("permutation", "rescaling", "swap"), -1),
    "interchange_error_random": Property(0, inf, ()),
    "interchange_percentile": Property(0, 1, ()),
}


def rows(subject: Subject) -> list[dict]:
    """Rows of each side, of every layer but the readout."""
    (four,) = quadruples(subject.draws[:DRAWS])
    pictures, generator, table = (
        data.halves(subject.digits.images, four[0]),
        subject.generator(),
        [],
    )
    base, left, right, source = map(subject.activations, four)
    target = {"left": left["readout"], "right": right["readout"]}
    variance = torch.cat([*target.values()]).double().var(0, correction=0).sum()

    def error(layer: str, units: Tensor, side: str) -> float:
        changed = torch.where(units, source[layer], base[layer])
        answer = run_from(subject.network, layer, changed, pictures)
        return float((answer - target[side]).double().square().sum(1).mean() / variance)

    for layer in subject.layers[:-1]:
        live, by_side = torch.nonzero(subject.anova[layer].total > 0).flatten(), []
        for side, units in subject.sides(layer).items():
            if not units.any() or variance == 0:
                by_side.append([nan] * 3)
                continue
            orders = [torch.randperm(len(live), generator=generator) for _ in range(RANDOM_SETS)]
            chosen = [live[order[: units.sum()]] for order in orders]
            sets = [torch.zeros_like(units).index_fill(0, some, True) for some in chosen]
            split = error(layer, units, side)
            at_random = torch.tensor([error(layer, some, side) for some in sets]).double()
            lower = (at_random < split).double().mean()
            by_side.append([split, float(at_random.mean()), float(lower)])
        why = CONSTANT if variance == 0 else NO_UNIT
        table += sided(layer, dict(zip(PROPERTIES, zip(*by_side))), why)
    return table
