"""Architectures: any nn.Module with named layers, the second-to-last a 2-node `bottleneck`, the last a scalar `readout`.

A module takes halves [B, 2, 28, 28] (left, right; `data.side_by_side` lays them into one 28 x 56 picture) and returns
[B, 1]; for a goal of K outputs the readout is replaced and [B, K] returned. Its direct children, in order, are its layers. For
a layer that is an nn.Sequential, the pre-activation is the input of its last module, the nonlinearity; for any other layer it
is the activation itself.

Letters: R replicas (seeds), B pairs in a batch, U units of a layer.
"""

import threading
from collections import OrderedDict
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from modvar_lib.data import side_by_side
from modvar_lib.errors import InputError, lookup
from modvar_lib.streams import rng

OPTIMIZERS = {  # PyTorch's, element by element, so that stacked replicas do not touch each other
    "adam": partial(torch.optim.Adam, fused=True),
    "sgd": partial(torch.optim.SGD, momentum=0.9, fused=True),
}
ARCHITECTURES: dict[str, type[nn.Module]] = {}
GLOBAL_GENERATOR = threading.Lock()  # several threads may make networks at once


def architecture(cls: type[nn.Module]) -> type[nn.Module]:
    """Register an architecture under its class's name in lower case (use as a decorator).

    >>> @architecture
    ... class Shallow(nn.Sequential):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.flat = nn.Flatten()
    ...         self.bottleneck, self.readout = nn.Linear(2 * 28 * 28, 2), nn.Linear(2, 1)
    >>> check("shallow", initial("shallow", seed=0))
    >>> del ARCHITECTURES["shallow"]
    """
    ARCHITECTURES[cls.__name__.lower()] = cls
    return cls


def check(name: str, model: nn.Module, outputs: int = 1) -> None:
    """One line of error unless a network has the form that this module's docstring describes."""
    with torch.no_grad():
        out, seen = activations(model, torch.zeros(3, 2, 28, 28))
    widths = {layer: value.shape[1] for (layer, when), value in seen.items() if when == "post"}
    if (
        list(widths)[-2:] != ["bottleneck", "readout"]
        or widths["bottleneck"] != 2
        or out.shape != (3, outputs)
    ):
        raise InputError(
            f"architecture: {name} has layers {widths} and gives {tuple(out.shape)} for 3 pairs; "
            f"allowed: the last two layers are bottleneck with 2 units and readout, and 3 pairs give (3, {outputs})"
        )
    if any(True for _ in model.buffers()):
        raise InputError(
            f"architecture: {name} has buffers; allowed: parameters only, so that replicas stay independent"
        )


def activations(model: nn.Module, pairs: Tensor) -> tuple[Tensor, dict[tuple[str, str], Tensor]]:
    """Output [B, 1] of one network and its activations {(layer, "pre" | "post"): [B, U]}, layers in order.

    >>> out, seen = activations(initial("mlp", seed=0), torch.zeros(3, 2, 28, 28))
    >>> tuple(out.shape), tuple(seen["hidden2", "post"].shape)
    ((3, 1), (3, 64))
    """
    seen, hooks = {}, []
    for name, layer in model.named_children():
        if isinstance(layer, nn.Sequential) and len(layer) > 1:

            def before(module, args, name=name):
                seen[name, "pre"] = args[0].flatten(1)

            hooks.append(layer[-1].register_forward_pre_hook(before))

        def after(module, args, out, name=name):
            seen[name, "post"] = out.flatten(1)
            seen.setdefault((name, "pre"), seen[name, "post"])

        hooks.append(layer.register_forward_hook(after))
    try:
        return model(pairs), seen
    finally:
        for hook in hooks:
            hook.remove()


def initial(name: str, seed: int, outputs: int = 1) -> nn.Module:
    """A network with the initial weights of a seed (PyTorch's defaults for its modules), made on the CPU. With several
    outputs its readout is 2 -> outputs; everything else is as with one.

    >>> [name for name, _ in initial("mlp", seed=0).named_children()]
    ['hidden1', 'hidden2', 'bottleneck', 'readout']
    """
    make = lookup(ARCHITECTURES, "architecture", name)
    with (
        GLOBAL_GENERATOR,
        torch.random.fork_rng(devices=[]),
    ):  # modules draw from the global generator: lend it a seed and put it back
        torch.manual_seed(int(rng("weights", seed).integers(2**63)))
        network = make()
        if outputs > 1:
            network.readout = nn.Linear(2, outputs)
        return network


class Replicas:
    """R networks of one architecture as one batched program.

    leaves: {name: [R, ...]}, what the optimiser steps. Matrices [R, out, in] are kept as [R, in, out], the order in which
    their gradients come: copying those into place would take a fifth of a training step.
    """

    def __init__(self, name: str, seeds: tuple[int, ...], device: str = "cpu", outputs: int = 1):
        networks = [initial(name, seed, outputs) for seed in seeds]
        check(name, networks[0], outputs)
        stacked, _ = stack_module_state(networks)
        self.leaves = {
            k: turned(v.detach()).contiguous().to(device).requires_grad_()
            for k, v in stacked.items()
        }
        skeleton = networks[0].to("meta")
        self._forward = vmap(
            lambda parameters, pairs: functional_call(skeleton, parameters, (pairs,))
        )

    def __call__(self, pairs: Tensor) -> Tensor:
        """Outputs [R, B, K] for each replica's own pairs [R, B, 2, 28, 28]."""
        return self._forward({k: turned(v) for k, v in self.leaves.items()}, pairs)

    def connections(self) -> list[Tensor]:
        """The weights of all layers before the readout, [R, ...] each: matrices and kernels, no biases and no gains of norms."""
        return [
            leaf
            for name, leaf in self.leaves.items()
            if leaf.dim() > 2 and name.endswith("weight") and not name.startswith("readout.")
        ]

    def weights(self, replica: int) -> dict[str, Tensor]:
        """One replica's weights, on the CPU."""
        return {
            k: turned(v.detach())[replica].cpu().contiguous().clone()
            for k, v in self.leaves.items()
        }


def turned(stacked: Tensor) -> Tensor:
    """Leaves as a module has them, or back: matrices [R, in, out] as [R, out, in], all else as it is."""
    return stacked.mT if stacked.dim() == 3 else stacked


def with_relu(linear_map: nn.Module) -> nn.Sequential:
    """A layer: a linear map, then a ReLU."""
    return nn.Sequential(OrderedDict(map=linear_map, relu=nn.ReLU()))


class _OneByOne(torch.autograd.Function):
    """conv2d. Under vmap, a convolution a replica: vmap's own way is one convolution of R groups, and with one channel a
    group that is four times slower on a CPU."""

    @staticmethod
    def forward(pictures, kernels, bias, stride):
        return F.conv2d(pictures, kernels, bias, stride)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:2])
        ctx.stride = inputs[3]

    @staticmethod
    def backward(ctx, gradient):
        pictures, kernels = ctx.saved_tensors
        wanted = ctx.needs_input_grad[0]  # the pixels' is not
        return (
            nn.grad.conv2d_input(pictures.shape, kernels, gradient, ctx.stride) if wanted else None,
            nn.grad.conv2d_weight(pictures, kernels.shape, gradient, ctx.stride),
            gradient.sum((0, 2, 3)),
            None,
        )

    @staticmethod
    def vmap(info, in_dims, *operands):
        *tensors, stride = operands
        if tensors[0].is_cuda:
            return vmap(lambda p, k, b: F.conv2d(p, k, b, stride), in_dims[:3])(*tensors), 0
        replicas = zip(*(t.unbind(d) for t, d in zip(tensors, in_dims)))
        return torch.stack([F.conv2d(p, k, b, stride) for p, k, b in replicas]), 0


class Stem(nn.Conv2d):
    """A first convolution: one input channel, no padding."""

    def __init__(self, maps: int, size: int, stride: int):
        super().__init__(1, maps, size, stride=stride)

    def forward(self, pictures: Tensor) -> Tensor:  # [B, 28, 56] -> [B, maps, height, width]
        return _OneByOne.apply(pictures.unsqueeze(1), self.weight, self.bias, self.stride)


class Residual(nn.Module):
    """x + inner(x)."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Patches(nn.Module):
    """The eight 14 x 14 patches of a pair, each mapped to D numbers, plus a learned position: [B, 2, 28, 28] -> [B, 8, D].

    Tokens 0 to 3 are the left digit's quarters, 4 to 7 the right one's: no patch crosses the seam.
    """

    def __init__(self, width: int):
        super().__init__()
        self.map = nn.Linear(14 * 14, width)
        self.position = nn.Parameter(0.02 * torch.randn(8, width))

    def forward(self, pairs: Tensor) -> Tensor:
        tiles = pairs.unflatten(-1, (2, 14)).unflatten(-3, (2, 14))  # [B, 2, 2, 14, 2, 14]
        return self.map(tiles.transpose(-3, -2).reshape(-1, 8, 14 * 14)) + self.position


class Attention(nn.Module):
    """Multi-head self-attention: [B, T, D] -> [B, T, D]."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)  # [B, heads, T, D / heads]
        return self.out(mixed.transpose(1, 2).flatten(-2))


class OverTokens(nn.Module):
    """A module applied across tokens, the same for every channel: [B, T, D] -> [B, T, D]."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, tokens: Tensor) -> Tensor:
        return self.inner(tokens.transpose(-1, -2)).transpose(-1, -2)


def two_layers(width: int, hidden: int) -> nn.Sequential:
    """Linear, GELU, Linear, back to the same width."""
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class Block(nn.Module):
    """Pre-norm: `across` mixes tokens, then two layers mix channels, each added to what came in. [B, T, D] -> [B, T, D]."""

    def __init__(self, width: int, across: nn.Module):
        super().__init__()
        self.tokens = Residual(nn.Sequential(nn.LayerNorm(width), across))
        self.channels = Residual(nn.Sequential(nn.LayerNorm(width), two_layers(width, 2 * width)))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.channels(self.tokens(tokens))


class Mean(nn.Module):
    """The mean over tokens after a LayerNorm: [B, T, D] -> [B, D]."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.norm(tokens).mean(1)


class Halves(nn.Module):
    """Two linear maps that never meet, one a half: [B, 2, features] -> [B, 2, units]."""

    def __init__(self, features: int, units: int):
        super().__init__()
        self.left, self.right = nn.Linear(features, units), nn.Linear(features, units)

    def forward(self, pair: Tensor) -> Tensor:
        return torch.stack([self.left(pair[:, 0]), self.right(pair[:, 1])], 1)


# The original says only "threw something up" with 2 nodes in the second-to-last layer. These defaults were chosen before any
# score was looked at: ReLU after every wide hidden layer and default initial weights, as in an ordinary first PyTorch network;
# no normalisation or dropout, which would couple examples or add noise; and no nonlinearity on the 2-node bottleneck. A ReLU
# there was tried first, on training alone: in the regime `fixed` both nodes fell silent for every input, for good, in 3 of 8
# MLPs (final R² on x + y 0.00, against 0.92 for the others), where the original reports failures among varying networks only.


@architecture
class MLP(nn.Module):
    """1568-128-64-2-1, the plainest network for 28 x 56 pixels. 209,221 parameters; 209,026 multiply-adds a pair.

    Widths 128 and 64 are the usual ones of MNIST tutorials; every unit of `hidden1` can see both digits.
    """

    def __init__(self):
        super().__init__()
        self.hidden1 = with_relu(nn.Linear(2 * 28 * 28, 128))
        self.hidden2 = with_relu(nn.Linear(128, 64))
        self.bottleneck = nn.Linear(64, 2)
        self.readout = nn.Linear(2, 1)

    def forward(self, pairs: Tensor) -> Tensor:  # [B, 2, 28, 28] -> [B, 1]
        hidden = self.hidden2(self.hidden1(pairs.flatten(1)))
        return self.readout(self.bottleneck(hidden))


@architecture
class CNN(nn.Module):
    """Two strided convolutions and a dense layer. 26,149 parameters; 81,154 multiply-adds a pair.

    `conv1` 8 maps of 5 x 5, stride 3 -> 8 x 18; `conv2` 16 maps of 3 x 3, stride 2 -> 3 x 8; `dense` 64. Strides take the
    place of pooling so that a layer has one nonlinearity, and keep 16 seeds trainable on two cores. Columns of the picture
    seen by column j of conv1: 3j..3j+4 (j = 8 and 9 cross the seam), of conv2: 6j..6j+10 (j = 3 and 4 cross it); dense sees all.
    """

    def __init__(self):
        super().__init__()
        self.conv1 = with_relu(Stem(8, 5, stride=3))
        self.conv2 = with_relu(nn.Conv2d(8, 16, 3, stride=2))
        self.dense = with_relu(nn.Linear(16 * 3 * 8, 64))
        self.bottleneck = nn.Linear(64, 2)
        self.readout = nn.Linear(2, 1)

    def forward(self, pairs: Tensor) -> Tensor:  # [B, 2, 28, 28] -> [B, 1]
        maps = self.conv2(self.conv1(side_by_side(pairs)))
        return self.readout(self.bottleneck(self.dense(maps.flatten(1))))


@architecture
class ResNet(nn.Module):
    """A small residual convnet. 21,549 parameters; 301,122 multiply-adds a pair.

    `stem` 8 maps of 4 x 4, stride 4 -> 7 x 14; `block1` two 3 x 3 convolutions added to their input; `down` 16 maps of 3 x 3,
    stride 2 -> 4 x 7; `block2` as block1; `dense` 32. No normalisation: batch statistics would couple examples. Columns of the
    picture seen by column j of stem: 4j..4j+3 (none crosses the seam), of block1: 4j-8..4j+11 (j = 5 to 8 cross it), of down:
    8j-12..8j+15 (j = 2 to 4); every column of block2 but the first and the last crosses; dense sees all.
    """

    def __init__(self):
        super().__init__()
        self.stem = with_relu(Stem(8, 4, stride=4))
        self.block1 = with_relu(self._two_convolutions(8))
        self.down = with_relu(nn.Conv2d(8, 16, 3, stride=2, padding=1))
        self.block2 = with_relu(self._two_convolutions(16))
        self.dense = with_relu(nn.Linear(16 * 4 * 7, 32))
        self.bottleneck = nn.Linear(32, 2)
        self.readout = nn.Linear(2, 1)

    @staticmethod
    def _two_convolutions(maps: int) -> Residual:
        return Residual(
            nn.Sequential(
                nn.Conv2d(maps, maps, 3, padding=1), nn.ReLU(), nn.Conv2d(maps, maps, 3, padding=1)
            )
        )

    def forward(self, pairs: Tensor) -> Tensor:  # [B, 2, 28, 28] -> [B, 1]
        maps = self.block2(self.down(self.block1(self.stem(side_by_side(pairs)))))
        return self.readout(self.bottleneck(self.dense(maps.flatten(1))))


@architecture
class ViT(nn.Module):
    """A patch transformer. 23,781 parameters; 189,506 multiply-adds a pair.

    `patches` eight 14 x 14 patches -> 8 tokens of 32 channels; `block1` and `block2` self-attention with 2 heads, then two
    layers of width 64, pre-norm, GELU; `mean` over tokens after a LayerNorm. Units of a block are its residual stream, 8 x 32.
    No patch crosses the seam; from block1's attention on, every token can see both digits.
    """

    def __init__(self):
        super().__init__()
        self.patches = Patches(32)
        self.block1 = Block(32, Attention(32, heads=2))
        self.block2 = Block(32, Attention(32, heads=2))
        self.mean = Mean(32)
        self.bottleneck = nn.Linear(32, 2)
        self.readout = nn.Linear(2, 1)

    def forward(self, pairs: Tensor) -> Tensor:  # [B, 2, 28, 28] -> [B, 1]
        return self.readout(
            self.bottleneck(self.mean(self.block2(self.block1(self.patches(pairs)))))
        )


@architecture
class Mixer(nn.Module):
    """An MLP-Mixer: `vit` with two layers across tokens, 8-16-8, for attention. 15,893 parameters; 132,162 multiply-adds a pair.

    Here the digits meet in two small matrices a block, the same for all channels, and nowhere else before the mean: the plainest
    modern network in which one can point at the weights that mix the sides.
    """

    def __init__(self):
        super().__init__()
        self.patches = Patches(32)
        self.block1 = Block(32, OverTokens(two_layers(8, 16)))
        self.block2 = Block(32, OverTokens(two_layers(8, 16)))
        self.mean = Mean(32)
        self.bottleneck = nn.Linear(32, 2)
        self.readout = nn.Linear(2, 1)

    def forward(self, pairs: Tensor) -> Tensor:  # [B, 2, 28, 28] -> [B, 1]
        return self.readout(
            self.bottleneck(self.mean(self.block2(self.block1(self.patches(pairs)))))
        )


@architecture
class Towers(nn.Module):
    """Calibration, fully modular: `mlp` cut into two towers 784-64-32, one a digit, that meet in the bottleneck only.
    104,773 parameters; 104,578 multiply-adds a pair.

    Units of hidden1 and hidden2: first the left tower's half, then the right one's; none sees across the seam, exactly.
    """

    def __init__(self):
        super().__init__()
        self.hidden1 = with_relu(Halves(28 * 28, 64))
        self.hidden2 = with_relu(Halves(64, 32))
        self.bottleneck = nn.Linear(64, 2)
        self.readout = nn.Linear(2, 1)

    def forward(self, pairs: Tensor) -> Tensor:  # [B, 2, 28, 28] -> [B, 1]
        hidden = self.hidden2(self.hidden1(pairs.flatten(-2)))
        return self.readout(self.bottleneck(hidden.flatten(1)))


@architecture
class Summed(nn.Module):
    """Calibration, no sides at all: `mlp` on the pixel sum L + R, 784-128-64-2-1.
    108,869 parameters; 108,674 multiply-adds a pair.

    Exchanging the digits changes nothing, exactly, so every unit serves both sides alike; it cannot learn a·x + b·y for a ≠ b.
    """

    def __init__(self):
        super().__init__()
        self.hidden1 = with_relu(nn.Linear(28 * 28, 128))
        self.hidden2 = with_relu(nn.Linear(128, 64))
        self.bottleneck = nn.Linear(64, 2)
        self.readout = nn.Linear(2, 1)

    def forward(self, pairs: Tensor) -> Tensor:  # [B, 2, 28, 28] -> [B, 1]
        hidden = self.hidden2(self.hidden1((pairs[:, 0] + pairs[:, 1]).flatten(1)))
        return self.readout(self.bottleneck(hidden))


class Across(nn.Linear):
    """A linear map whose weights across the sides count c times: the first half of inputs and of units is the left side's."""

    def __init__(self, inputs: int, units: int, c: float):
        super().__init__(inputs, units)
        self.c = c

    def forward(self, x: Tensor) -> Tensor:
        sides = [torch.arange(n, device=x.device) < n // 2 for n in self.weight.shape[-2:]]
        within = sides[0][:, None] == sides[1]
        return F.linear(x, torch.where(within, self.weight, self.c * self.weight), self.bias)


class Dose(MLP):
    """Calibration, between `towers` (c = 0) and `mlp` (c = 1): `mlp` with its weights across the sides times c, in training
    too. Registered as `dose05`, `dose10`, `dose20` and `dose50`. 209,221 parameters; 209,026 multiply-adds a pair.
    """

    c = 1.0

    def __init__(self):
        super().__init__()
        for layer in (self.hidden1, self.hidden2):
            plain = layer.map
            layer.map = Across(plain.in_features, plain.out_features, self.c)
            layer.map.load_state_dict(plain.state_dict())


for percent in (5, 10, 20, 50):
    architecture(type(f"Dose{percent:02d}", (Dose,), {"c": percent / 100, "__doc__": Dose.__doc__}))
