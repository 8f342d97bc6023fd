"""Does each unit that the output uses serve one digit? Side selectivity, weighted by effect on the
output.

- `effect_selectivity` = Σ w |V_L - V_R| / V, divided by Σ w, over units; w = E|∂output/∂h|² V, its
  squared effect (to first order, summed over outputs; h after the nonlinearity). 1: all that count
  serve one side alone, as in `towers`. 0: all serve both alike, as in `summed`. Scaling a ReLU
  unit, undone in the next layer, changes nothing.
- `effect_selectivity_rotated`, the network's own chance: units are scaled by sqrt(E|∂output/∂h|²),
  then rotated at random (Haar); mean over 10 rotations. Units with w = 0 take no part; of more than
  128 the first 128 of each rotation stand for all.

Every layer but the readout, over the first draws. NaN, with the reason, where nothing varies or the
output does not depend on the layer. Sources: `subject`; gradient times deviation as a unit's
effect: Molchanov et al., ICLR 2017, arXiv:1611.06440.
"""

from math import nan

import torch
from torch import Tensor

from modvar_lib.metrics.perturbations import haar
from modvar_lib.metrics.subject import (
    NO_EFFECT,
    NOTHING_VARIES,
    Property,
    Subject,
    second_moments,
    tidy,
)

ROTATIONS, NEW_UNITS = 10, 128
PROPERTIES = {
    "effect_selectivity": Property(0, 1, ("permutation", "rescaling", "swap"), 1),
    "effect_selectivity_rotated": Property(0, 1, ("rescaling", "swap")),
}


def rows(subject: Subject) -> list[dict]:
    table = []
    for layer, gradients in subject.gradients.items():
        parts, effect = subject.first_anova[layer], gradients.diagonal()
        live = effect * parts.total > 0
        four, moments = subject.first[layer][..., live].double(), gradients[live][:, live]
        value = weighted(effect, parts.left, parts.right, parts.interaction)
        values = value, rotated(four, moments, subject.generator())
        why = NO_EFFECT if parts.total.any() else NOTHING_VARIES
        table += tidy(layer, dict(zip(PROPERTIES, values)), why)
    return table


def weighted(effect: Tensor, left: Tensor, right: Tensor, interaction: Tensor) -> float:
    """Σ E |V_L - V_R| / Σ E V over units, with E = E|∂output/∂h|²; all [U], 0 or more. NaN where Σ
    E V is 0."""
    total = (effect * (left + right + interaction)).sum()
    return float((effect * (left - right).abs()).sum() / total)


def rotated(four: Tensor, gradients: Tensor, generator: torch.Generator) -> float:
    """Mean over rotations of what `weighted` is after them, from activations [4, n, U] and gradient
    moments [U, U] of the units that have an effect; NaN where there are none."""
    size, values = gradients.diagonal().sqrt(), []
    if not len(size):
        return nan
    sums = *second_moments(four * size), gradients / size / size[:, None]
    shape = len(size), min(len(size), NEW_UNITS)
    for _ in range(ROTATIONS):
        turn = haar(torch.randn(shape, generator=generator, dtype=torch.float64))
        t_left, t_right, interaction, effect = ((turn * (one @ turn)).sum(0) for one in sums)
        left, right = ((t - interaction).clamp(min=0) for t in (t_left, t_right))
        values.append(weighted(effect, left, right, interaction))
    return sum(values) / ROTATIONS
