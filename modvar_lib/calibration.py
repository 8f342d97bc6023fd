"""Copies of a network with one thing changed, to see which measures notice. None of them changes the network that it is given.

`rotated` and `shifted` compute the same function as the original, to rounding; `dosed` and `shuffled` do not.
"""

import copy
from collections import OrderedDict

import torch
from torch import Tensor, nn

from modvar_lib.errors import InputError, lookup
from modvar_lib.streams import rng


class Affine(nn.Module):
    """h -> (h - before) Q + after over all units of a layer, whatever their shape: [B, ...] -> [B, ...]."""

    def __init__(self, turn: Tensor | None = None, before: float = 0.0, after: float = 0.0):
        super().__init__()
        self.turn, self.before, self.after = turn, before, after

    def forward(self, h: Tensor) -> Tensor:
        flat = h.flatten(1) - self.before
        return ((flat if self.turn is None else flat @ self.turn) + self.after).view_as(h)


def rotated(network: nn.Module, layer: str, seed: int = 0) -> nn.Module:
    """The units of a layer turned by a random rotation (Haar), and back at the entrance of the next layer: same function, same
    original score, and whatever the single units stood for is mixed."""
    units = _units(network, layer)
    square = torch.from_numpy(rng("measures", seed).standard_normal((units, units)))
    q, r = torch.linalg.qr(square)
    turn = (q * r.diagonal().sign()).float()
    return _between(network, layer, Affine(turn), Affine(turn.T))


def shifted(network: nn.Module, layer: str, by: float) -> nn.Module:
    """A constant added to every unit of a layer, and taken away at the entrance of the next layer: same function."""
    return _between(network, layer, Affine(after=by), Affine(before=by))


def shuffled(network: nn.Module, seed: int = 0) -> nn.Module:
    """The entries of every weight matrix and kernel in random order, layer by layer; biases stay."""
    found, generator = copy.deepcopy(network), rng("measures", seed)
    for p in found.parameters():
        if p.dim() > 1:
            order = torch.from_numpy(generator.permutation(p.numel()))
            p.data = p.data.flatten()[order].view_as(p)
    return found


def dosed(network: nn.Module, sides: dict[str, dict[str, Tensor]], c: float) -> nn.Module:
    """An `mlp` whose weights across the sides are multiplied by c, in all hidden layers before the bottleneck.

    sides: {layer: {"left": [U] bool, "right": [U] bool}}, such as `Subject.sides` of each; pixels by half. c = 1 changes nothing,
    with c = 0 the network is two towers, but for units that serve no side.
    """
    if not 0 <= c <= 1:
        raise InputError(f"c: got {c!r}; allowed: a number from 0 to 1")
    found = copy.deepcopy(network)
    half = torch.arange(2 * 28 * 28) < 28 * 28
    inputs = {"left": half, "right": ~half}
    for layer, units in sides.items():
        weight = lookup(dict(found.named_children()), "layer", layer).map.weight
        across = units["left"][:, None] & inputs["right"] | units["right"][:, None] & inputs["left"]
        weight.data = torch.where(across, c * weight.data, weight.data)
        inputs = units
    return found


def _units(network: nn.Module, layer: str) -> int:
    from modvar_lib.models import activations

    with torch.no_grad():
        seen = activations(network, torch.zeros(1, 2, 28, 28))[1]
    hidden = {name: value for (name, when), value in seen.items() if when == "post"}
    return lookup(hidden, "layer", layer).shape[1]


def _between(network: nn.Module, layer: str, out: nn.Module, back: nn.Module) -> nn.Module:
    """`out` after a layer, `back` before the next one."""
    names = [name for name, _ in network.named_children()]
    if layer not in names[:-1]:
        raise InputError(f"layer: got {layer!r}; allowed: {', '.join(names[:-1])}")
    found, following = copy.deepcopy(network), names[names.index(layer) + 1]
    own, after = getattr(found, layer), getattr(found, following)
    setattr(found, layer, nn.Sequential(OrderedDict(own=own, out=out)))
    setattr(found, following, nn.Sequential(OrderedDict(back=back, own=after)))
    return found
