"""The original score: how much a layer's activations change when one of the two digits is exchanged.

For a pair with activations v, and the same pair with one half drawn anew with activations w, both vectors of U units,

    score = |v - w| / sqrt(|v| |w|)        (Euclidean norms), averaged over held-out pairs.

Range: 0 (the half does not matter) upwards; sqrt(2) for orthogonal vectors of equal norm. Chance: none; it falls as a constant
offset of the activations grows, and does not change when the layer is rotated, so it holds no notion of a module.
Undefined when |v| or |w| is 0, as in a layer whose ReLUs are all silent: such pairs are left out of the mean, and the share of
them is the measure `zero_norm`, beside every score. The score is NaN when every pair is undefined.
Sides: `left` exchanges the left digit, `right` the right one; `both` is the mean of the two.
Layers: each named layer, and `pooled`, all hidden layers concatenated (all but the readout).
`activation_change` takes activations after the nonlinearity, `activation_change_pre` those before it
(the same for a layer without one, such as the bottleneck of `mlp` and `cnn`).

Source: Olli Järviniemi's comment on "Ten experiments in modularity, which we'd like you to run!" (McDougall, Bushnaq and
Avery, LessWrong, 2022).
"""

import torch
from torch import Tensor, nn

from modvar_lib.data import halves
from modvar_lib.models import activations

MEASURES = {"post": "activation_change", "pre": "activation_change_pre"}
ZERO_NORM = {"post": "zero_norm", "pre": "zero_norm_pre"}
SIDES = {
    "left": [2, 1],
    "right": [0, 3],
}  # columns of a draw (left, right, another left, another right)


def score(v: Tensor, w: Tensor) -> Tensor:
    """|v - w| / sqrt(|v| |w|) over the last dimension, NaN where |v| or |w| is 0. [..., U] and [..., U] -> [...], float64.

    >>> score(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[4.0, 3.0], [1.0, 0.0]])).round(decimals=4).tolist()
    [0.2828, nan]
    """
    v, w = v.double(), w.double()
    norms = v.norm(dim=-1) * w.norm(dim=-1)
    return torch.where(norms > 0, (v - w).norm(dim=-1) / norms.sqrt(), torch.nan)


def rows(network: nn.Module, images: Tensor, draws: Tensor, chunk: int = 1000) -> list[dict]:
    """Rows (layer, side, measure, value) of one network; `draws` as in `modvar_lib.metrics`."""
    parts = [_scores(network, images, part) for part in draws.split(chunk)]
    table = []
    for layer, when in parts[0]["left"]:
        means, shares = {}, {}
        for side in SIDES:
            values = torch.cat([part[side][layer, when] for part in parts])
            means[side], shares[side] = (
                float(values.nanmean()),
                float(values.isnan().double().mean()),
            )
        for measure, found in ((MEASURES[when], means), (ZERO_NORM[when], shares)):
            found["both"] = (found["left"] + found["right"]) / 2
            table += [
                {"layer": layer, "side": side, "measure": measure, "value": value}
                for side, value in found.items()
            ]
    return table


def _scores(
    network: nn.Module, images: Tensor, draws: Tensor
) -> dict[str, dict[tuple[str, str], Tensor]]:
    """{side: {(layer, "pre" | "post"): [N]}}, `pooled` among the layers."""

    def taps(columns: list[int]) -> dict[tuple[str, str], Tensor]:
        _, seen = activations(network, halves(images, draws[:, columns]))
        pooled = {
            ("pooled", when): torch.cat(
                [value for (layer, w), value in seen.items() if w == when and layer != "readout"], 1
            )
            for when in MEASURES
        }
        return seen | pooled

    before = taps([0, 1])
    after = {side: taps(columns) for side, columns in SIDES.items()}
    return {side: {tap: score(before[tap], w[tap]) for tap in before} for side, w in after.items()}
