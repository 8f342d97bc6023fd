"""Are the weights separated? The planted two-way split of the map into a layer: units by the side
they serve.

The map W [U, V] from the layer before is read off by running it, wherever it is affine. An edge is
|W_uv| sd_v, what input v moves unit u by; each unit's edges are scaled to sum to 1, so that scaling
a ReLU unit, undone in the next layer, changes nothing. Of this bipartite graph, inputs (pixels: by
half) and units by side, those that serve none left out:

- `weight_modularity`: Newman's Q of the split. 1/2: no edge across. Near 0: as many as by chance;
  below 0: more.
- `weight_ncut`: its normalised cut, cut / vol(left) + cut / vol(right), 0 (no edge across) to 2.
  Near 1: chance.
- `weight_modularity_shuffled`, `weight_ncut_shuffled`, at chance: mean over 5 shuffles of the edges
  of inputs that vary, units assigned again by what they then serve.

Two equal blocks whose weights across are c times those within: Q = (1 - c) / (2 (1 + c)), n-cut =
2c / (1 + c). NaN, with the reason, where the map is not affine or a side has no unit. Sources:
Newman, PNAS 103 (2006), doi:10.1073/pnas.0601602103; Shi and Malik, IEEE TPAMI 22 (2000),
doi:10.1109/34.868688.
"""

from math import isnan, nan

import torch
from torch import Tensor, nn

from modvar_lib import data
from modvar_lib.metrics.subject import (
    NOT_AFFINE,
    ONE_SIDE,
    PIXELS,
    Property,
    Subject,
    anova,
    quadruples,
    tidy,
)
from modvar_lib.models import activations, patch_activations

FOLLOWED, SHUFFLES, SHUFFLED_DRAWS = None, 5, 500
PROPERTIES = {
    "weight_modularity": Property(-0.5, 0.5, ("permutation", "rescaling", "swap"), 1),
    "weight_ncut": Property(0, 2, ("permutation", "rescaling", "swap"), -1),
    "weight_modularity_shuffled": Property(-0.5, 0.5, ("rescaling",)),
    "weight_ncut_shuffled": Property(0, 2, ("rescaling",)),
}


def rows(subject: Subject) -> list[dict]:
    table, before, spread = [], PIXELS, subject.digits.images.double().std(0).repeat(2)
    left = torch.arange(len(spread)) < len(spread) // 2
    split = {"left": left, "right": ~left}
    for layer in subject.layers:
        values, affine = (nan,) * 4, affine_map(subject.network, before, layer)
        if affine:
            edges, bias = affine[0].double() * spread, affine[1].double()
            planted = separation(edges.abs() / _per_unit(edges), subject.sides(layer), split)
            if not isnan(planted[0]):
                values = *planted, *at_chance(subject, before, layer, edges, bias, spread, split)
        why = ONE_SIDE if affine else NOT_AFFINE
        table += tidy(layer, dict(zip(PROPERTIES, values)), why)
        before, spread, split = layer, subject.anova[layer].total.sqrt(), subject.sides(layer)
    return table


def separation(strength: Tensor, units: dict, inputs: dict) -> tuple[float, float]:
    """(Q, n-cut) of a bipartite graph, edges [U, V], 0 or more, with units and inputs split into
    left and right; NaN where a side is empty.

    >>> blocks = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    >>> split = {"left": torch.tensor([True, False]), "right": torch.tensor([False, True])}
    >>> q, ncut = separation(blocks, split, split)
    >>> round(q, 4), round(ncut, 4)
    (0.1667, 0.6667)
    """
    if not all(group.any() for split in (units, inputs) for group in split.values()):
        return nan, nan
    sums = [[strength[units[s]][:, inputs[t]].sum() for t in units] for s in units]
    blocks = torch.stack([torch.stack(row) for row in sums]).double()
    total, volumes = blocks.sum(), blocks.sum(0) + blocks.sum(1)
    q = blocks.trace() / total - ((volumes / (2 * total)) ** 2).sum()
    return float(q), float(((total - blocks.trace()) / volumes).sum())


def at_chance(subject, before, layer, edges, bias, spread, split) -> tuple[float, float]:
    """Mean `separation` over shuffles of the edges [U, V], with signs, of the map with bias [U]
    from a layer with standard deviations [V] and sides `split`."""
    live, module = spread > 0, getattr(subject.network, layer)
    split = {side: group[live] for side, group in split.items()}
    edges, total = edges[:, live], _per_unit(edges[:, live])
    edges, bias = edges / total, (bias / total[:, 0]).float()
    act = module[-1] if isinstance(module, nn.Sequential) and len(module) > 1 else nn.Identity()
    (four,) = quadruples(subject.draws[:SHUFFLED_DRAWS])
    if before == PIXELS:
        inputs = data.halves(subject.digits.images, four.flatten(0, 1)).flatten(1)
    else:
        inputs = subject.activations(four.flatten(0, 1))[before]
    inputs = (inputs[:, live] / spread[live]).float()
    results, generator = [], subject.generator()
    for _ in range(SHUFFLES):
        order = torch.randperm(edges.numel(), generator=generator)
        shuffled = edges.flatten()[order].view_as(edges)
        units = act(inputs @ shuffled.float().T + bias).unflatten(0, (4, -1))
        results.append(separation(shuffled.abs(), anova([{layer: units}])[layer].sides, split))
    return tuple(torch.tensor(results, dtype=torch.float64).nanmean(0).tolist())


def _per_unit(edges: Tensor) -> Tensor:
    """The sum of each unit's edges, whatever their sign, [U, 1]; never quite 0."""
    return edges.abs().sum(1, keepdim=True).clamp(min=1e-300)


@torch.no_grad()
def affine_map(network: nn.Module, before: str, layer: str) -> tuple[Tensor, Tensor] | None:
    """(W [U, V], bias [U]) from the layer before, or pixels, to a layer's pre-activation; None if
    it is not affine."""
    seen = activations(network, torch.zeros(1, 2, 28, 28))[1]
    if seen[layer, "pre"].shape != seen[layer, "post"].shape:
        return None  # units that are not one number before, one after, such as gated ones
    width = 2 * 28 * 28 if before == PIXELS else seen[before, "post"].shape[1]

    def run(values: Tensor, pixel: float = 0.0) -> Tensor:
        if before == PIXELS:
            return activations(network, values.view(-1, 2, 28, 28))[1][layer, "pre"]
        with patch_activations(network, before, lambda _: values):
            pictures = torch.full((len(values), 2, 28, 28), pixel)
            return activations(network, pictures)[1][layer, "pre"]

    bias = run(torch.zeros(1, width))
    weight = torch.cat([run(part) for part in torch.eye(width).split(512)]) - bias
    trial = torch.rand(8, width, generator=torch.Generator().manual_seed(0))
    straight = trial @ weight + bias
    least = 1e-3 * (straight.abs().max() + 1e-12)
    if any((run(trial, pixel) - straight).abs().max() > least for pixel in (0.0, 1.0)):
        return None
    return weight.T.contiguous(), bias[0]
