"""Copies of a network with one thing changed, to see which measures notice. The network that is
given stays as it is. `rotated` and `shifted` compute the same function, to rounding; `shuffled`
does not."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from modvar_lib import models
from modvar_lib.data import rng
from modvar_lib.errors import InputError, lookup
from modvar_lib.metrics.subject import Subject


def haar(normal: Tensor) -> Tensor:
    """A rotation drawn uniformly (Haar), from a square of standard normal numbers; of [U, m], its
    first m columns."""
    q, r = torch.linalg.qr(normal)
    return q * r.diagonal().sign()


def rotated(network: nn.Module, *layers: str, seed: int = 0) -> nn.Module:
    """The units of each layer turned by a random rotation, and back at the entrance of the next
    layer: whatever single units stood for is mixed."""
    with torch.no_grad():
        _, seen = models.activations(network, torch.zeros(1, 2, 28, 28))
    widths = {name: h.shape[1] for (name, _), h in seen.items()}
    for layer in layers:
        units = lookup(widths, "layer", layer)
        turn = haar(torch.from_numpy(rng("measures", seed).standard_normal((units, units)))).float()
        network = mapped(network, layer, lambda h, q=turn: h @ q, lambda h, q=turn: h @ q.T)
    return network


def shifted(network: nn.Module, layer: str, by: float) -> nn.Module:
    """A constant added to every unit of a layer, and taken away at the entrance of the next."""
    return mapped(network, layer, lambda h: h + by, lambda h: h - by)


def shuffled(network: nn.Module, seed: int = 0) -> nn.Module:
    """The entries of every weight matrix and kernel in random order, layer by layer."""
    changed, generator = copy.deepcopy(network), rng("measures", seed)
    for p in changed.parameters():
        if p.dim() > 1:
            order = torch.from_numpy(generator.permutation(p.numel()))
            p.data = p.data.flatten()[order].view_as(p)
    return changed


def mapped(network: nn.Module, layer: str, transform: Callable, inverse: Callable) -> nn.Module:
    """A copy with `transform` of the units of a layer, [B, U], and `inverse` before the next one;
    pre-activations stay."""
    names = [name for name, _ in network.named_children()]
    if layer not in names[:-1]:
        raise InputError(f"layer: got {layer!r}; allowed: {', '.join(names[:-1])}")
    changed = copy.deepcopy(network)
    module, following = getattr(changed, layer), getattr(changed, names[names.index(layer) + 1])
    last = module[-1] if isinstance(module, nn.Sequential) else module
    last.register_forward_hook(lambda _, args, out: transform(out.flatten(1)).view_as(out))
    following.register_forward_pre_hook(
        lambda _, args: inverse(args[0].flatten(1)).view_as(args[0]), prepend=True
    )
    return changed


def shift_by_rms(subject: Subject) -> nn.Module:
    """`shifted` in the layer before the bottleneck, by the root mean square of its activations."""
    layer = subject.layers[-3]
    return shifted(subject.network, layer, float(subject.anova[layer].energy.mean().sqrt()))


PERTURBATIONS: dict[str, Callable[[Subject], nn.Module]] = {
    "shuffled": lambda s: shuffled(s.network, s.seed),
    "rotated": lambda s: rotated(s.network, *s.layers[:-2], seed=s.seed),
    "shifted": shift_by_rms,
}
