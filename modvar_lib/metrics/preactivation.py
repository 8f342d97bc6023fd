"""Before the nonlinearity: what the original score is made of there, and which units are silent.

Of every layer and of `pooled`, all hidden layers as one vector, with h the pre-activations:

- `offset_share_pre`, `exchanged_share_pre`, `activation_change_centred_pre`,
  `activation_change_expected_pre`: the parts of the score as in `activation_change`, for
  `activation_change_pre`.
- `mean_norm_pre` = |E h|, from 0, and `norm_spread_pre`, from 0: standard deviation of |h| over its
  mean, why the score is not quite what is expected.

Of every layer that has a nonlinearity, where a unit is on for a picture if its activation is not 0:

- `dormant`, 0 to 1: share of the units that are on for less than 1 % of the pictures.
- `active_share`, 0 to 1: share of pairs of a unit and a picture in which the unit is on.
- `preactivation_mean`: mean of h over units and pictures.

`effective_dimensions` = (tr S)² / tr S², 1 to U: of the covariance S of a layer's activations after
the nonlinearity. Nothing here says anything of modules: it is what the score responds to. Over the
first draws; the last four, over the pictures (L, R) and their mirrors. NaN, with the reason, for a
layer without a nonlinearity or in which nothing varies. Sources: Sokar et al., ICML 2023,
arXiv:2302.12902 (dormant neurons); Roy and Vetterli, EUSIPCO 2007 (effective dimensions).
"""

from math import inf, nan

import torch

from modvar_lib.metrics.activation_change import PARTS, score_parts
from modvar_lib.metrics.activation_change import PROPERTIES as AFTER
from modvar_lib.metrics.subject import NOTHING_VARIES, Property, Subject, anova, tidy

RARELY = 0.01
LINEAR = "no nonlinearity in this layer"
ACTIVITY = ("dormant", "active_share", "preactivation_mean")
PROPERTIES = {
    **{f"{name}_pre": Property(0, AFTER[name].high, ("permutation", "swap")) for name in PARTS},
    **dict.fromkeys(("mean_norm_pre", "norm_spread_pre"), Property(0, inf, ("permutation",))),
    **dict.fromkeys(ACTIVITY[:2], Property(0, 1, ("permutation", "rescaling"))),
    "preactivation_mean": Property(-inf, inf, ("permutation",)),
    "effective_dimensions": Property(1, inf, ("permutation", "rotation")),
}


def rows(subject: Subject) -> list[dict]:
    before = subject.first_taps["pre"]
    table, hidden = score_parts(anova([before]), "_pre"), list(before.values())[:-1]
    for name, h in (before | {"pooled": torch.cat(hidden, -1)}).items():
        vectors = h.double().flatten(0, 1)
        norms, mean = vectors.norm(dim=1), float(vectors.mean(0).norm())
        spread = float(norms.std(correction=0) / norms.mean())
        table += tidy(name, {"mean_norm_pre": mean, "norm_spread_pre": spread}, NOTHING_VARIES)
    for layer in subject.layers:
        after, values, dimensions = subject.first[layer][0], [nan] * 3, nan
        if before[layer].data_ptr() != subject.first[layer].data_ptr():
            on = (after != 0).double()
            rare = float((on.mean(0) < RARELY).double().mean())
            values = rare, float(on.mean()), float(before[layer][0].double().mean())
        centred = after.double() - after.double().mean(0)
        spread = centred.T @ centred
        if spread.trace() > 1e-10 * after.double().square().sum():
            dimensions = float(spread.trace() ** 2 / spread.square().sum())
        table += tidy(layer, dict(zip(ACTIVITY, values)), LINEAR)
        table += tidy(layer, {"effective_dimensions": dimensions}, NOTHING_VARIES)
    return table
