"""Small modern architectures: residual convolutions, a patch transformer, a mixer.

Letters: B pairs in a batch, T tokens, D channels of a token. Layers give [B, T, D]; inside, and in
memory, tokens come first, [T, B, D]: mixing tokens is then one matrix product.
"""

from collections import OrderedDict
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from modvar_lib.models import Family, Stem, architecture, with_relu


class Residual(nn.Module):
    """x + inner(x), inner: these modules one after the other."""

    def __init__(self, *inner: nn.Module):
        super().__init__()
        self.inner = nn.Sequential(*inner)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


def two_convolutions(maps: int) -> Residual:
    """Two 3 x 3 convolutions of the same size, a ReLU between, added to what came in."""
    first, second = (nn.Conv2d(maps, maps, 3, padding=1) for _ in range(2))
    return Residual(first, nn.ReLU(), second)


def two_layers(width: int, hidden: int, linear: type[nn.Linear] = nn.Linear) -> nn.Sequential:
    """Linear, GELU, Linear, back to the same width."""
    return nn.Sequential(linear(width, hidden), nn.GELU(), linear(hidden, width))


@architecture
class ResNet(Family):
    """A small residual convnet. 21,549 parameters; 301,122 multiply-adds a pair.

    `stem` 8 maps of 4 x 4, stride 4 -> 7 x 14; `block1` two 3 x 3 convolutions added to their
    input; `down` 16 maps of 3 x 3, stride 2 -> 4 x 7; `block2` as block1; `dense` 32. No
    normalisation: batch statistics would couple examples. Column j of stem sees columns 4j..4j+3 of
    the picture (none crosses the seam), of block1 4j-8..4j+11 (j = 5 to 8 cross it), of down
    8j-12..8j+15 (j = 2 to 4); in block2 all cross; dense sees all.
    """

    wide = 32

    @classmethod
    def layers(cls, digits: int = 2, divisor: int = 1) -> Iterator[tuple[str, nn.Module]]:
        few, many = 8 // divisor, 16 // divisor
        yield "stem", with_relu(Stem(few, 4, stride=4))
        yield "block1", with_relu(two_convolutions(few))
        yield "down", with_relu(nn.Conv2d(few, many, 3, stride=2, padding=1))
        yield "block2", with_relu(two_convolutions(many))
        yield "dense", with_relu(nn.Linear(many * 4 * (4, 7)[digits - 1], 32 // divisor), flat=True)


class Patches(nn.Module):
    """The 14 x 14 quarters of each digit, each mapped to D numbers, plus a learned position: [B,
    digits, 28, 28] -> [B, T, D]. Of a pair, tokens 0 to 3 are the left digit's."""

    def __init__(self, width: int, tokens: int = 8):
        super().__init__()
        self.map = nn.Linear(14 * 14, width)
        self.position = nn.Parameter(0.02 * torch.randn(tokens, width))

    def forward(self, pairs: Tensor) -> Tensor:
        tiles = pairs.unflatten(-1, (2, 14)).unflatten(-3, (2, 14))  # [B, digits, 2, 14, 2, 14]
        tiles = tiles.permute(1, 2, 4, 0, 3, 5).reshape(len(self.position), -1, 14 * 14)
        return (self.map(tiles) + self.position.unsqueeze(1)).transpose(0, 1)


class Attention(nn.Module):
    """Multi-head self-attention: [T, B, D] -> [T, B, D]. Written out: vmap has no rule for
    PyTorch's own, and a softmax over few keys is slow along the last dimension."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        heads = self.qkv(tokens).unflatten(-1, (3, self.heads, -1))
        q, k, v = heads.permute(2, 1, 3, 0, 4)  # [B, heads, T, D / heads] each
        weights = (k @ q.mT * q.shape[-1] ** -0.5).softmax(-2)  # [B, heads, keys, queries]
        return self.out((weights.mT @ v).permute(2, 0, 1, 3).flatten(-2))


class OverTokens(nn.Linear):
    """A linear map across tokens, the same for every channel: [T, B, D] -> [units, B, D]."""

    def forward(self, input: Tensor) -> Tensor:
        mixed = self.weight @ input.flatten(1) + self.bias.unsqueeze(1)
        return mixed.unflatten(1, input.shape[1:])


class Block(nn.Module):
    """Pre-norm: `across` mixes tokens, then two layers mix channels, each added to what came in:
    [B, T, D] -> [B, T, D]."""

    def __init__(self, width: int, across: nn.Module):
        super().__init__()
        self.tokens = Residual(nn.LayerNorm(width), across)
        self.channels = Residual(nn.LayerNorm(width), two_layers(width, 2 * width))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.channels(self.tokens(tokens.transpose(0, 1))).transpose(0, 1)


class Mean(nn.Module):
    """The mean over tokens after a LayerNorm: [B, T, D] -> [B, D]."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.norm(tokens.transpose(0, 1)).mean(0)


@architecture
class ViT(Family):
    """A patch transformer. 23,781 parameters; 189,506 multiply-adds a pair.

    `patches` eight 14 x 14 patches -> 8 tokens of 32 channels; `block1` and `block2` self-attention
    with 2 heads, then two layers of width 64, pre-norm, GELU; `mean` over tokens after a LayerNorm.
    Units of a block are its residual stream, 8 x 32. From block1 on, every token sees both digits.
    """

    wide = 32

    @classmethod
    def layers(cls, digits: int = 2, divisor: int = 1) -> Iterator[tuple[str, nn.Module]]:
        width, tokens = 32 // divisor, 4 * digits
        yield "patches", Patches(width, tokens)
        yield "block1", Block(width, cls.across(width, tokens))
        yield "block2", Block(width, cls.across(width, tokens))
        yield "mean", Mean(width)

    @staticmethod
    def across(width: int, tokens: int) -> nn.Module:  # what mixes tokens
        return Attention(width, heads=width // 16)


@architecture
class Mixer(ViT):
    """An MLP-Mixer: `vit` with two layers across tokens, 8-16-8, for attention. 15,893 parameters;
    132,162 multiply-adds a pair. Before the mean the digits meet in two small matrices per block
    only, the same for all channels.
    """

    @staticmethod
    def across(width: int, tokens: int) -> nn.Module:
        return nn.Sequential(OrderedDict(inner=two_layers(tokens, 2 * tokens, OverTokens)))
