"""Architectures whose modularity is known by construction: two towers, no sides at all, and doses in between."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modvar_lib.models import MLP, architecture, with_relu


class Halves(nn.Module):
    """Two linear maps that never meet, one per half: [B, 2 * features] -> [B, 2 * units]."""

    def __init__(self, features: int, units: int):
        super().__init__()
        self.left, self.right = nn.Linear(features, units), nn.Linear(features, units)

    def forward(self, pair: Tensor) -> Tensor:
        left, right = pair.chunk(2, -1)
        return torch.cat([self.left(left), self.right(right)], -1)


@architecture
class Towers(nn.Module):
    """Calibration, fully modular: `mlp` cut into two towers 784-64-32, one per digit, that meet in the bottleneck only. 104,773
    parameters; 104,578 multiply-adds a pair.

    Units of hidden1 and hidden2: first the left tower's half, then the right one's; none sees across the seam, exactly.
    """

    def __init__(self):
        super().__init__()
        self.hidden1, self.hidden2 = with_relu(Halves(28 * 28, 64)), with_relu(Halves(64, 32))
        self.bottleneck, self.readout = nn.Linear(64, 2), nn.Linear(2, 1)

    def forward(self, pairs: Tensor) -> Tensor:  # [B, 2, 28, 28] -> [B, 1]
        return self.readout(self.bottleneck(self.hidden2(self.hidden1(pairs.flatten(1)))))


@architecture
class Summed(nn.Module):
    """Calibration, no sides at all: `mlp` on the pixel sum L + R, 784-128-64-2-1. 108,869 parameters; 108,674 multiply-adds a
    pair.

    Exchanging the digits changes nothing, exactly: every unit serves both sides alike. It cannot learn a·x + b·y, a ≠ b.
    """

    def __init__(self):
        super().__init__()
        self.hidden1, self.hidden2 = with_relu(nn.Linear(28 * 28, 128)), with_relu(nn.Linear(128, 64))
        self.bottleneck, self.readout = nn.Linear(64, 2), nn.Linear(2, 1)

    def forward(self, pairs: Tensor) -> Tensor:  # [B, 2, 28, 28] -> [B, 1]
        return self.readout(self.bottleneck(self.hidden2(self.hidden1((pairs[:, 0] + pairs[:, 1]).flatten(1)))))


class Across(nn.Linear):
    """A linear map whose weights across the sides count c times: the first half of inputs and units is the left's."""

    def __init__(self, inputs: int, units: int, c: float):
        super().__init__(inputs, units)
        self.c = c

    def forward(self, x: Tensor) -> Tensor:
        unit_left, input_left = (torch.arange(n, device=x.device) < n // 2 for n in self.weight.shape[-2:])
        within = unit_left[:, None] == input_left
        return F.linear(x, torch.where(within, self.weight, self.c * self.weight), self.bias)


class Dose(MLP):
    """Calibration, between `towers` (c = 0) and `mlp` (c = 1): `mlp` with its weights across the sides times c, in training too.
    Registered as `dose05`, `dose10`, `dose20` and `dose50`. 209,221 parameters; 209,026 multiply-adds a pair."""

    c = 1.0

    def __init__(self):
        super().__init__()
        for layer in (self.hidden1, self.hidden2):
            plain = layer.map
            layer.map = Across(plain.in_features, plain.out_features, self.c)
            layer.map.load_state_dict(plain.state_dict())


for percent in (5, 10, 20, 50):
    architecture(type(f"Dose{percent:02d}", (Dose,), {"c": percent / 100, "__doc__": Dose.__doc__}))
