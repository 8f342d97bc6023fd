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

What it is made of, by the functional ANOVA (see `subject`; V_L, V_R, V_I summed over units):
- `offset_share` rho = |mean vector|² / E|h|², 0 to 1: the share of the activations' energy that is a constant.
- `exchanged_share`, side `right`: (V_R + V_I) / V, `left`: (V_L + V_I) / V, 0 to 1: variance that the exchanged half bears on.
- `activation_change_centred` = sqrt(2 · exchanged_share): the score of activations without their mean, 0 to sqrt(2).
- `activation_change_expected` = sqrt(2 · exchanged_share · (1 - rho)): the score itself, but for the spread of the norms.

Source: Olli Järviniemi's comment on "Ten experiments in modularity, which we'd like you to run!" (McDougall, Bushnaq and
Avery, LessWrong, 2022).
"""

import torch
from torch import Tensor

from modvar_lib.data import halves
from modvar_lib.metrics.selectivity import NOTHING_VARIES
from modvar_lib.metrics.subject import CHUNK, Subject
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


def rows(subject: Subject) -> list[dict]:
    """Rows (layer, side, measure, value, note) of one network."""
    parts = [_scores(subject, part) for part in subject.draws.split(CHUNK)]
    table = []
    for layer, when in parts[0]["left"]:
        means, shares = {}, {}
        for side in SIDES:
            values = torch.cat([part[side][layer, when] for part in parts])
            means[side], shares[side] = (
                float(values.nanmean()),
                float(values.isnan().double().mean()),
            )
        silent = "the layer is silent on every pair" if max(shares.values()) == 1 else ""
        table += _sides(layer, MEASURES[when], means, silent)
        table += _sides(layer, ZERO_NORM[when], shares)
    return table + _why(subject)


def _sides(layer: str, measure: str, values: dict[str, float], note: str = "") -> list[dict]:
    values = {**values, "both": (values["left"] + values["right"]) / 2}
    return [
        {"layer": layer, "side": side, "measure": measure, "value": value, "note": note}
        for side, value in values.items()
    ]


def _why(subject: Subject) -> list[dict]:
    """The parts that the score is made of, of every layer and pooled."""
    table, hidden = [], subject.layers[:-1]
    for name, group in {**{layer: [layer] for layer in subject.layers}, "pooled": hidden}.items():
        parts = [subject.anova[layer] for layer in group]

        def summed(what):
            return sum(float(getattr(part, what).sum()) for part in parts)  # noqa: B023

        total, energy = summed("total"), summed("energy")
        offset = sum(float((part.mean**2).sum()) for part in parts)
        offset = min(offset / energy, 1.0) if energy else float("nan")  # above 1 by rounding
        note = "" if total else NOTHING_VARIES
        share = {
            side: (summed(side) + summed("interaction")) / total if total else float("nan")
            for side in SIDES
        }
        centred = {side: (2 * value) ** 0.5 for side, value in share.items()}
        expected = {side: value * (1 - offset) ** 0.5 for side, value in centred.items()}
        table.append(
            {
                "layer": name,
                "side": "both",
                "measure": "offset_share",
                "value": offset,
                "note": "" if energy else NOTHING_VARIES,
            }
        )
        table += _sides(name, "exchanged_share", share, note)
        table += _sides(name, "activation_change_centred", centred, note)
        table += _sides(name, "activation_change_expected", expected, note)
    return table


def _scores(subject: Subject, draws: Tensor) -> dict[str, dict[tuple[str, str], Tensor]]:
    """{side: {(layer, "pre" | "post"): [N]}}, `pooled` among the layers."""

    def taps(columns: list[int]) -> dict[tuple[str, str], Tensor]:
        pairs = halves(subject.digits.images, draws[:, columns])
        _, seen = activations(subject.network, pairs)
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
