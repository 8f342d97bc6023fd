"""Side selectivity and interaction of what a unit knows about the digits as classes, not about handwriting.

For every pair of classes (x, y), 100 held-out pairs; the means over them are a 10 x 10 table a unit, split exactly by the two-way
ANOVA into row, column and interaction. What the scatter within a cell adds to each part is subtracted, and the rest clipped at 0.

- `digit_selectivity` = Σ|V_x - V_y| / ΣV, `digit_interaction` = ΣV_xy / ΣV: as `side_selectivity` and `interaction`, 0 to 1.
- `digit_share`: variance of the cell means over all variance, 0 to 1. Untrained networks have little; with little, the other
  two are noise.

NaN, with the reason, where the cell means do not vary.
Source: Montgomery, Design and Analysis of Experiments, chapter 5 (two-way ANOVA with replication).
"""

import torch
from torch import Tensor

from modvar_lib.metrics.selectivity import NOTHING_VARIES, selectivity
from modvar_lib.metrics.subject import Anova, Subject, tidy

EACH = 100  # pairs a cell


def grid_anova(means: Tensor, noise: Tensor | float = 0.0) -> Anova:
    """Of [10, 10, U] cell means, float64; noise: [U], the variance of each mean by sampling.

    >>> x, y = torch.arange(10.0).double()[:, None], torch.arange(10.0).double()[None, :]
    >>> found = grid_anova((2 * x + y + 0 * x * y).unsqueeze(-1))
    >>> found.left.item(), found.right.item(), found.interaction.abs().item() < 1e-9
    (33.0, 8.25, True)
    """
    mean = means.mean((0, 1))
    row, column = means.mean(1) - mean, means.mean(0) - mean
    rest = means - mean - row[:, None] - column[None]
    parts = ((row, 9 / 100), (column, 9 / 100), (rest.flatten(0, 1), 81 / 100))
    left, right, interaction = ((part**2).mean(0) - share * noise for part, share in parts)
    clipped = (part.clamp(min=0) for part in (left, right, interaction))
    return Anova(*clipped, mean, (means**2).mean((0, 1)))


def rows(subject: Subject) -> list[dict]:
    table = []
    for layer, (found, within) in cells(subject).items():
        total = found.total.sum()
        values = {
            "digit_selectivity": selectivity(found),
            "digit_interaction": float(found.interaction.sum() / total),
            "digit_share": float(total / (total + within.sum())),
        }
        table += tidy(layer, values, NOTHING_VARIES)
    return table


def cells(subject: Subject) -> dict[str, tuple[Anova, Tensor]]:
    """{layer: (ANOVA of the cell means, [U] variance within cells)}."""
    generator = subject.generator()
    of_class = [torch.nonzero(subject.digits.labels == digit).flatten() for digit in range(10)]

    def some(digit):
        return of_class[digit][
            torch.randint(len(of_class[digit]), (10 * EACH,), generator=generator)
        ]

    left = torch.stack([some(digit).view(10, EACH) for digit in range(10)])  # [x, y, n]
    right = torch.stack([some(digit).view(10, EACH) for digit in range(10)]).transpose(0, 1)
    seen = [subject.activations(part) for part in torch.stack([left, right], -1).flatten(1, 2)]
    table = {}
    for layer in seen[0]:
        values = torch.stack([part[layer] for part in seen]).double().unflatten(1, (10, EACH))
        within = values.var(2).mean((0, 1))
        table[layer] = grid_anova(values.mean(2), within / EACH), within
    return table
