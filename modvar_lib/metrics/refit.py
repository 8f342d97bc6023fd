"""Does it pay? Refit the readout alone, from the 2-node bottleneck, to goals a·x + b·y that the
network did not have.

- `refit_r2`: held-out R² of the best linear readout, mean over 16 draws of (a, b) as in `varying`,
  always the same.
- `refit_r2_difference`: the same for x - y, which a network that kept only x + y cannot give.
- `refit_steps`: steps of Adam (rate 0.01, all pairs at once, from the trained readout, of several
  outputs from the first; at most 5,000) until the squared error is within 5 % of the goal's
  variance of the best; median over the draws.

R² is 1 at best and, but for sampling, 0 at least. Layer `bottleneck` only. NaN, with the reason,
where the bottleneck is constant. Source: Kashtan and Alon, PNAS 102 (2005),
doi:10.1073/pnas.0503610102 (modular goals adapt faster).
"""

import torch
from torch import Tensor

from modvar_lib import goals
from modvar_lib.data import RESERVED
from modvar_lib.metrics.subject import INF, NOTHING_VARIES, Property, Subject, tidy

GOALS, STEPS, RATE = 16, 5000, 0.01
PROPERTIES = {
    **dict.fromkeys(
        ("refit_r2", "refit_r2_difference"),
        Property(-INF, 1, ("permutation", "rescaling", "rotation")),
    ),
    "refit_steps": Property(0, STEPS, ("permutation", "rescaling")),
}


def rows(subject: Subject) -> list[dict]:
    """A row of each measure, of the bottleneck."""
    fresh = [goals.drawn(0, RESERVED + i, goals.Schedule()) for i in range(GOALS)]
    weights, half = torch.tensor([*fresh, (1, -1)]).double().T, len(subject.digits) // 2  # [2, G]

    def problem(pairs: Tensor) -> tuple[Tensor, Tensor]:  # features [n, 3] and goals [n, G]
        h = subject.activations(pairs)["bottleneck"].double()
        return torch.cat([h, torch.ones(len(h), 1)], 1), subject.digits.labels[
            pairs
        ].double() @ weights

    x, y = problem(subject.draws[:, :2] % half)
    z, hidden = problem(half + subject.draws[:, 2:] % half)
    values = (float("nan"),) * 3
    if (x[:, :2].std(0) > 0).any():
        best = torch.linalg.lstsq(x, y, driver="gelsd").solution
        r2 = 1 - (z @ best - hidden).square().mean(0) / hidden.var(0, correction=0)
        values = float(r2[:-1].mean()), float(r2[-1]), steps(subject.network.readout, x, y, best)
    return tidy("bottleneck", dict(zip(PROPERTIES, values)), NOTHING_VARIES)


def steps(readout: torch.nn.Module, x: Tensor, y: Tensor, best: Tensor) -> float:
    """Median over goals of the steps that Adam takes. The squared error is a quadratic form: pairs
    are summed once."""
    gram, cross, power = x.T @ x / len(x), x.T @ y / len(x), y.square().mean(0)

    def error(w: Tensor) -> Tensor:
        return (w * (gram @ w)).sum(0) - 2 * (w * cross).sum(0) + power

    good, start = error(best) + 0.05 * y.var(0, correction=0), torch.zeros(3, 1).double()
    if isinstance(readout, torch.nn.Linear):
        start = torch.cat([readout.weight[:1].T, readout.bias[:1, None]]).double()
    w = start.detach().expand(3, y.shape[1]).clone().requires_grad_()
    adam, taken = torch.optim.Adam([w], lr=RATE), torch.full((y.shape[1],), float(STEPS))
    for step in range(STEPS):
        taken = torch.where(error(w.detach()) <= good, taken.clamp(max=step), taken)
        if (taken < STEPS).all():
            break
        w.grad = 2 * (gram @ w.detach() - cross)
        adam.step()
    return float(taken[:-1].median())
