"""Architectures whose modularity is known by construction: of each family two towers and no sides
at all; of `mlp`, doses in between."""

from collections import OrderedDict
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modvar_lib.architectures.modern import Mixer, ResNet, ViT
from modvar_lib.models import CNN, MLP, Family, architecture, with_relu


class Sides(nn.Module):
    """Two modules that never meet: the first half of the digits, channels, tokens or units is the
    left one's, [B, 2 n, ...]."""

    def __init__(self, left: nn.Module, right: nn.Module):
        super().__init__()
        self.left, self.right = left, right

    def forward(self, pair: Tensor) -> Tensor:
        left, right = pair.chunk(2, 1)
        return torch.cat([self.left(left), self.right(right)], 1)


class Towers(Family):
    """Fully modular: two networks of a family, one per digit, each half as wide, that meet in the
    bottleneck only. `towers` are of `mlp`, 784-64-32 each; then `cnn_towers`, and so on. The left
    tower's units come first."""

    family: type[Family]

    @classmethod
    def layers(cls, digits: int = 2, divisor: int = 1) -> Iterator[tuple[str, nn.Module]]:
        towers = (cls.family.layers(digits=1, divisor=2 * divisor) for _ in range(2))
        for (name, left), (_, right) in zip(*towers):
            if isinstance(left, nn.Sequential):  # its last module is the nonlinearity
                sides = OrderedDict(map=Sides(left[:-1], right[:-1]), relu=left[-1])
                yield name, nn.Sequential(sides)
            else:
                yield name, Sides(left, right)


class Summed(Family):
    """No sides at all: a network of a family on the pixel sum L + R, so that every unit serves both
    alike, exactly. `summed` is of `mlp`, then `cnn_summed`, and so on."""

    family: type[Family]

    def __init__(self):
        super().__init__()
        self[0].register_forward_pre_hook(lambda _, pairs: pairs[0].sum(1, keepdim=True))

    @classmethod
    def layers(cls, digits: int = 2, divisor: int = 1) -> Iterator[tuple[str, nn.Module]]:
        return cls.family.layers(1, divisor)


for family in (MLP, CNN, ResNet, ViT, Mixer):
    for ruler in (Towers, Summed):
        title = ruler.__name__ if family is MLP else f"{family.__name__}_{ruler.__name__}"
        values = {"family": family, "wide": family.wide, "__doc__": ruler.__doc__}
        architecture(type(title, (ruler,), values))


class Across(nn.Linear):
    """A linear map whose weights across the sides count c times: the first half of inputs and units
    is the left's."""

    def __init__(self, inputs: int, units: int, c: float):
        super().__init__(inputs, units)
        self.c = c

    def forward(self, input: Tensor) -> Tensor:
        unit_left, input_left = (
            torch.arange(n, device=input.device) < n // 2 for n in self.weight.shape[-2:]
        )
        within = unit_left[:, None] == input_left
        return F.linear(input, torch.where(within, self.weight, self.c * self.weight), self.bias)


class Dose(MLP):
    """Between `towers` (c = 0) and `mlp` (c = 1): `mlp` with its weights across the sides times c,
    in training too. Registered as `dose05`, `dose10`, `dose20` and `dose50`. 209,221 parameters;
    209,026 multiply-adds a pair."""

    c = 1.0

    @classmethod
    def layers(cls, digits: int = 2, divisor: int = 1) -> Iterator[tuple[str, nn.Module]]:
        yield "hidden1", with_relu(Across(digits * 784, 128 // divisor, cls.c), flat=True)
        yield "hidden2", with_relu(Across(128 // divisor, 64 // divisor, cls.c))


for percent in (5, 10, 20, 50):
    architecture(type(f"Dose{percent:02d}", (Dose,), {"c": percent / 100, "__doc__": Dose.__doc__}))
