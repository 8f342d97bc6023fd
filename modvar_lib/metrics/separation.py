"""How far could the digits be kept apart, in any basis? Separation, and how much of it units show.

Each unit is scaled by sqrt(E|∂output/∂h|²), its effect on the output. Then Σ_L, Σ_R and Σ_I, [U,
U], are the covariances of f(L), g(R) and i(L, R) (see `subject`), and λ the eigenvalues of Σ_L -
Σ_R:

- `separation` B = Σ|λ| / tr(Σ_L + Σ_R + Σ_I), 0 to 1: the largest Σ|V_L - V_R| / ΣV that any
  rotation of the layer can reach. 1 in `towers`. 0 in `summed`. It has no constant and subtracts no
  chance.
- `separation_two_sided` = 2 min(Σλ₊, Σ|λ₋|) / tr(Σ_L + Σ_R + Σ_I), 0 to 1: twice what the weaker
  side has to itself. Far below B where one side has most of the layer.
- `alignment` = Σ|diagonal of Σ_L - Σ_R| / Σ|λ|, 0 to 1: how much of B single units show. 1 in
  `towers`.

Untrained `mlp`: B is 0.4 to 0.6. Random subspaces of the same spectra reach 0.9 in a wide layer,
where B says little. Every layer but the readout, over the first 1,000 draws. NaN, with the reason,
where nothing varies, the output does not depend on the layer, or the layer ignores a side;
alignment, also where B is 0. Ancestor: demixed PCA, Kobak et al., eLife 5 (2016),
doi:10.7554/eLife.10989.
"""

import torch

from modvar_lib.metrics.subject import Property, Subject, tidy

PROPERTIES = {
    "separation": Property(0, 1, ("permutation", "rescaling", "swap"), 1),
    "separation_two_sided": Property(0, 1, ("permutation", "rescaling", "swap"), 1),
    "alignment": Property(0, 1, ("permutation", "rescaling", "swap"), 1),
}


def rows(subject: Subject) -> list[dict]:
    """A row of each measure for every layer but the readout."""
    table = []
    for layer, gradients in subject.gradients.items():
        a, b, c, d = subject.first[layer].double() * gradients.diagonal().sqrt()
        t_left, t_right = (x.T @ x / (2 * len(x)) for x in (a - b, a - c))
        total = float((t_left + t_right).trace() - (a - b - c + d).square().sum() / (4 * len(a)))
        apart = t_left - t_right
        eigenvalues = torch.linalg.eigvalsh(apart)
        left, right = (float(part.clamp(min=0).sum()) for part in (eigenvalues, -eigenvalues))
        undefined, values = subject.undefined(layer), [float("nan")] * 3
        if not undefined:
            shown = float(apart.diagonal().abs().sum())
            values = [
                min((left + right) / total, 1.0),  # above 1 by the noise of Σ_I
                min(2 * min(left, right) / total, 1.0),
                min(shown / (left + right), 1.0) if left + right > 1e-9 * total else float("nan"),
            ]
        table += tidy(layer, dict(zip(PROPERTIES, values)), undefined or "the sides are all alike")
    return table
