"""Copies of a network with one thing changed, to see which measures notice. None of them changes the network that it is given.

`rotated` and `shifted` compute the same function as the original, to rounding; `shuffled` does not.
"""

import copy

import torch
from torch import Tensor, nn

from modvar_lib import models
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


class Then(nn.Module):
    """One module after the other."""

    def __init__(self, first: nn.Module, second: nn.Module):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, h: Tensor) -> Tensor:
        return self.second(self.first(h))


def haar(square: torch.Tensor) -> torch.Tensor:
    """A rotation drawn uniformly (Haar), from a square matrix of standard normal numbers."""
    q, r = torch.linalg.qr(square)
    return q * r.diagonal().sign()


def rotated(network: nn.Module, layer: str, seed: int = 0) -> nn.Module:
    """The units of a layer turned by a random rotation (Haar), and back at the entrance of the next layer: same function, same
    original score, and whatever the single units stood for is mixed."""
    units = _units(network, layer)
    square = torch.from_numpy(rng("measures", seed).standard_normal((units, units)))
    turn = haar(square).float()
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


def every_layer_rotated(network: nn.Module, layers: list[str], seed: int = 0) -> nn.Module:
    """`rotated`, one layer after the other."""
    for layer in layers:
        network = rotated(network, layer, seed)
    return network


COPIES = {  # name: (run, subject of its network) -> network; `shifted` in the layer before the bottleneck
    "untrained": lambda run, subject: models.initial(run.settings["architecture"], subject.seed),
    "shuffled": lambda run, subject: shuffled(subject.network, subject.seed),
    "rotated": lambda run, subject: every_layer_rotated(
        subject.network, subject.layers[:-2], subject.seed
    ),
    "shifted": lambda run, subject: shifted(subject.network, subject.layers[-3], _size(subject)),
}


def _size(subject) -> float:
    """Root mean square of the activations of the layer before the bottleneck."""
    return float(subject.anova[subject.layers[-3]].energy.mean().sqrt())


def _units(network: nn.Module, layer: str) -> int:
    with torch.no_grad():
        seen = models.activations(network, torch.zeros(1, 2, 28, 28))[1]
    hidden = {name: value for (name, when), value in seen.items() if when == "post"}
    return lookup(hidden, "layer", layer).shape[1]


def _between(network: nn.Module, layer: str, out: nn.Module, back: nn.Module) -> nn.Module:
    """`out` after a layer, `back` before the next one; pre-activations stay where they are."""
    names = [name for name, _ in network.named_children()]
    if layer not in names[:-1]:
        raise InputError(f"layer: got {layer!r}; allowed: {', '.join(names[:-1])}")
    found, following = copy.deepcopy(network), names[names.index(layer) + 1]
    own, after = getattr(found, layer), getattr(found, following)
    if isinstance(own, nn.Sequential):
        own[-1] = Then(own[-1], out)
    else:
        setattr(found, layer, Then(own, out))
    if isinstance(after, nn.Sequential):
        after[0] = Then(back, after[0])
    else:
        setattr(found, following, Then(back, after))
    return found
