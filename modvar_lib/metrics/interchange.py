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

import torch
from torch import Tensor

from modvar_lib import data
from modvar_lib.metrics.subject import INF, NO_UNIT, Property, Subject, sided

DRAWS, RANDOM_SETS = 500, 10
CONSTANT = "the answer never varies"
PROPERTIES = {
    "interchange_error": Property(0, INF, ("permutation", "rescaling", "swap"), -1),
    "interchange_error_random": Property(0, INF, ()),
    "interchange_percentile": Property(0, 1, ()),
}


def rows(subject: Subject) -> list[dict]:
    """Rows of each side, of every layer but the readout."""
    (four,) = subject.quadruples(DRAWS)  # [4, n, 2]
    pictures = data.halves(subject.digits.images, four[0])
    target = {
        side: subject.activations(pairs)["readout"]
        for side, pairs in zip(("left", "right"), four[1:3])
    }
    variance = torch.cat(list(target.values())).double().var(0, correction=0).sum()
    base, source = (subject.activations(four[i]) for i in (0, 3))
    generator, table = subject.generator(), []

    def error(layer: str, units: Tensor, side: str) -> float:
        out = subject.answer(layer, torch.where(units, source[layer], base[layer]), pictures)
        return float((out - target[side]).double().square().sum(1).mean() / variance)

    for layer in subject.layers[:-1]:
        live, by_side = torch.nonzero(subject.anova[layer].total > 0).flatten(), []
        for side, units in subject.sides(layer).items():
            if not units.any() or variance == 0:
                by_side.append([float("nan")] * 3)
                continue
            orders = [torch.randperm(len(live), generator=generator) for _ in range(RANDOM_SETS)]
            sets = [
                torch.zeros_like(units).index_fill(0, live[order[: units.sum()]], True)
                for order in orders
            ]
            split = error(layer, units, side)
            at_random = torch.tensor([error(layer, chosen, side) for chosen in sets]).double()
            by_side.append(
                [split, float(at_random.mean()), float((at_random < split).double().mean())]
            )
        table += sided(
            layer, dict(zip(PROPERTIES, zip(*by_side))), CONSTANT if variance == 0 else NO_UNIT
        )
    return table
