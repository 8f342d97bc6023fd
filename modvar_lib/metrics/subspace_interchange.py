"""Are the digits apart in directions? Interchange interventions on subspaces of a layer.

Fitted on 2,000 draws of training digits and their mirrors: with h the activations of the layer
minus their mean, S = cov h, C_L = cov of h(L, R) and h(L, R'), C_R = cov of h(L, R) and h(L', R),
both made symmetric, and K = S + ridge · tr(S) · I: the left subspace is spanned by the eigenvectors
of K^(-1/2) (C_L - C_R) K^(-1/2) with eigenvalues of 0.05 and more, the right one by those with
-0.05 and less. Then, on the first held-out draws, run (L, R), overwrite the part of h in the left
subspace (its oblique projection, K^(1/2) Q Qᵀ K^(-1/2)) with that of (L', R'), and compare the
answer with that for (L', R); likewise the right one, with (L, R'):

- `subspace_interchange` = 1 - (MSE_left + MSE_right) / 2 / ((D_L + D_R) / 4), with D_L = E(answer
  on (L, R) - answer on (L', R))², D_R likewise. 1: the subspaces carry one digit each and nothing
  else, as in `towers`. -1: no better than doing nothing, or than overwriting all, as in `summed`;
  unbounded below. Untrained networks: -0.2 to 0.3 in dense layers. Ridge 10^-3.
- `subspace_interchange_ridge_2`: the same with a ridge of 10^-2: without directions that hold less
  than about a hundredth of the variance.

Rotating a layer changes nothing, nor does any linear map of it but for the ridge. Read it beside
`separation`: it says that each digit can still be told and exchanged, not how much of the layer
goes to that. A weak direction x - y, a four-hundredth of the variance, that no later unit uses
gives 0.98 beside a strong x + y; a digit whose units are scaled down 140 times gives 0. It is a
test of the rest of the network, too. Every layer but the readout. NaN, with the reason, where
nothing varies or the layer, or the answer, ignores a side. Sources: Geiger et al., arXiv:2303.02536
(interchange in a learned basis; here nothing is learned); Kobak et al., doi:10.7554/eLife.10989.
"""

from functools import partial
from math import inf, nan

import torch
from scipy.linalg import eigh
from torch import Tensor

from modvar_lib import data
from modvar_lib.metrics.subject import Property, Subject, quadruples, tidy
from modvar_lib.models import run_from

FITTED, BAND = 2000, 0.05
RIDGES = {"subspace_interchange": 1e-3, "subspace_interchange_ridge_2": 1e-2}
PROPERTIES = dict.fromkeys(RIDGES, Property(-inf, 1, ("permutation", "rotation", "swap"), 1))


def rows(subject: Subject, widest: int | None = None) -> list[dict]:
    """Rows of every layer but the readout; of layers up to so many units."""
    pictures = data.halves(subject.digits.images, subject.first_pairs[0])
    answer, *wanted = (h.double() for h in subject.first["readout"][:3])
    moved = [float((answer - other).square().sum(1).mean()) for other in wanted]
    ignored = "" if min(moved) > 1e-6 * max(moved) else "the answer ignores a side"
    table = []
    for layer, (spread, apart) in moments(subject, widest).items():
        if why := subject.undefined(layer) or ignored:
            table += tidy(layer, dict.fromkeys(PROPERTIES, nan), why)
            continue
        (base, *_, source), values = subject.first[layer], {}
        for name, ridge in RIDGES.items():
            error = 0.0
            for change, other in zip(changes(spread, apart, source - base, ridge), wanted):
                answers = run_from(subject.network, layer, base + change, pictures)
                error += float((answers - other).square().sum(1).mean())
            values[name] = 1 - 2 * error / sum(moved)
        table += tidy(layer, values, "")
    return table


FOLLOWED = partial(rows, widest=512)  # wider layers: at the end only


def changes(spread: Tensor, apart: Tensor, change: Tensor, ridge: float) -> list[Tensor]:
    """The parts of a change of activations [N, U] that lie in the left and in the right subspace,
    from S and C_L - C_R, [U, U] float64."""
    size = spread + ridge * spread.trace() * torch.eye(len(spread), dtype=spread.dtype)
    found = eigh(apart.numpy(), size.numpy())
    values, vectors = map(torch.from_numpy, found)  # vectorsᵀ K vectors = I
    sides = (vectors[:, chosen] for chosen in (values >= BAND, values <= -BAND))
    return [((change.double() @ side) @ (side.T @ size)).float() for side in sides]


def moments(subject: Subject, widest: int | None) -> dict[str, tuple[Tensor, Tensor]]:
    """{layer: (S, C_L - C_R)}, [U, U] float64, on training digits."""
    draws = torch.from_numpy(data.evaluation_pairs(subject.seed, FITTED, len(subject.splits[0])))
    sums, count = {}, 0
    for pairs in quadruples(draws, 500):
        seen = subject.activations(pairs, subject.splits[0])
        for layer in subject.layers[:-1]:
            if widest and seen[layer].shape[-1] > widest:
                continue
            a, b, c, d = four = seen[layer].double()
            cross = (a - d).T @ (c - b)  # Σ acᵀ + bdᵀ - abᵀ - cdᵀ
            every = four.flatten(0, 1)
            terms = every.sum(0), every.T @ every, (cross + cross.T) / 4
            sums[layer] = [s + t for s, t in zip(sums.get(layer, (0, 0, 0)), terms)]
        count += pairs.shape[1]
    found = {}
    for layer, (total, squares, apart) in sums.items():
        mean = total / (4 * count)
        found[layer] = squares / (4 * count) - torch.outer(mean, mean), apart / count
    return found
