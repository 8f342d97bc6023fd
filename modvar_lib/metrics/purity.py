"""Do units serve one digit alone? What the weaker side has to itself, of what the balance allows.

With V_L, V_R and V_I of each unit (see `subject`), V their sum, and w = E|∂output/∂h|² its weight:

- `purity` = 2 min(Σ w (V_L - V_R)₊, Σ w (V_R - V_L)₊) / Σ w V, divided by 1 - |balance|. 0 to 1.
  1 in `towers`, whatever the balance of its sides. 0 in `summed`. Untrained `mlp`: 0.1 to 0.15.
- `effect_balance` = Σ w (V_L - V_R) / Σ w V, -1 (right only) to 1 (left only).

It asks about the layer, not about what follows: a layer that copies both pictures, before a table
that needs both at once, has a purity of 1. Where the balance is near 1 or -1, the weaker side is
small: read the two together. Nothing is subtracted: the value at chance is that of a rotated copy
of the network. Scaling a ReLU unit, undone in the next layer, changes nothing. Every layer but the
readout, over the first draws. NaN, with the reason, where nothing varies, the output does not
depend on the layer, or the layer ignores a side. Source: this project's; the parts of variance are
those of `subject`."""

from math import nan

from modvar_lib.metrics.subject import Property, Subject, tidy

PROPERTIES = {
    "purity": Property(0, 1, ("permutation", "rescaling", "swap"), 1),
    "effect_balance": Property(-1, 1, ("permutation", "rescaling")),
}


def rows(subject: Subject) -> list[dict]:
    table = []
    for layer, gradients in subject.gradients.items():
        parts, weight = subject.first_anova[layer], gradients.diagonal()
        total, lead = (weight * parts.total).sum(), weight * (parts.left - parts.right)
        left, right = (float(side.clamp(min=0).sum() / total) for side in (lead, -lead))
        purity, why = nan, subject.undefined(layer)
        if not why:
            purity = 2 * min(left, right) / (1 - abs(left - right))
        values = {"purity": purity, "effect_balance": nan if why else left - right}
        table += tidy(layer, values, why)
    return table
