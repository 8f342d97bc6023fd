"""Side selectivity and interaction of what a unit knows about the digits as classes, not about
handwriting.

For every pair of classes (x, y), 100 held-out pairs; the means over them are a 10 x 10 table per
unit, split exactly by the two-way ANOVA into row, column and interaction, minus what the scatter
within cells adds to each; clipped at 0.

- `digit_selectivity` = Σ|V_x - V_y| / ΣV, `digit_interaction` = ΣV_xy / ΣV, 0 to 1: as in
  `selectivity`.
- `digit_share`: variance of the cell means over all variance, 0 to 1. With little, the other two
  are noise.

NaN, with the reason, where the cell means do not vary. Source: Montgomery, Design and Analysis of
Experiments, chapter 5 (two-way ANOVA with replication).
"""

import torch
from torch import Tensor

from modvar_lib.metrics.subject import NOTHING_VARIES, Anova, Property, Subject, tidy

EACH = 100  # pairs per cell
PROPERTIES = {
    "digit_selectivity": Property(0, 1, ("permutation",), 1),
    "digit_interaction": Property(0, 1, ("permutation",), -1),
    "digit_share": Property(0, 1, ("permutation", "rotation")),
}


def rows(subject: Subject) -> list[dict]:
    """A row of each measure for every layer."""
    generator, table = subject.generator(), []
    of_class = [torch.nonzero(subject.digits.labels == digit).flatten() for digit in range(10)]

    def examples() -> Tensor:  # [class, class of the other digit, n] rows
        return torch.stack(
            [c[torch.randint(len(c), (10, EACH), generator=generator)] for c in of_class]
        )

    left, right = examples(), examples().transpose(0, 1)
    seen = [
        subject.activations(pairs) for pairs in torch.stack([left, right], -1)
    ]  # a class of the left digit at a time
    for layer in subject.layers:
        cells = torch.stack([h[layer] for h in seen]).double()  # [10, 10, n, U]
        within = cells.var(2).mean((0, 1))
        parts = grid_anova(cells.mean(2), within / EACH)
        total = parts.total.sum()
        shares = float(parts.interaction.sum() / total), float(total / (total + within.sum()))
        table += tidy(layer, dict(zip(PROPERTIES, (parts.selectivity, *shares))), NOTHING_VARIES)
    return table


def grid_anova(means: Tensor, noise: Tensor | float = 0.0) -> Anova:
    """Of [10, 10, U] cell means, float64; noise: [U], the variance of each mean by sampling.

    >>> x, y = torch.arange(10.0).double()[:, None], torch.arange(10.0).double()[None, :]
    >>> parts = grid_anova((2 * x + y + 0 * x * y).unsqueeze(-1))
    >>> parts.left.item(), parts.right.item(), parts.interaction.abs().item() < 1e-9
    (33.0, 8.25, True)
    """
    mean = means.mean((0, 1))
    row, column = means.mean(1) - mean, means.mean(0) - mean
    rest = means - mean - row[:, None] - column[None]
    parts = ((row, 9 / 100), (column, 9 / 100), (rest.flatten(0, 1), 81 / 100))
    clipped = (((part**2).mean(0) - share * noise).clamp(min=0) for part, share in parts)
    return Anova(*clipped, mean, (means**2).mean((0, 1)))
