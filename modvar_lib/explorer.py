"""What the explorer shows: networks and digits, packed for a browser; book/explorer.js does the
rest."""

from base64 import b64encode
from itertools import pairwise
from math import isnan

import anywidget
import torch
import traitlets
from torch import Tensor, nn

from modvar_lib import data
from modvar_lib.errors import InputError
from modvar_lib.metrics import effect_selectivity
from modvar_lib.metrics.subject import PIXELS, Subject
from modvar_lib.metrics.weights import affine_map
from modvar_lib.runs import Run

SCRIPT = data.ROOT / "book" / "explorer.js"
EXAMPLES, DRAWS, MOST = (
    3,
    1000,
    300_000,
)  # pictures per digit; draws that say which digit a unit serves; weights of a layer


class Explorer(anywidget.AnyWidget):
    """The explorer in a notebook. data: see `packed`."""

    _esm = SCRIPT
    data = traitlets.Dict().tag(sync=True)

    def __repr__(self) -> str:
        return "The explorer, which needs Jupyter: " + "; ".join(
            network["name"] for network in self.data["networks"]
        )


def packed(networks: list[tuple[Run, int | None]]) -> dict:
    """Networks whose layers are matrices, each with how many epochs are done (None: all), and a few
    held-out digits, as book/explorer.js takes them. One line of error when there is no such
    network."""
    _, digits = data.digits(networks[0][0].settings.dataset)
    shown = [one for one in (_network(run, done, digits) for run, done in networks) if one]
    if not shown:
        raise InputError(
            "networks: none has layers that are matrices; allowed: networks such as mlp and towers"
        )
    rows = torch.cat([torch.where(digits.labels == digit)[0][:EXAMPLES] for digit in range(10)])
    return {
        "digits": {"pixels": _text(digits.images[rows]), "labels": digits.labels[rows].tolist()},
        "networks": shown,
    }


def _network(run: Run, done: int | None, digits: data.Digits) -> dict | None:
    model, seed, layers, before = run.network(done), run.settings.seed, [], PIXELS
    draws = torch.from_numpy(data.evaluation_pairs(seed, DRAWS, len(digits)))
    subject = Subject(model, (digits, digits), draws, seed)
    widths = [2 * 28 * 28, *(len(parts.mean) for parts in subject.anova.values())]
    if max(inputs * units for inputs, units in pairwise(widths)) > MOST:
        return None
    for name, module in model.named_children():
        affine, relu = (
            affine_map(model, before, name),
            isinstance(module, nn.Sequential) and isinstance(module[-1], nn.ReLU),
        )
        if not affine or not (relu or isinstance(module, nn.Linear)):
            return None
        parts = subject.anova[name]
        balance = (
            (127 * (parts.left - parts.right) / parts.total).nan_to_num().round().to(torch.int8)
        )
        numbers = {"weights": affine[0].half(), "bias": affine[1].half(), "balance": balance}
        layers.append(
            {
                "name": name,
                "units": len(balance),
                "relu": relu,
                **{k: _text(v) for k, v in numbers.items()},
            }
        )
        before = name
    value, chance = (
        row["value"]
        for row in effect_selectivity.rows(subject)
        if row["layer"] == subject.layers[-3]
    )
    arm = run.path.parent.name.removeprefix(f"{run.settings.dataset}-").replace("-", " ")
    when = "" if done is None else f", after {done} epochs"
    selectivity = None if isnan(value - chance) else value - chance
    return {"name": f"{arm}, seed {seed}{when}", "selectivity": selectivity, "layers": layers}


def _text(tensor: Tensor) -> str:
    return b64encode(tensor.contiguous().numpy().tobytes()).decode()
