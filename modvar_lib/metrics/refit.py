"""Does it pay? Refit the readout alone, from the 2-node bottleneck, to goals a·x + b·y that the network was not trained on.

- `refit_r2`: held-out R² of the best linear readout, mean over 16 draws of (a, b) as in `varying`, the same for every network.
- `refit_r2_difference`: the same for x - y, which a network that kept only x + y cannot give.
- `refit_steps`: steps of Adam (rate 0.01, all pairs at once, from the trained readout) until the squared error is within 5 % of
  the goal's variance of the best; median over the draws. A draw that is not there after 5,000 steps counts as 5,000.

R² is 1 at best and, but for sampling, 0 at least. Layer `bottleneck` only; for goals of one output.
NaN, with the reason, where the bottleneck is constant.
Source: Kashtan and Alon, PNAS 102 (2005), doi:10.1073/pnas.0503610102 (modular goals adapt faster); the measure is ours.
"""

import torch

from modvar_lib import goals
from modvar_lib.metrics.selectivity import NOTHING_VARIES
from modvar_lib.metrics.subject import Subject

GOALS = 16
STEPS = 5000
RATE = 0.01
NAMES = ("refit_r2", "refit_r2_difference", "refit_steps")


def rows(subject: Subject) -> list[dict]:
    fresh = [goals.drawn(0, 2**31 + i, goals.Schedule()) for i in range(GOALS)]
    weights = torch.tensor([*fresh, (1, -1)]).double().T  # [2, G]
    half = len(subject.digits) // 2
    fit, test = subject.draws[:, :2] % half, half + subject.draws[:, 2:] % half

    def features(pairs):
        h = subject.activations(pairs)["bottleneck"].double()
        return torch.cat([h, torch.ones(len(h), 1)], 1), subject.digits.labels[
            pairs
        ].double() @ weights

    (x, y), (z, wanted) = features(fit), features(test)
    values, note = (float("nan"),) * 3, NOTHING_VARIES
    if (x[:, :2].std(0) > 0).any():
        best = torch.linalg.lstsq(x, y, driver="gelsd").solution
        r2 = 1 - (z @ best - wanted).square().mean(0) / wanted.var(0, correction=0)
        values = float(r2[:-1].mean()), float(r2[-1]), steps(subject, x, y, best)
        note = ""
    return [
        {"layer": "bottleneck", "side": "both", "measure": name, "value": value, "note": note}
        for name, value in zip(NAMES, values)
    ]


def steps(subject: Subject, x: torch.Tensor, y: torch.Tensor, best: torch.Tensor) -> float:
    """Median over goals of the steps that Adam takes. The squared error is a quadratic form: pairs are summed up once."""
    gram, cross, power = x.T @ x / len(x), x.T @ y / len(x), y.square().mean(0)

    def error(w):
        return (w * (gram @ w)).sum(0) - 2 * (w * cross).sum(0) + power

    good = error(best) + 0.05 * y.var(0, correction=0)
    readout = subject.network.readout
    if isinstance(readout, torch.nn.Linear):
        start = torch.cat([readout.weight[:1].T, readout.bias[:1, None]]).double()
    else:
        start = torch.zeros(3, 1).double()
    w = start.detach().expand(3, y.shape[1]).clone().requires_grad_()
    adam, taken = torch.optim.Adam([w], lr=RATE), torch.full((y.shape[1],), float(STEPS))
    for step in range(STEPS):
        taken = torch.where(error(w.detach()) <= good, taken.clamp(max=step), taken)
        if (taken < STEPS).all():
            break
        w.grad = 2 * (gram @ w.detach() - cross)
        adam.step()
    return float(taken[:-1].median())
