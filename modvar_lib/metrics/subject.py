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

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, islice
from math import isnan

import torch
from torch import Tensor, nn

from modvar_lib import data, models
from modvar_lib.errors import InputError, lookup

FOUR = [0, 1], [2, 1], [0, 3], [2, 3]  # columns of a draw: its four pairs
MIRRORED = [1, 0, 3, 2]  # left for right
CHUNK = 1000  # draws at a time
PIXELS = "pixels"  # what comes before the first layer
NOTHING_VARIES, NOT_AFFINE = "nothing varies in this layer", "not an affine map of the layer before"
NO_EFFECT = "the output does not depend on this layer"
NO_UNIT, ONE_SIDE = "no unit serves this side", "no unit serves one of the sides"


@dataclass(frozen=True)
class Property:
    """What a measure declares, and tests hold it to. low, high: bounds. invariant: to `permutation`
    of a layer's units, `rescaling` of ReLU units, `rotation` of a layer (each undone in the next
    layer), `swap` of the sides. modular: 1 if more is so, -1 if less, 0 if it does not say."""

    low: float
    high: float
    invariant: tuple[str, ...]
    modular: int = 0


@dataclass(frozen=True)
class Anova:
    """Of one layer, [U] each, float64: variances (estimates below 0 are clipped), means, E h²."""

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
    """A network and what it is measured on. splits: training and test digits; draws: [N, 4] rows of
    the test digits; seed: of the random choices that measures make. `first`: of the first 1,000
    draws and their mirrors, for measures that need no more."""

    network: nn.Module
    splits: tuple[data.Digits, data.Digits]
    draws: Tensor
    seed: int = 0

    def __post_init__(self):
        if not all(p.isfinite().all() for p in self.network.parameters()):
            raise InputError("network: got weights that are not finite; allowed: finite weights")

    @property
    def digits(self) -> data.Digits:
        """The test digits."""
        return self.splits[1]

    @torch.no_grad()
    def taps(self, pairs: Tensor, digits: data.Digits | None = None) -> dict[str, dict]:
        """{"pre" | "post" the nonlinearity: {layer: [..., U]}} for rows (left, right), [..., 2], of
        test digits, or of others."""
        pictures = data.halves((digits or self.digits).images, pairs.flatten(0, -2))
        _, seen = models.activations(self.network, pictures)
        found = {"pre": {}, "post": {}}
        for (layer, when), h in seen.items():
            found[when][layer] = h.unflatten(0, pairs.shape[:-1])
        return found

    def activations(self, pairs: Tensor, digits: data.Digits | None = None) -> dict[str, Tensor]:
        """{layer: [..., U]}: `taps` after the nonlinearity."""
        return self.taps(pairs, digits)["post"]

    @cached_property
    def first_pairs(self) -> Tensor:
        """[4, n, 2] rows of the four pairs."""
        return next(quadruples(self.draws))

    @cached_property
    def first_taps(self) -> dict[str, dict]:
        """{"pre" | "post": {layer: [4, n, U]}}."""
        return self.taps(self.first_pairs)

    @property
    def first(self) -> dict[str, Tensor]:
        """{layer: [4, n, U]} after the nonlinearity."""
        return self.first_taps["post"]

    @cached_property
    def first_anova(self) -> dict[str, Anova]:
        return anova([self.first])

    @cached_property
    def anova(self) -> dict[str, Anova]:
        """Of every layer, over all draws."""
        others = islice(quadruples(self.draws), 1, None)
        return anova(chain([self.first], map(self.activations, others)))

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        """E of the gradient ∂output/∂h times its transpose, over the first draws and summed over
        outputs: {layer: [U, U]}, float64, all but the readout."""
        tapped: dict[str, Tensor] = {}
        moments = {layer: torch.zeros(()) for layer in self.layers[:-1]}

        def tap(layer: str, h: Tensor) -> Tensor:  # the activations that gradients are taken of
            tapped[layer] = h.requires_grad_()
            return h

        with torch.enable_grad(), ExitStack() as stack:
            for layer in moments:
                patch = models.patch_activations(self.network, layer, partial(tap, layer))
                stack.enter_context(patch)
            for pairs in self.first_pairs:
                for output in self.network(data.halves(self.digits.images, pairs)).sum(0):
                    found = torch.autograd.grad(
                        output, tuple(tapped.values()), retain_graph=True, materialize_grads=True
                    )
                    for layer, gradient in zip(tapped, found):
                        moments[layer] = moments[layer] + gradient.double().T @ gradient.double()
        count = self.first_pairs[..., 0].numel()
        return {layer: total / count for layer, total in moments.items()}

    def undefined(self, layer: str) -> str:
        """Why nothing can be said of two sides in a layer; empty where something can."""
        parts, weight = self.first_anova[layer], self.gradients[layer].diagonal()
        if not parts.total.sum() > 1e-10 * parts.energy.sum():
            return NOTHING_VARIES
        served = (side + parts.interaction for side in (parts.left, parts.right))
        least, most = sorted(float((weight * side).sum()) for side in served)
        if not most > 0:
            return NO_EFFECT
        return "" if least > 1e-6 * most else "the layer ignores a side"

    @property
    def layers(self) -> list[str]:
        return list(self.first)

    def sides(self, layer: str) -> dict[str, Tensor]:
        """`Anova.sides` of a layer."""
        return lookup(self.anova, "layer", layer).sides

    def generator(self) -> torch.Generator:
        """A fresh random stream of the measures' own."""
        return torch.Generator().manual_seed(self.seed)


def quadruples(draws: Tensor, chunk: int = CHUNK) -> Iterator[Tensor]:
    """Rows (left, right) of the four pairs, [4, n, 2], of draws [N, 4] and their mirrors, so many
    draws at a time."""
    for part in draws.split(chunk):
        both = torch.cat([part, part[:, MIRRORED]])
        yield torch.stack([both[:, columns] for columns in FOUR])


def anova(parts: Iterable[dict[str, Tensor]]) -> dict[str, Anova]:
    """Of every layer, from {layer: activations on the four pairs, [4, n, U]} of some draws each."""
    sums, count = {}, 0
    for part in parts:
        for layer, four in part.items():
            a, b, c, d = four.double()
            differences = (a - b) ** 2, (a - c) ** 2, (a - b - c + d) ** 2
            terms = *differences, a + b + c + d, a**2 + b**2 + c**2 + d**2
            sums[layer] = sums.get(layer, 0) + torch.stack([term.sum(0) for term in terms])
        count += four.shape[1]
    table, by = {}, count * torch.tensor([2, 2, 4, 4, 4]).unsqueeze(1)
    for layer, moments in sums.items():
        t_left, t_right, interaction, mean, energy = moments / by
        left, right = (t_left - interaction).clamp(min=0), (t_right - interaction).clamp(min=0)
        table[layer] = Anova(left, right, interaction, mean, energy)
    return table


def second_moments(four: Tensor) -> list[Tensor]:
    """n times the [U, U] matrices of which T_L, T_R and V_I are the diagonals, of activations [4,
    n, U]."""
    a, b, c, d = four
    return [x.T @ x / by for x, by in ((a - b, 2), (a - c, 2), (a - b - c + d, 4))]


def tidy(layer: str, values: dict[str, float], undefined: str, side: str = "both") -> list[dict]:
    """A row for each {measure: value}; those that are NaN say why: `undefined`."""
    row = {"layer": layer, "side": side}
    return [
        {**row, "measure": name, "value": v, "note": undefined if isnan(v) else ""}
        for name, v in values.items()
    ]


def sided(layer: str, values: Mapping[str, Sequence[float]], undefined: str = "") -> list[dict]:
    """For each {measure: (left, right)} a row of each side, and of `both`, their mean."""
    return [
        row
        for measure, (left, right) in values.items()
        for side, value in {"left": left, "right": right, "both": (left + right) / 2}.items()
        for row in tidy(layer, {measure: value}, undefined, side)
    ]
