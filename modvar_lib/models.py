"""Architectures: an nn.Module of operations that torch.vmap can batch over networks. Its direct
children, in order, are its layers; the last two are a 2-node `bottleneck` and a scalar `readout`.

A module takes pairs [B, 2, 28, 28] (left, right; `data.side_by_side` lays them into one 28 x 56
picture) and returns [B, 1]; for a goal of K outputs the readout is replaced and [B, K] returned. Of
a layer that is an nn.Sequential, the pre-activation is what enters its last module, the
nonlinearity; of any other, the activation itself.

Letters: R replicas (seeds), B pairs in a batch, U units of a layer.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.grad import conv2d_input, conv2d_weight

from modvar_lib.data import rng, side_by_side
from modvar_lib.errors import InputError, lookup

OPTIMIZERS = {  # PyTorch's, element by element, so that stacked replicas do not touch each other
    "adam": partial(torch.optim.Adam, fused=True),
    "sgd": partial(torch.optim.SGD, momentum=0.9, fused=True),
}
ARCHITECTURES: dict[str, type[nn.Module]] = {}
GLOBAL_GENERATOR = threading.Lock()  # several threads may make networks at once


Class = TypeVar("Class", bound=type[nn.Module])


def architecture(cls: Class) -> Class:
    """Register an architecture under its class's name in lower case."""
    ARCHITECTURES[cls.__name__.lower()] = cls
    return cls


def check(name: str, model: nn.Module, outputs: int = 1) -> None:
    """Raise InputError unless a network has the form that this module describes and can be trained
    as it will be: two of it as one batched program, forward and backward."""
    pairs = torch.zeros(2, 3, 2, 28, 28)
    with torch.no_grad():
        out, seen = activations(model, pairs[0])
    widths = {layer: value.shape[1] for (layer, when), value in seen.items() if when == "post"}
    got = f"architecture: {name} has layers {widths} and gives {tuple(out.shape)} for 3 pairs"
    if list(widths)[-2:] != ["bottleneck", "readout"] or widths["bottleneck"] != 2:
        raise InputError(f"{got}; allowed: the last two are bottleneck, with 2 units, and readout")
    if out.shape != (3, outputs):
        raise InputError(f"{got}; allowed: {(3, outputs)}")
    if any(True for _ in model.buffers()):
        raise InputError(f"architecture: {name} has buffers; allowed: parameters only")
    try:
        Replicas([model, model])(pairs).sum().backward()
    except RuntimeError as error:
        why = str(error).splitlines()[0].split(". ")[0]
        raise InputError(
            f"architecture: {name} cannot be trained as a batch of networks ({why}); allowed: "
            "operations that torch.vmap takes (10_your_own shows which, and a recurrent network)"
        ) from error


def activations(model: nn.Module, pairs: Tensor) -> tuple[Tensor, dict[tuple[str, str], Tensor]]:
    """Output [B, K] of one network and its activations {(layer, "pre" | "post"): [B, U]}, layers in
    order.

    >>> out, seen = activations(initial("mlp", seed=0), torch.zeros(3, 2, 28, 28))
    >>> tuple(out.shape), tuple(seen["hidden2", "post"].shape)
    ((3, 1), (3, 64))
    """
    seen, hooks = {}, []

    def before(module, args, layer):
        seen[layer, "pre"] = args[0].flatten(1)

    def after(module, args, out, layer):
        if not isinstance(out, Tensor):
            got = f"layer {layer} gives a {type(out).__name__}"
            raise InputError(f"architecture: {got}; allowed: a tensor")
        values = out.flatten(1)
        seen.setdefault((layer, "pre"), values)
        seen[layer, "post"] = values

    for name, layer in model.named_children():
        if isinstance(layer, nn.Sequential) and len(layer) > 1:
            hooks.append(layer[-1].register_forward_pre_hook(partial(before, layer=name)))
        hooks.append(layer.register_forward_hook(partial(after, layer=name)))
    try:
        return model(pairs), seen
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def patch_activations(network: nn.Module, layer: str, change):
    """Within, the activations of a layer [B, U] are replaced by `change(activations)`."""

    def hook(module, args, out):
        return change(out.flatten(1)).view_as(out)

    handle = dict(network.named_children())[layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def run_from(network: nn.Module, layer: str, values: Tensor, pairs: Tensor) -> Tensor:
    """Outputs [B, K] for pairs [B, 2, 28, 28] when the activations of a layer are `values` [B, U]
    instead. Of an nn.Sequential only what follows that layer runs."""
    if type(network).forward is not nn.Sequential.forward:
        with patch_activations(network, layer, lambda _: values):
            return network(pairs)
    names, modules = zip(*network.named_children())
    following = names.index(layer) + 1
    shape = nn.Sequential(*modules[:following])(pairs[:1]).shape[1:]
    return nn.Sequential(*modules[following:])(values.unflatten(1, shape))


def initial(name: str, seed: int, outputs: int = 1) -> nn.Module:
    """A network with the initial weights of a seed, PyTorch's defaults for its modules. With
    several outputs its readout is 2 -> outputs; everything else is as with one."""
    make = lookup(ARCHITECTURES, "architecture", name)
    # Modules draw from the global generator: lend it a seed and put it back
    with GLOBAL_GENERATOR, torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng("weights", seed).integers(2**63)))
        network = make()
        if outputs > 1:
            network.readout = nn.Linear(2, outputs)
        return network


class Replicas:
    """R networks of one architecture as one batched program; the networks stay as they are.

    leaves: {name: [R, ...]}, what the optimiser steps. Matrices are kept as [R, in, out], the order
    in which their gradients come: copying those into place would take a fifth of a training step.
    """

    def __init__(self, networks: list[nn.Module], device: str = "cpu"):
        stacked, _ = stack_module_state(networks)
        self.leaves = {
            k: transpose_matrices(v.detach()).contiguous().to(device).requires_grad_()
            for k, v in stacked.items()
        }
        skeleton = deepcopy(networks[0]).to("meta")
        self._forward = vmap(lambda leaves, pairs: functional_call(skeleton, leaves, (pairs,)))

    def __call__(self, pairs: Tensor) -> Tensor:
        """Outputs [R, B, K] for each replica's own pairs [R, B, 2, 28, 28]."""
        return self._forward({k: transpose_matrices(v) for k, v in self.leaves.items()}, pairs)

    def connections(self) -> list[Tensor]:
        """Matrices and kernels of all layers before the readout, [R, ...] each."""
        return [
            leaf
            for name, leaf in self.leaves.items()
            if leaf.dim() > 2 and name.endswith("weight") and not name.startswith("readout.")
        ]

    def weights(self, replica: int) -> dict[str, Tensor]:
        """One replica's weights, on the CPU."""
        own = {k: transpose_matrices(v.detach())[replica] for k, v in self.leaves.items()}
        return {k: v.cpu().contiguous().clone() for k, v in own.items()}


def transpose_matrices(stacked: Tensor) -> Tensor:
    """Leaves as a module has them, or back: only matrices, [R, in, out], are transposed."""
    return stacked.mT if stacked.dim() == 3 else stacked


def with_relu(linear_map: nn.Module, flat: bool = False) -> nn.Sequential:
    """A layer: a linear map, then a ReLU; flat: what comes in is flattened first."""
    before = {"flat": nn.Flatten()} if flat else {}
    return nn.Sequential(OrderedDict(**before, map=linear_map, relu=nn.ReLU()))


class PerReplicaConv2d(torch.autograd.Function):
    """conv2d. Under vmap, one convolution per replica: vmap's own way, one of R groups, is four
    times slower on a CPU."""

    @staticmethod
    def forward(pictures, kernels, bias, stride):
        return F.conv2d(pictures, kernels, bias, stride)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:2])
        ctx.stride = inputs[3]

    @staticmethod
    def backward(ctx, *gradients):
        (gradient,), (pictures, kernels) = gradients, ctx.saved_tensors
        return (
            conv2d_input(pictures.shape, kernels, gradient, ctx.stride),
            conv2d_weight(pictures, kernels.shape, gradient, ctx.stride),
            gradient.sum((0, 2, 3)),
            None,
        )

    @staticmethod
    def vmap(info, in_dims, *operands):
        *tensors, stride = operands
        if tensors[0].is_cuda:
            return vmap(lambda p, k, b: F.conv2d(p, k, b, stride), in_dims[:3])(*tensors), 0
        replicas = zip(*(t.unbind(d) for t, d in zip(tensors, in_dims)))
        return torch.stack([F.conv2d(p, k, b, stride) for p, k, b in replicas], 1), 1


class Stem(nn.Conv2d):
    """A first convolution, of the digits side by side: one input channel, no padding."""

    def __init__(self, maps: int, size: int, stride: int):
        super().__init__(1, maps, size, stride=stride)

    def forward(self, input: Tensor) -> Tensor:  # [B, digits, 28, 28] -> [B, maps, height, width]
        pictures = side_by_side(input).unsqueeze(1)
        return PerReplicaConv2d.apply(pictures, self.weight, self.bias, self.stride)


class Family(nn.Sequential):
    """Layers one after the other, then the bottleneck and the readout.

    `layers(digits, divisor)`: names and modules, for pictures of one digit or of a pair, as wide as
    documented divided by `divisor` (`architectures.calibration` makes others from them). The first
    takes [B, digits, 28, 28], the last gives [B, wide / divisor].
    """

    wide = 64

    def __init__(self):
        super().__init__(OrderedDict(self.layers()))
        self.bottleneck, self.readout = nn.Linear(self.wide, 2), nn.Linear(2, 1)

    @classmethod
    def layers(cls, digits: int = 2, divisor: int = 1) -> Iterator[tuple[str, nn.Module]]:
        raise NotImplementedError


# The original says only "threw something up" with 2 nodes in the second-to-last layer. These
# defaults were chosen before any score was looked at: ReLU after every wide layer and default
# initial weights, as in an ordinary first PyTorch network. No normalisation or dropout, which would
# couple examples or add noise. No nonlinearity on the bottleneck: with a ReLU there, both its nodes
# fell silent for good in 3 of 8 MLPs on `fixed`, where the original reports no failures.


@architecture
class MLP(Family):
    """1568-128-64-2-1, the plainest network for 28 x 56 pixels, as wide as in MNIST tutorials.
    209,221 parameters; 209,026 multiply-adds a pair. Every unit can see both digits."""

    @classmethod
    def layers(cls, digits: int = 2, divisor: int = 1) -> Iterator[tuple[str, nn.Module]]:
        yield "hidden1", with_relu(nn.Linear(digits * 28 * 28, 128 // divisor), flat=True)
        yield "hidden2", with_relu(nn.Linear(128 // divisor, 64 // divisor))


@architecture
class CNN(Family):
    """Two strided convolutions and a dense layer. 26,149 parameters; 81,154 multiply-adds a pair.

    `conv1` 8 maps of 5 x 5, stride 3 -> 8 x 18; `conv2` 16 maps of 3 x 3, stride 2 -> 3 x 8;
    `dense` 64. Strides take the place of pooling, so that a layer has one nonlinearity. Column j of
    conv1 sees columns 3j..3j+4 of the picture (j = 8 and 9 cross the seam), of conv2 6j..6j+10 (j =
    3 and 4 cross it); dense sees all.
    """

    @classmethod
    def layers(cls, digits: int = 2, divisor: int = 1) -> Iterator[tuple[str, nn.Module]]:
        yield "conv1", with_relu(Stem(8 // divisor, 5, stride=3))
        yield "conv2", with_relu(nn.Conv2d(8 // divisor, 16 // divisor, 3, stride=2))
        columns = (3, 8)[digits - 1]
        yield "dense", with_relu(nn.Linear(16 // divisor * 3 * columns, 64 // divisor), flat=True)
