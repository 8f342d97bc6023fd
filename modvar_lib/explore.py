"""What a network does when one digit is exchanged: by hand in Jupyter (`Explorer`), or as a still figure (`still`).

A unit's colour says which digit it serves, from its variance over held-out pairs: blue the left, orange the right, grey both
alike or none. Units are in the order of their balance, (V_L - V_R) / V.
"""

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import ipywidgets as widgets
import numpy as np
import pandas as pd
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from modvar_lib import data, figures, goals, models, runs
from modvar_lib.errors import InputError, lookup
from modvar_lib.metrics.activation_change import score
from modvar_lib.metrics.selectivity import selectivity
from modvar_lib.metrics.subject import Anova, Subject
from modvar_lib.runs import Run

DRAWS = 500  # held-out draws that say whom a unit serves
SIDES = {"left": 0, "right": 1}
RULER = ("towers fixed, rotated", "towers fixed")  # its two ends


@dataclass(frozen=True)
class Swap:
    """One digit exchanged. rows: of the held-out digits, [[left, right], [left', right']]; answers: [2, K] of the network;
    activations: {layer: [2, U]} of the hidden layers; scores: {layer, or pooled: |v - w| / sqrt(|v|·|w|)}, nan for silence."""

    rows: Tensor
    answers: Tensor
    activations: dict[str, Tensor]
    scores: dict[str, float]


def swap(network: torch.nn.Module, digits: data.Digits, rows: Tensor) -> Swap:
    """Show a network both pictures."""
    with torch.no_grad():
        answers, seen = models.activations(network, data.halves(digits.images, rows))
    hidden = {k: v for (k, when), v in seen.items() if when == "post" and k != "readout"}
    every = {**hidden, "pooled": torch.cat(list(hidden.values()), 1)}
    return Swap(rows, answers, hidden, {k: float(score(v[0], v[1])) for k, v in every.items()})


@lru_cache(maxsize=1)
def _held_out(dataset: str) -> data.Digits:
    """The test split, read once: that takes longer than all that a swap does."""
    return data.digits(dataset)[1]


@lru_cache(maxsize=64)
def _served(path, epochs: int) -> tuple[torch.nn.Module, dict[str, Anova]]:
    """A network and the variances of its units, of one run after so many epochs."""
    run = runs.load(path)
    network, digits = run.network(epochs), _held_out(run.settings["dataset"])
    if not all(weights.isfinite().all() for weights in network.parameters()):
        raise InputError(f"network: the weights of {path.name} are not finite; pick another")
    draws = torch.from_numpy(data.evaluation_pairs(run.settings["seed"], DRAWS, len(digits)))
    with torch.no_grad():
        return network, Subject(network, digits, draws).anova


class Picture:
    """One network after so many epochs, with one swap drawn on it after the other; only what a swap changes is drawn again."""

    def __init__(self, run: Run, epochs: int, scale: pd.DataFrame | None = None):
        self.network, anova = _served(run.path, epochs)
        self.digits = _held_out(run.settings["dataset"])
        self.layers = {k: v for k, v in anova.items() if k != "readout"}
        self.balance = {k: ((v.left - v.right) / v.total).numpy() for k, v in self.layers.items()}
        self.order = {k: np.argsort(-np.nan_to_num(v)) for k, v in self.balance.items()}
        count = len(self.layers)
        self.figure = Figure(figsize=(9.4, 2.6 + 0.85 * count), dpi=100, layout="constrained")
        self.canvas = FigureCanvasAgg(self.figure)
        grid = self.figure.add_gridspec(
            count + 1, 3, width_ratios=[2, 2.6, 2.6], height_ratios=[1] * count + [1.5]
        )
        self._pictures(grid[:count, 0])
        self.strips = {k: self._strip(grid[i, 1:], k) for i, k in enumerate(self.layers)}
        self._timeline(grid[count, :2], run, epochs)
        self._ruler(grid[count, 2], scale)
        self.moving = [a for pair in [*self.shown, *self.strips.values()] for a in pair]
        self.background = None

    def _pictures(self, place) -> None:
        """Both pictures, each with a line below it."""
        self.shown = []
        for cell, title in zip(place.subgridspec(2, 1), ("before", "after")):
            ax = self.figure.add_subplot(cell)
            ax.set(xticks=[], yticks=[], ylabel=title)
            for spine in ax.spines.values():
                spine.set_visible(False)
            image = ax.imshow(np.zeros((28, 56)), cmap="gray_r", vmin=0, vmax=1)
            ax.set_xlabel(" ", fontsize=9)  # room for the line
            middle = {"transform": ax.transAxes, "ha": "center", "va": "top", "fontsize": 9}
            self.shown.append((image, ax.text(0.5, -0.04, " ", **middle)))

    def _strip(self, cell, layer: str) -> tuple:
        """A line each for the activations before, after, and their change."""
        ax = self.figure.add_subplot(cell)
        units = len(self.order[layer])
        image = ax.imshow(np.ones((3, units, 3)), aspect="auto", interpolation="nearest")
        ax.set_yticks(range(3), ["before", "after", "change"])
        ax.set_xticks([])
        last = layer == list(self.layers)[-1]
        ax.set_xlabel(
            "units, from those that serve the left digit to those that serve the right" * last
        )
        return image, ax.set_title(" ", fontsize=9, loc="left")

    def _timeline(self, cell, run: Run, epochs: int) -> None:
        """Held-out R² by epoch, the goal's switches, and where this network is."""
        ax = self.figure.add_subplot(cell)
        history = run.history
        ax.plot(history["epoch"] + 1, history["test_r2"].clip(lower=-1), color="k", lw=1)
        now = history.iloc[max(epochs - 1, 0)]
        asked = goals.words(now["a"], now["b"])
        changed = history[["a", "b"]].fillna(0).diff().abs().sum(axis=1) > 0
        for switch in history.loc[changed, "epoch"]:
            ax.axvline(switch, color=figures.GREY, lw=0.6, ls=":")
        ax.axvline(epochs, color=figures.COLOURS[1], lw=2)
        r2 = f"R² {now['test_r2']:.2f}" if epochs else "not trained yet"
        ax.set(ylim=(-1, 1.05), xlabel="epochs done", ylabel="held-out R²")
        ax.set_title(f"after {epochs} epochs, asked for {asked}: {r2}", fontsize=9, loc="left")

    def _ruler(self, cell, scale: pd.DataFrame | None) -> None:
        """Side selectivity of the hidden layers, on the study's ruler if it has one that measures them all."""
        ax = self.figure.add_subplot(cell)
        layers = list(self.layers)[:-1]
        means = {}  # {network: {layer: mean}}
        if scale is not None:
            some = scale[scale["measure"] == "side_selectivity"]
            means = some.pivot(index="layer", columns="network", values="mean").to_dict()
        low, high = (means.get(name, {}) for name in RULER)
        placed = set(layers) <= low.keys() & high.keys()
        for y, layer in enumerate(layers):
            start, end = (low[layer], high[layer]) if placed else (0, 1)
            marks = {k: means.get(f"mlp {k}", {}).get(layer, np.nan) for k in ("fixed", "varying")}
            ax.axhline(y, color=figures.GREY, lw=0.6)
            for value, colour in zip(marks.values() if placed else (), figures.COLOURS):
                ax.plot((value - start) / (end - start), y, "|", ms=14, mew=2, color=colour)
            own = (selectivity(self.layers[layer]) - start) / (end - start)
            ax.plot(own, y, "D", color="k", ms=6)
        ax.set_yticks(range(len(layers)), layers)
        ax.set(ylim=(len(layers) - 0.5, -0.5), xlim=(-0.4, 1.1) if placed else (0, 1))
        ax.set_xticks([0, 1], ["units mixed", "towers"] if placed else ["0", "1"])
        ax.set_xlabel("◆ this network" + ", | mlp fixed (blue), varying" * placed)
        title = (
            "side selectivity, on the ruler"
            if placed
            else "side selectivity; no ruler in this study"
        )
        ax.set_title(title, fontsize=9, loc="left")

    def put(self, swapped: Swap) -> None:
        """Put a swap on the picture."""
        halves = data.halves(self.digits.images, swapped.rows)
        labels = self.digits.labels[swapped.rows].tolist()
        for (image, text), pixels, (x, y), answer in zip(
            self.shown, data.side_by_side(halves), labels, swapped.answers.tolist()
        ):
            image.set_data(pixels.numpy())
            said = ", ".join(f"{value:.1f}" for value in answer)
            text.set_text(f"{x} and {y}, x + y = {x + y}; answer {said}")
        for layer, (image, title) in self.strips.items():
            order = self.order[layer]
            before, after = (v[order] for v in swapped.activations[layer].numpy())
            rows = np.abs(np.stack([before, after, after - before]))
            colour = figures.SIDES((1 - np.nan_to_num(self.balance[layer][order])) / 2)[:, :3]
            strength = np.sqrt(rows / max(rows.max(), 1e-12))[..., None]
            image.set_data(1 - strength * (1 - colour))
            value = swapped.scores[layer]
            said = "silent, no score" if np.isnan(value) else f"score {value:.2f}"
            title.set_text(f"{layer}, {len(order)} units: {said}")

    def png(self, swapped: Swap) -> bytes:
        """The picture with a swap on it. What does not move is drawn once."""
        self.put(swapped)
        if self.background is None:
            for artist in self.moving:
                artist.set_animated(True)
            self.canvas.draw()
            self.background = self.canvas.copy_from_bbox(self.figure.bbox)
        self.canvas.restore_region(self.background)
        for artist in self.moving:
            self.figure.draw_artist(artist)
        drawn = BytesIO()
        Image.fromarray(np.asarray(self.canvas.buffer_rgba())[..., :3]).save(
            drawn, "png", compress_level=1
        )
        return drawn.getvalue()


def scale_of(study: str) -> pd.DataFrame | None:
    """The study's ruler, scale.csv of 06_ruler, if it has been made."""
    path = runs.study_folder(study) / "scale.csv"
    return pd.read_csv(path) if path.is_file() else None


def rows_of(digits: data.Digits, left: int, right: int, new: int, side: str, rng) -> Tensor:
    """Held-out examples of digits, and with one exchanged: [[left, right], [left', right']], rows of the test split."""
    drawn = [
        int(rng.choice(torch.where(digits.labels == d)[0].numpy())) for d in (left, right, new)
    ]
    after = drawn[:2]
    after[SIDES[side]] = drawn[2]
    return torch.tensor([drawn[:2], after])


def still(
    run: Run, epochs: int | None = None, side: str = "right", study: str | None = None
) -> Figure:
    """A figure of one swap: 3 and 4, one of them exchanged for a 9. For the printed page."""
    lookup(SIDES, "side", side)
    picture = Picture(
        run,
        run.settings["epochs"] if epochs is None else epochs,
        scale_of(study) if study else None,
    )
    rows = rows_of(picture.digits, 3, 4, 9, side, np.random.default_rng(0))
    picture.put(swap(picture.network, picture.digits, rows))
    picture.figure.suptitle(f"{run.path.parent.name}, {run.path.name}: {side} digit exchanged")
    return picture.figure


class Explorer(widgets.VBox):
    """The same in Jupyter: pick or draw a network of the study, an epoch, digits; exchange one."""

    def __init__(self, study: str):
        found = runs.paths(study)
        self.scale, self.rng, self.drawn = scale_of(study), np.random.default_rng(), None
        names = [(f"{path.parent.name}, {path.name}", path) for path in found]
        wide = {"description_width": "7em"}
        self.long = {"style": wide, "layout": {"width": "34em"}}
        self.network = widgets.Dropdown(options=names, description="network", **self.long)
        self.slot = widgets.Box()
        self.left, self.right, self.new = (
            widgets.BoundedIntText(
                value, 0, 9, description=text, style=wide, layout={"width": "12em"}
            )
            for value, text in ((3, "left digit"), (4, "right digit"), (9, "new digit"))
        )
        self.side = widgets.Dropdown(
            options=list(SIDES),
            value="right",
            description="exchange",
            style=wide,
            layout={"width": "14em"},
        )
        self.again = widgets.Button(
            description="exchange", button_style="primary", tooltip="another new digit"
        )
        self.others = widgets.Button(description="other examples", tooltip="of the same digits")
        self.any = widgets.Button(description="draw a network", tooltip="at random")
        self.picture, self.said = widgets.Image(format="png"), widgets.HTML()
        self.network.observe(lambda _: self._open(), "value")
        for widget in (self.left, self.right, self.new):
            widget.observe(lambda _: self._draw(), "value")
        self.side.observe(lambda _: self._draw(), "value")
        self.again.on_click(lambda _: self._another())
        self.others.on_click(lambda _: self._draw())
        self.any.on_click(lambda _: self._pick())
        super().__init__(
            [
                widgets.HBox([self.network, self.any]),
                widgets.HBox([self.left, self.right, self.others]),
                widgets.HBox([self.side, self.new, self.again]),
                self.slot,
                self.picture,
                self.said,
            ]
        )
        self._open()

    def _pick(self) -> None:
        self.network.value = self.network.options[self.rng.integers(len(self.network.options))][1]

    def _open(self) -> None:
        """Another network: its epochs, and the last of them."""
        self.run = runs.load(self.network.value)
        kept = [0, *self.run.frames, self.run.settings["epochs"]]
        self.epoch = widgets.SelectionSlider(  # a new one: an old one shows its first option
            options=kept, value=kept[-1], description="epochs done", **self.long
        )
        self.slot.children = [self.epoch]
        self.epoch.observe(lambda _: self._look(), "value")
        self._look()

    def _look(self) -> None:
        """Another network or epoch, on the same examples: to compare."""
        before = self.drawn
        try:
            self.drawn = Picture(self.run, self.epoch.value, self.scale)
        except InputError as error:
            self.drawn, self.said.value = None, str(error)
            return
        if before and before.digits is self.drawn.digits:
            self._show()
        else:
            self._draw()

    def _another(self) -> None:
        old = self.new.value
        self.new.value = int(self.rng.choice([digit for digit in range(10) if digit != old]))

    def _draw(self) -> None:
        """Other examples of the digits."""
        if self.drawn is None:
            return
        asked = self.left.value, self.right.value, self.new.value, self.side.value
        self.rows = rows_of(self.drawn.digits, *asked, self.rng)
        self._show()

    def _show(self) -> None:
        swapped = swap(self.drawn.network, self.drawn.digits, self.rows)
        self.picture.value = self.drawn.png(swapped)
        before, after = (
            ", ".join(f"{v:.1f}" for v in answer) for answer in swapped.answers.tolist()
        )
        scores = ", ".join(f"{layer} {value:.2f}" for layer, value in swapped.scores.items())
        self.said.value = (
            f"<p role='status'>Answer {before} before, {after} after. Score: {scores}.</p>"
        )
