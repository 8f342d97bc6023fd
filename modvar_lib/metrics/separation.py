"""How far could the digits be kept apart, in any basis? Separation, and how much of it units show.

Each unit is scaled by sqrt(E|∂output/∂h|²), its effect on the output. Then Σ_L, Σ_R and Σ_I, [U,
U], are the covariances of f(L), g(R) and i(L, R) (see `subject`), and λ the eigenvalues of Σ_L -
Σ_R:

- `separation` B = Σ|λ| / tr(Σ_L + Σ_R + Σ_I), 0 to 1: the largest Σ|V_L - V_R| / ΣV that any
  rotation of the layer can reach. 1 in `towers`. 0 in `summed`. No chance is subtracted.
- `separation_two_sided` = 2 min(Σλ₊, Σ|λ₋|) / tr(Σ_L + Σ_R + Σ_I), 0 to 1: twice what the weaker
  side has to itself. Far below B where one side has most of the layer.
- `alignment` = Σ|diagonal of Σ_L - Σ_R| / Σ|λ|, 0 to 1: how much of B single units show. 1 in
  `towers`.

Untrained `mlp`: B is 0.4 to 0.6. Random subspaces of the same spectra reach 0.9 in a wide layer,
where B says little. Every layer but the readout, over the first draws. NaN, with the reason, where
nothing varies, the output does not depend on the layer, or the layer ignores a side; alignment,
also where B is 0. Ancestor: demixed PCA, Kobak et al., eLife 5 (2016), doi:10.7554/eLife.10989.
"""

from math import nan

import torch

from modvar_lib.metrics.subject import Property, Subject, second_moments, tidy

PROPERTIES = dict.fromkeys(
    ("separation", "separation_two_sided", "alignment"),
    Property(0, 1, ("permutation", "rescaling", "swap"), 1),
)


def rows(subject: Subject) -> list[dict]:
    table = []
    for layer, gradients in subject.gradients.items():
        if why := subject.undefined(layer):
            table += tidy(layer, dict.fromkeys(PROPERTIES, nan), why)
            continue
        scaled = subject.first[layer].double() * gradients.diagonal().sqrt()
        t_left, t_right, interaction = second_moments(scaled)
        total, apart = float((t_left + t_right - interaction).trace()), t_left - t_right
        eigenvalues = torch.linalg.eigvalsh(apart)
        left, right = (float(part.clamp(min=0).sum()) for part in (eigenvalues, -eigenvalues))
        shown, size = float(apart.diagonal().abs().sum()), left + right
        alignment = shown / size if size > 1e-9 * total else nan
        values = size / total, 2 * min(left, right) / total, alignment
        values = [min(value, 1.0) for value in values]  # above 1 by the noise of Σ_I
        table += tidy(layer, dict(zip(PROPERTIES, values)), "the sides are all alike")
    return table
