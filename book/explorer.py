"""What the explorer shows: networks and digits, packed for a browser; explorer.js does the rest."""

from base64 import b64encode
from math import isnan
from pathlib import Path

import anywidget
import torch
import traitlets
from torch import Tensor, nn

from modvar_lib import data, models, runs
from modvar_lib.errors import InputError
from modvar_lib.metrics import effect_selectivity
from modvar_lib.metrics.subject import PIXELS, Subject
from modvar_lib.metrics.weights import affine_map
from modvar_lib.runs import Run

SCRIPT = Path(__file__).with_name("explorer.js")
EXAMPLES, DRAWS = 3, 1000  # pictures per digit; draws that say which digit a unit serves
ARMS = 24  # at most: of a study
WEIGHTS, UNITS = 300_000, 1000  # at most: of a layer; of a network whose layers are not matrices


class Explorer(anywidget.AnyWidget):
    """The explorer in a notebook. data: see `packed`."""

    _esm = SCRIPT
    data = traitlets.Dict().tag(sync=True)

    def __repr__(self) -> str:
        return "The explorer, which needs Jupyter: " + "; ".join(
            network["name"] for network in self.data["networks"]
        )


def networks(study: str) -> list[Run]:
    """Of each arm of a study, for its first data set, the first network on this disk: of `runs/`,
    or else of the weights that are published with its groups. One line of error if there is
    none."""
    first = {}
    for path in sorted((runs.study_folder(study) / "runs").glob("*/seed-*")):
        if path.parent.name not in first:
            first[path.parent.name] = runs.load(path, study)
    for run in runs.published(study):
        first.setdefault(run.settings.arm, run)
    if not first:
        runs.paths(study)  # says so
    found = [first[arm] for arm in sorted(first)]
    return [run for run in found if run.settings.dataset == found[0].settings.dataset][:ARMS]


def packed(networks: list[tuple[Run, int | None]]) -> dict:
    """Networks, each with how many epochs are done (None: all), and a few held-out digits, as
    explorer.js takes them. Where layers are matrices, it gets weights; else the activations for
    every pair of ten digits. Left out are networks with too many units, with weights that are not
    finite, or trained on other pictures than the first. One line of error if none is left."""
    dataset = networks[0][0].settings.dataset if networks else "MNIST"
    _, digits = data.digits(dataset)
    rows = [torch.where(digits.labels == digit)[0][:EXAMPLES] for digit in range(10)]
    examples = torch.stack([row[0] for row in rows])
    packs = (
        _network(run, run.network(done), done, digits, examples)
        for run, done in networks
        if run.settings.dataset == dataset
    )
    shown = [one for one in packs if one]
    if not shown:
        raise InputError(
            "networks: none is small enough to be shown; "
            "allowed: networks such as mlp, towers and vit, with finite weights"
        )
    rows = torch.cat(rows)
    return {
        "digits": {"pixels": _text(digits.images[rows]), "labels": digits.labels[rows].tolist()},
        "networks": shown,
    }


def _network(
    run: Run, model: nn.Module, done: int | None, digits: data.Digits, examples: Tensor
) -> dict | None:
    seed = run.settings.seed
    if not all(p.isfinite().all() for p in model.parameters()):
        return None
    numbers, widths = _matrices(model)
    if not numbers and sum(widths) > UNITS:
        return None
    draws = torch.from_numpy(data.evaluation_pairs(seed, DRAWS, len(digits)))
    subject = Subject(model, (digits, digits), draws, seed)
    if not numbers:
        pairs = torch.cartesian_prod(examples, examples)
        numbers = {k: {"values": h.half()} for k, h in subject.activations(pairs).items()}
    selectivity = {
        (row["layer"], row["measure"]): None if isnan(row["value"]) else row["value"]
        for row in effect_selectivity.rows(subject)
    }
    layers = []
    for name, parts in subject.anova.items():
        balance = (127 * (parts.left - parts.right) / parts.total).nan_to_num().round()
        tensors = numbers[name] | {"balance": balance.to(torch.int8)}
        layers.append(
            {
                "name": name,
                "units": len(balance),
                "selectivity": selectivity.get((name, "effect_selectivity")),
                "chance": selectivity.get((name, "effect_selectivity_rotated")),
                **{k: _text(v) if isinstance(v, Tensor) else v for k, v in tensors.items()},
            }
        )
    arm = run.settings.arm.removeprefix(f"{run.settings.dataset}-").replace("-", " ")
    when = "" if done is None else f", after {done} epochs"
    return {"name": f"{arm}, seed {seed}{when}", "layers": layers}


@torch.no_grad()
def _matrices(model: nn.Module) -> tuple[dict[str, dict], list[int]]:
    """{layer: its map from the layer before, and whether a ReLU follows}, and the layers' widths;
    no maps for a network that has other layers, or too many weights."""
    _, seen = models.activations(model, torch.zeros(1, 2, 28, 28))
    widths = [value.shape[1] for (_, when), value in seen.items() if when == "post"]
    maps, before, inputs = {}, PIXELS, 2 * 28 * 28
    for (name, module), units in zip(model.named_children(), widths):
        relu = isinstance(module, nn.Sequential) and isinstance(module[-1], nn.ReLU)
        if not (relu or isinstance(module, nn.Linear)) or inputs * units > WEIGHTS:
            return {}, widths
        affine = affine_map(model, before, name)
        if not affine:
            return {}, widths
        maps[name] = {"weights": affine[0].half(), "bias": affine[1].half(), "relu": relu}
        before, inputs = name, units
    return maps, widths


def _text(tensor: Tensor) -> str:
    return b64encode(tensor.contiguous().numpy().tobytes()).decode()
