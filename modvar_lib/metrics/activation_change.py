"""The original score: how much a layer's activations change when one of the two digits is
exchanged.

For a pair with activations v, and the same pair with one half drawn anew with activations w, both
vectors of U units,

    score = |v - w| / sqrt(|v| |w|)        (Euclidean norms), averaged over held-out pairs.

Range: 0 (the half does not matter) upwards; sqrt(2) for orthogonal vectors of equal norm. No value
at chance: it falls as a constant offset grows, and does not change when the layer is rotated. Pairs
with |v| or |w| of 0, as where all ReLUs are silent, are left out, and their share is `zero_norm`;
NaN, with the reason, when all are. Sides: `left` exchanges the left digit, `right` the right one.
Layers: each, and `pooled`, all but the readout as one vector. `_pre`: before the nonlinearity.

What it is made of, by the functional ANOVA (see `subject`; V_L, V_R, V_I summed over units):
- `offset_share` rho = |mean vector|² / E|h|², 0 to 1: the share of the activations' energy that is
  a constant.
- `exchanged_share`, 0 to 1: variance that the exchanged half bears on, (V_R + V_I) / V for `right`.
- `activation_change_centred` = sqrt(2 · exchanged_share), 0 to sqrt(2): the score of activations
  without their mean.
- `activation_change_expected` = sqrt(2 · exchanged_share · (1 - rho)): the score, but for the
  spread of the norms.

Source: Olli Järviniemi's comment on "Ten experiments in modularity, which we'd like you to run!"
(McDougall, Bushnaq and Avery, LessWrong, 2022).
"""

from math import inf, nan

import torch
from torch import Tensor

from modvar_lib.metrics.subject import CHUNK, NOTHING_VARIES, Anova, Property, Subject, sided, tidy

NAMES = {
    "post": ("activation_change", "zero_norm"),
    "pre": ("activation_change_pre", "zero_norm_pre"),
}
EXCHANGED = {"left": [2, 1], "right": [0, 3]}  # columns of a draw (left, right, another of each)
OFFSET = "offset_share"
SIDED = ("exchanged_share", "activation_change_centred", "activation_change_expected")
PARTS = (OFFSET, *SIDED)
SILENT = "the layer is silent on every pair"
PROPERTIES = {
    "activation_change": Property(0, inf, ("permutation", "rotation")),
    "activation_change_pre": Property(0, inf, ("permutation",)),
    "zero_norm": Property(0, 1, ("permutation", "rescaling", "rotation")),
    "zero_norm_pre": Property(0, 1, ("permutation", "rescaling")),
    **dict.fromkeys(PARTS[:2], Property(0, 1, ("permutation", "rotation", "swap"))),
    **dict.fromkeys(PARTS[2:], Property(0, 2**0.5, ("permutation", "rotation", "swap"))),
}


def score(v: Tensor, w: Tensor) -> Tensor:
    """|v - w| / sqrt(|v| |w|), NaN where |v| or |w| is 0: [..., U] and [..., U] -> [...], float64.

    >>> score(torch.tensor([[3.0, 4], [0, 0]]), torch.tensor([[4.0, 3], [1, 0]])).tolist()
    [0.282842712474619, nan]
    """
    v, w = v.double(), w.double()
    norms = v.norm(dim=-1) * w.norm(dim=-1)
    return torch.where(norms > 0, (v - w).norm(dim=-1) / norms.sqrt(), torch.nan)


def rows(subject: Subject) -> list[dict]:
    """The score, the share of pairs without one, and the score's parts."""
    chunks, table = [_scores(subject, draws) for draws in subject.draws.split(CHUNK)], []
    for when, layer in chunks[0]["left"]:
        scores = [torch.cat([chunk[side][when, layer] for chunk in chunks]) for side in EXCHANGED]
        means = [float(side.nanmean()) for side in scores]
        undefined = [float(side.isnan().double().mean()) for side in scores]
        table += sided(layer, dict(zip(NAMES[when], (means, undefined))), SILENT)
    return table + score_parts(subject.anova)


def score_parts(anovas: dict[str, Anova], suffix: str = "") -> list[dict]:
    """Rows of what the score is made of, of every layer and of `pooled`, the layers but the
    last."""
    table, layers = [], list(anovas)
    for name, group in [*((layer, [layer]) for layer in layers), ("pooled", layers[:-1])]:
        parts = [anovas[layer] for layer in group]
        units = ((a.total, a.energy, a.left, a.right, a.interaction, a.mean**2) for a in parts)
        sums = (sum(float(values.sum()) for values in of) for of in zip(*units))
        total, energy, *served, interaction, offset = sums
        offset = min(offset / energy, 1.0) if energy else nan  # above 1 by rounding
        shares = [(one + interaction) / total if total else nan for one in served]
        centred = [(2 * share) ** 0.5 for share in shares]
        expected = [value * (1 - offset) ** 0.5 for value in centred]
        values = {f"{part}{suffix}": v for part, v in zip(SIDED, (shares, centred, expected))}
        table += tidy(name, {f"{OFFSET}{suffix}": offset}, NOTHING_VARIES)
        table += sided(name, values, NOTHING_VARIES)
    return table


def _scores(subject: Subject, draws: Tensor) -> dict[str, dict[tuple[str, str], Tensor]]:
    """{side: {("pre" | "post", layer): [N]}}, `pooled` among the layers."""

    def taps(columns: list[int]) -> dict[tuple[str, str], Tensor]:
        seen = subject.taps(draws[:, columns])
        for layers in seen.values():
            layers["pooled"] = torch.cat(list(layers.values())[:-1], 1)
        return {(when, layer): h for when, layers in seen.items() for layer, h in layers.items()}

    before = taps([0, 1])
    after = {side: taps(columns) for side, columns in EXCHANGED.items()}
    return {side: {tap: score(before[tap], w[tap]) for tap in before} for side, w in after.items()}
