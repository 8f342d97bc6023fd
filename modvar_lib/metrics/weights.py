"""Are the weights separated? The planted two-way split of the map into a layer: units by the side they serve, pixels by half.

The map from the layer before is read off by running it, whatever its module: W [U, V], wherever it is affine. An edge is
|W_uv| sd_v, what input v moves unit u by, and each unit's edges are scaled to sum to 1: a ReLU unit may be scaled up and its
outputs down with no change. Of this bipartite graph, inputs and units each in two groups (those that serve no side left out):

- `weight_modularity`: Newman's Q of the split. 1/2: no edge across. Near 0: as many as by chance. Below 0: more than by chance.
- `weight_ncut`: its normalised cut, cut / vol(left) + cut / vol(right), 0 (no edge across) to 2. Near 1: chance.
- `weight_modularity_shuffled`, `weight_ncut_shuffled`: mean over 5 shuffles of the edges of inputs that vary, each with its units
  assigned again by what they then serve. That is the value at chance: assigning by selectivity puts strong edges within, even
  in a random matrix.

Two equal blocks whose weights across are c times those within: Q = (1 - c) / (2 (1 + c)), n-cut = 2c / (1 + c).
NaN, with the reason, where the map is not affine or a side has no unit.
Sources: Newman, PNAS 103 (2006), doi:10.1073/pnas.0601602103; Shi and Malik, IEEE TPAMI 22 (2000), doi:10.1109/34.868688.
"""

from contextlib import contextmanager

import torch
from torch import Tensor, nn

from modvar_lib import data, models
from modvar_lib.metrics.subject import Subject, anova, sides, tidy

SHUFFLES = 5
SHUFFLED_DRAWS = 500
PIXELS = "pixels"
NOT_AFFINE = "not an affine map of the layer before"
ONE_SIDE = "no unit serves one of the sides"


def separation(strength: Tensor, units: dict, inputs: dict) -> tuple[float, float]:
    """(Q, n-cut) of a bipartite graph, edges [U, V], 0 or more, with units and inputs split into left and right.

    >>> blocks = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    >>> split = {"left": torch.tensor([True, False]), "right": torch.tensor([False, True])}
    >>> q, ncut = separation(blocks, split, split)
    >>> round(q, 4), round(ncut, 4)
    (0.1667, 0.6667)
    """
    if not all(group.any() for split in (units, inputs) for group in split.values()):
        return float("nan"), float("nan")
    blocks = torch.stack(
        [torch.stack([strength[units[s]][:, inputs[t]].sum() for t in units]) for s in units]
    ).double()
    total, volumes = blocks.sum(), blocks.sum(0) + blocks.sum(1)
    q = blocks.trace() / total - ((volumes / (2 * total)) ** 2).sum()
    ncut = ((total - blocks.trace()) / volumes).sum()
    return float(q), float(ncut)


def rows(subject: Subject) -> list[dict]:
    table = []
    before, spread = PIXELS, subject.digits.images.double().std(0).repeat(2)
    split = _halves(len(spread))
    for layer in subject.layers:
        found = affine_map(subject.network, before, layer)
        kinds = dict.fromkeys(("", "_shuffled"), (float("nan"), float("nan")))
        if found:
            weight, bias = (part.double() for part in found)
            kinds[""] = separation(edges(weight, spread), subject.sides(layer), split)
            if kinds[""][0] == kinds[""][0]:
                kinds["_shuffled"] = _shuffled(subject, before, layer, weight, bias, spread, split)
        names = "weight_modularity", "weight_ncut"
        named = {n + kind: v for kind, both in kinds.items() for n, v in zip(names, both)}
        table += tidy(layer, named, ONE_SIDE if found else NOT_AFFINE)
        before, spread, split = layer, subject.anova[layer].total.sqrt(), subject.sides(layer)
    return table


def edges(weight: Tensor, spread: Tensor) -> Tensor:
    """|W_uv| sd_v, each unit's scaled to sum to 1 (a unit without any keeps 0)."""
    strength = weight.abs() * spread
    return strength / strength.sum(1, keepdim=True).clamp(min=1e-300)


def _halves(pixels: int) -> dict[str, Tensor]:
    left = torch.arange(pixels) < pixels // 2
    return {"left": left, "right": ~left}


def _shuffled(subject, before, layer, weight, bias, spread, split) -> tuple[float, float]:
    live, split = spread > 0, {side: group[spread > 0] for side, group in split.items()}
    weight = (weight * spread)[:, live]
    total = weight.abs().sum(1, keepdim=True).clamp(min=1e-300)
    weight, bias, spread = weight / total, bias / total[:, 0], spread[live]
    generator, module = subject.generator(), dict(subject.network.named_children())[layer]
    act = module[-1] if isinstance(module, nn.Sequential) and len(module) > 1 else nn.Identity()
    inputs = []
    for four in subject.quadruples(SHUFFLED_DRAWS):
        pairs = four.flatten(0, 1)
        if before == PIXELS:
            found = data.halves(subject.digits.images, pairs).flatten(1)
        else:
            found = subject.activations(pairs)[before]
        inputs.append((found[:, live] / spread).float())
    found = []
    for _ in range(SHUFFLES):
        order = torch.randperm(weight.numel(), generator=generator)
        other = weight.flatten()[order].view_as(weight)
        single, constant = other.float(), bias.float()
        parts = ({layer: act(x @ single.T + constant).unflatten(0, (4, -1))} for x in inputs)
        found.append(separation(other.abs(), sides(anova(parts)[layer]), split))
    return tuple(torch.tensor(found, dtype=torch.float64).nanmean(0).tolist())


def affine_map(network: nn.Module, before: str, layer: str) -> tuple[Tensor, Tensor] | None:
    """(W [U, V], bias [U]) from the layer before (or the pixels) to a layer's pre-activation; None if that is not affine."""
    device = next(network.parameters()).device
    with torch.no_grad():
        blank = torch.zeros(1, 2, 28, 28, device=device)
        seen = models.activations(network, blank)[1]
        if seen[layer, "pre"].shape != seen[layer, "post"].shape:
            return None  # units that are not one number before, one after, such as gated ones
        width = blank.numel() if before == PIXELS else seen[before, "post"].shape[1]

        def run(values: Tensor, pixels: float = 0.0) -> Tensor:
            if before == PIXELS:
                return models.activations(network, values.view(-1, 2, 28, 28))[1][layer, "pre"]
            pairs = torch.full((len(values), 2, 28, 28), pixels, device=device)
            with overwritten(network, before, lambda _: values):
                return models.activations(network, pairs)[1][layer, "pre"]

        basis = torch.eye(width, device=device)
        bias = run(torch.zeros(1, width, device=device))
        weight = torch.cat([run(part) for part in basis.split(512)]) - bias
        trial = torch.rand(8, width, generator=torch.Generator().manual_seed(0)).to(device)
        straight = trial @ weight + bias
        scale = straight.abs().max() + 1e-12
        if any((run(trial, p) - straight).abs().max() > 1e-3 * scale for p in (0.0, 1.0)):
            return None
        return weight.T.contiguous(), bias[0]


@contextmanager
def overwritten(network: nn.Module, layer: str, change):
    """Within, the activations of a layer [n, U] are replaced by `change(activations)`."""

    def hook(module, args, out):
        return change(out.flatten(1)).view_as(out)

    handle = dict(network.named_children())[layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
