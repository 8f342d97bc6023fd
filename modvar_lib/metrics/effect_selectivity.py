"""Does each unit that the output uses serve one digit? Side selectivity, weighted by effect on the
output.

- `effect_selectivity` = Σ w |V_L - V_R| / V, divided by Σ w, over units; w = E|∂output/∂h|² V, its
  squared effect (to first order, summed over outputs; h after the nonlinearity). 1: all that count
  serve one side alone, as in `towers`. 0: all serve both alike, as in `summed`. Scaling a ReLU
  unit, undone in the next layer, changes nothing.
- `effect_selectivity_rotated`, the network's own chance: each unit is scaled by
  sqrt(E|∂output/∂h|²), then the layer turned by a random rotation (Haar); mean of the same over 10
  rotations. Units with w = 0 take no part; where more than 128 are left, the first 128 units of
  each rotation stand for all.

Every layer but the readout, over the first 1,000 draws. What is rotated are second moments, U x U,
of the gradients and of the differences that give T_L, T_R and V_I (see `subject`). NaN, with the
reason, where nothing varies or the output does not depend on the layer. Sources: `subject`;
gradient times deviation as a unit's effect: Molchanov et al., ICLR 2017, arXiv:1611.06440.
"""

import torch
from torch import Tensor

from modvar_lib.metrics.subject import NO_EFFECT, NOTHING_VARIES, Property, Subject, haar, tidy

ROTATIONS, NEW_UNITS = 10, 128
PROPERTIES = {
    "effect_selectivity": Property(0, 1, ("permutation", "rescaling", "swap"), 1),
    "effect_selectivity_rotated": Property(0, 1, ("rescaling", "swap")),
}


def rows(subject: Subject) -> list[dict]:
    """A row of both measures for every layer but the readout."""
    table = []
    for layer, gradients in subject.gradients.items():
        four, effect = subject.first[layer], gradients.diagonal()
        parts = subject.first_anova[layer]
        live = effect * parts.total > 0
        value = weighted(effect, parts.left, parts.right, parts.interaction)
        chance = rotated(four[..., live].double(), gradients[live][:, live], subject.generator())
        table += tidy(
            layer,
            dict(zip(PROPERTIES, (value, chance))),
            NO_EFFECT if parts.total.any() else NOTHING_VARIES,
        )
    return table


def weighted(effect: Tensor, left: Tensor, right: Tensor, interaction: Tensor) -> float:
    """Σ E |V_L - V_R| / Σ E V over units, with E = E|∂output/∂h|²; all [U], 0 or more. NaN where Σ
    E V is 0."""
    return float(
        (effect * (left - right).abs()).sum() / (effect * (left + right + interaction)).sum()
    )


def rotated(four: Tensor, gradients: Tensor, generator: torch.Generator) -> float:
    """Mean over rotations of what `weighted` is after them, from activations [4, n, U] and gradient
    moments [U, U] of the units that have an effect; NaN where there are none."""
    size, values = gradients.diagonal().sqrt(), []
    if not len(size):
        return float("nan")
    a, b, c, d = four * size
    sums = [x.T @ x / by for x, by in ((a - b, 2), (a - c, 2), (a - b - c + d, 4))]
    sums.append(gradients / size / size[:, None])
    for _ in range(ROTATIONS):
        turn = haar(
            torch.randn(
                len(size), min(len(size), NEW_UNITS), generator=generator, dtype=torch.float64
            )
        )
        t_left, t_right, interaction, effect = (
            (turn * (moments @ turn)).sum(0) for moments in sums
        )
        left, right = ((t - interaction).clamp(min=0) for t in (t_left, t_right))
        values.append(weighted(effect, left, right, interaction))
    return sum(values) / ROTATIONS
