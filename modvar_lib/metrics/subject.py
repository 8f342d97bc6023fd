"""What is measured: a network, held-out pairs, and the quantities that several measures share, each computed once.

Letters: N draws, U units of a layer. A draw is four rows of the test split (L, R, L', R'): two left and two right digits,
independent, that make the four pairs (L, R), (L', R), (L, R'), (L', R').

The functional ANOVA (Sobol, Hoeffding) splits every unit, h = mean + f(L) + g(R) + i(L, R), into uncorrelated parts of variance
V_L, V_R and V_I. With a, b, c, d the activations on the four pairs: T_L = E(a - b)² / 2 = V_L + V_I, T_R = E(a - c)² / 2
= V_R + V_I, V_I = E(a - b - c + d)² / 4. Every draw is used a second time mirrored, left for right, so that a
network with its sides swapped has the same measures, exactly, and one that cannot tell its sides has V_L = V_R.
Source: Saltelli et al., Computer Physics Communications 181 (2010), doi:10.1016/j.cpc.2009.09.018 (estimators).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from modvar_lib import data, models
from modvar_lib.errors import InputError

FOUR = ([0, 1], [2, 1], [0, 3], [2, 3])  # columns of a draw that make its four pairs
MIRRORED = [1, 0, 3, 2]
CHUNK = 1000  # draws at a time


@dataclass(frozen=True)
class Anova:
    """Of one layer, [U] each, float64: variances (0 or more; single estimates below 0 are clipped), means, and E h²."""

    left: Tensor
    right: Tensor
    interaction: Tensor
    mean: Tensor
    energy: Tensor

    @property
    def total(self) -> Tensor:
        return self.left + self.right + self.interaction


@dataclass(frozen=True)
class Subject:
    """A network and what it is measured on. images, labels: of the test split; draws: [N, 4] rows of it; seed: of the random
    choices that measures make (shuffles, rotations, random sets).

    >>> _, test_digits = data.digits()
    >>> draws = torch.from_numpy(data.evaluation_pairs(0, 100, len(test_digits)))
    >>> subject = Subject(models.initial("towers", seed=0), test_digits, draws)
    >>> subject.layers
    ['hidden1', 'hidden2', 'bottleneck', 'readout']
    >>> {side: int(units.sum()) for side, units in subject.sides("hidden2").items()}
    {'left': 31, 'right': 32}
    """

    network: nn.Module
    digits: data.Digits
    draws: Tensor
    seed: int = 0
    memory: dict = field(default_factory=dict, repr=False)

    def __post_init__(self):
        if not all(p.isfinite().all() for p in self.network.parameters()):
            raise InputError("network: got weights that are not finite; allowed: finite weights")

    def activations(self, pairs: Tensor) -> dict[str, Tensor]:
        """{layer: [n, U]} after the nonlinearity, for [n, 2] rows (left, right)."""
        _, seen = models.activations(self.network, data.halves(self.digits.images, pairs))
        return {layer: value for (layer, when), value in seen.items() if when == "post"}

    def quadruples(self, count: int | None = None) -> Iterator[Tensor]:
        """Rows (left, right) of the four pairs, [4, n, 2], of the first `count` draws and their mirror images, in chunks."""
        for part in self.draws[:count].split(CHUNK):
            both = torch.cat([part, part[:, MIRRORED]])
            yield torch.stack([both[:, columns] for columns in FOUR])

    @cached_property
    def anova(self) -> dict[str, Anova]:
        """Of every layer."""
        return anova(
            {k: v.unflatten(0, (4, -1)) for k, v in self.activations(four.flatten(0, 1)).items()}
            for four in self.quadruples()
        )

    @property
    def layers(self) -> list[str]:
        return list(self.anova)

    def sides(self, layer: str) -> dict[str, Tensor]:
        """{"left": [U] bool, "right": [U] bool}: the side that each unit serves more, V_L > V_R or V_R > V_L. A unit that is
        silent, or the same for both to rounding, serves none."""
        if layer not in self.anova:
            raise InputError(f"layer: got {layer!r}; allowed: {', '.join(self.anova)}")
        return sides(self.anova[layer])

    def generator(self) -> torch.Generator:
        """A fresh random stream of the measures' own."""
        return torch.Generator().manual_seed(self.seed)


def anova(parts) -> dict[str, Anova]:
    """Of every layer, from an iterable of {layer: activations on the four pairs, [4, n, U]}."""
    sums, count = {}, 0
    for part in parts:
        for layer, four in part.items():
            a, b, c, d = four.double()
            found = torch.stack(
                [
                    ((a - b) ** 2).sum(0) / 2,
                    ((a - c) ** 2).sum(0) / 2,
                    ((a - b - c + d) ** 2).sum(0) / 4,
                    (a + b + c + d).sum(0) / 4,
                    (a**2 + b**2 + c**2 + d**2).sum(0) / 4,
                ]
            )
            sums[layer] = sums[layer] + found if layer in sums else found
        count += four.shape[1]
    table = {}
    for layer, found in sums.items():
        t_left, t_right, interaction, mean, energy = found / count
        table[layer] = Anova(
            (t_left - interaction).clamp(min=0),
            (t_right - interaction).clamp(min=0),
            interaction,
            mean,
            energy,
        )
    return table


def tidy(layer: str, values: dict[str, float], undefined: str, side: str = "both") -> list[dict]:
    """A row for each {measure: value}; those that are NaN say why: `undefined`.

    >>> tidy("hidden1", {"silent": float("nan")}, "no unit")
    [{'layer': 'hidden1', 'side': 'both', 'measure': 'silent', 'value': nan, 'note': 'no unit'}]
    """
    return [
        {
            "layer": layer,
            "side": side,
            "measure": measure,
            "value": value,
            "note": "" if value == value else undefined,
        }
        for measure, value in values.items()
    ]


def sides(found: Anova) -> dict[str, Tensor]:
    """As `Subject.sides`, of any layer's ANOVA."""
    lead, least = found.left - found.right, 1e-5 * found.total
    return {"left": lead > least, "right": -lead > least}
