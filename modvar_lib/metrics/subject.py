"""What is measured: a network, held-out pairs, and the quantities that several measures share, each
computed once.

Letters: N draws, U units of a layer. A draw is four rows of the test split (L, R, L', R'): two left
and two right digits, independent, that make the four pairs (L, R), (L', R), (L, R'), (L', R').

The functional ANOVA (Sobol, Hoeffding) splits every unit, h = mean + f(L) + g(R) + i(L, R), into
uncorrelated parts of variance V_L, V_R and V_I. With a, b, c, d the activations on the four pairs:
T_L = E(a - b)² / 2 = V_L + V_I, T_R = E(a - c)² / 2 = V_R + V_I, V_I = E(a - b - c + d)² / 4. Every
draw is used a second time mirrored, left for right: a network with its sides swapped has the same
measures, exactly, and one that cannot tell its sides has V_L = V_R. Source: Saltelli et al.,
Computer Physics Communications 181 (2010), doi:10.1016/j.cpc.2009.09.018 (estimators).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import isnan

import torch
from torch import Tensor, nn

from modvar_lib import data, models
from modvar_lib.calibration import haar  # noqa: F401 (for measures)
from modvar_lib.errors import InputError, lookup

FOUR = [0, 1], [2, 1], [0, 3], [2, 3]  # columns of a draw: its four pairs
MIRRORED = [1, 0, 3, 2]  # left for right
CHUNK, INF = 1000, float("inf")  # draws at a time; a bound
PIXELS = "pixels"  # what comes before the first layer
NOTHING_VARIES, NOT_AFFINE = "nothing varies in this layer", "not an affine map of the layer before"
NO_UNIT, ONE_SIDE = "no unit serves this side", "no unit serves one of the sides"


@dataclass(frozen=True)
class Property:
    """What a measure declares, and the tests hold it to. low, high: bounds. modular: 1 if more is
    so, -1 if less, 0 if it does not say. invariant: to `permutation` of a layer's units,
    `rescaling` of ReLU units, `rotation` of a layer (each undone in the next layer), `swap` of the
    sides (`left` and `right` trade places)."""

    low: float
    high: float
    invariant: tuple[str, ...]
    modular: int = 0


@dataclass(frozen=True)
class Anova:
    """Of one layer, [U] each, float64: variances (0 or more; single estimates below 0 are clipped),
    means, and E h²."""

    left: Tensor
    right: Tensor
    interaction: Tensor
    mean: Tensor
    energy: Tensor

    @property
    def total(self) -> Tensor:
        return self.left + self.right + self.interaction

    @property
    def selectivity(self) -> float:
        """Σ|V_L - V_R| / ΣV over units, 0 to 1; NaN where nothing varies."""
        return float((self.left - self.right).abs().sum() / self.total.sum())

    @property
    def sides(self) -> dict[str, Tensor]:
        """{"left": [U] bool, "right": [U] bool}: units with V_L > V_R, or V_R > V_L, by more than
        rounding."""
        lead, least = self.left - self.right, 1e-5 * self.total
        return {"left": lead > least, "right": -lead > least}


@dataclass(frozen=True)
class Subject:
    """A network and what it is measured on. digits: the test split; draws: [N, 4] rows of it; seed:
    of the random choices that measures make (shuffles, rotations, random sets)."""

    network: nn.Module
    digits: data.Digits
    draws: Tensor
    seed: int = 0

    def __post_init__(self):
        if not all(p.isfinite().all() for p in self.network.parameters()):
            raise InputError("network: got weights that are not finite; allowed: finite weights")

    @torch.no_grad()
    def activations(self, pairs: Tensor) -> dict[str, Tensor]:
        """{layer: [..., U]} after the nonlinearity, for rows (left, right) of the digits, [...,
        2]."""
        _, seen = models.activations(
            self.network, data.halves(self.digits.images, pairs.flatten(0, -2))
        )
        return {
            layer: h.unflatten(0, pairs.shape[:-1])
            for (layer, when), h in seen.items()
            if when == "post"
        }

    def quadruples(self, count: int | None = None) -> Iterator[Tensor]:
        """Rows (left, right) of the four pairs, [4, n, 2], of the first `count` draws and their
        mirrors, in chunks."""
        for part in self.draws[:count].split(CHUNK):
            both = torch.cat([part, part[:, MIRRORED]])
            yield torch.stack([both[:, columns] for columns in FOUR])

    @cached_property
    def first(self) -> dict[str, Tensor]:
        """{layer: [4, n, U]} on the first chunk of quadruples, for measures that need no more draws
        than that."""
        return self.activations(next(self.quadruples()))

    @cached_property
    def anova(self) -> dict[str, Anova]:
        """Of every layer, over all draws."""
        return anova(
            self.activations(four) if i else self.first for i, four in enumerate(self.quadruples())
        )

    @property
    def layers(self) -> list[str]:
        return list(self.first)

    def sides(self, layer: str) -> dict[str, Tensor]:
        """`Anova.sides` of a layer."""
        return lookup(self.anova, "layer", layer).sides

    def generator(self) -> torch.Generator:
        """A fresh random stream of the measures' own."""
        return torch.Generator().manual_seed(self.seed)


def anova(parts: Iterable[dict[str, Tensor]]) -> dict[str, Anova]:
    """Of every layer, from an iterable of {layer: activations on the four pairs, [4, n, U]}."""
    sums, count = {}, 0
    for part in parts:
        for layer, four in part.items():
            a, b, c, d = four.double()
            terms = (
                (a - b) ** 2,
                (a - c) ** 2,
                (a - b - c + d) ** 2,
                a + b + c + d,
                a**2 + b**2 + c**2 + d**2,
            )
            sums[layer] = sums.get(layer, 0) + torch.stack([term.sum(0) for term in terms])
        count += four.shape[1]
    table, by = {}, count * torch.tensor([2, 2, 4, 4, 4]).unsqueeze(1)
    for layer, moments in sums.items():
        t_left, t_right, interaction, mean, energy = moments / by
        left, right = (t_left - interaction).clamp(min=0), (t_right - interaction).clamp(min=0)
        table[layer] = Anova(left, right, interaction, mean, energy)
    return table


def tidy(layer: str, values: dict[str, float], undefined: str, side: str = "both") -> list[dict]:
    """A row for each {measure: value}; those that are NaN say why: `undefined`."""
    row = {"layer": layer, "side": side}
    return [
        {**row, "measure": name, "value": v, "note": undefined if isnan(v) else ""}
        for name, v in values.items()
    ]


def sided(layer: str, values: dict[str, tuple[float, float]], undefined: str = "") -> list[dict]:
    """For each {measure: (left, right)} a row of each side, and of `both`, their mean; those that
    are NaN say why."""
    return [
        row
        for measure, (left, right) in values.items()
        for side, value in {"left": left, "right": right, "both": (left + right) / 2}.items()
        for row in tidy(layer, {measure: value}, undefined, side)
    ]
