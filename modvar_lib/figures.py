"""One function a figure, one style. Figures draw tables; they compute no statistic.

Sizes are those of a printed page: as wide as two columns (7.2 inches), letters of 7 to 9 points.
"""

from base64 import b64encode
from io import BytesIO
from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

from modvar_lib import files

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
"""Okabe and Ito: safe for colour-blind readers."""
GREY = "#666666"
SIDES = LinearSegmentedColormap.from_list("sides", [COLOURS[0], "#A8A8A8", COLOURS[4]])
"""From units that serve the left digit alone (0) to those that serve the right one alone (1)."""
PAGE = 7.2  # inches
STYLE = {
    "figure.dpi": 110,
    "savefig.dpi": 220,
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.linewidth": 0.8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "xtick.major.size": 4,
    "ytick.major.size": 4,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "figure.titlesize": 8.5,
    "figure.constrained_layout.h_pad": 0.06,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "modvar",
    "svg.fonttype": "none",
}


def style() -> None:
    """Use the project's style from here on."""
    sns.set_theme(context="paper", style="ticks", rc=STYLE)


def show(figure: Figure, alt: str, path: Path | None = None, source: str = "") -> None:
    """Display a figure in a notebook, and, with a `path`, save it there. alt: what it shows, in words, for those who do not see
    it; source: the notebook and the tables that it comes from."""
    if path:
        save(figure, path, alt, source)
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=figure.dpi, bbox_inches="tight")
    shown = {"image/png": b64encode(drawn.getvalue()).decode(), "text/plain": alt}
    display(shown, raw=True, metadata={"image/png": {"alt": alt}})
    plt.close(figure)


def save(figure: Figure, path: Path, alt: str, source: str = "") -> None:
    """Write path.png and path.svg, the same bytes for the same figure; what it shows and where it comes from is in both."""
    about = {"Title": figure.get_suptitle(), "Description": alt, "Source": source}
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        drawn = BytesIO()
        figure.savefig(drawn, format=kind, metadata=about | metadata)
        files.write(path.with_name(f"{path.name}.{kind}"), drawn.getvalue())


def colours(regimes) -> dict[str, str]:
    """A colour a regime: fixed and varying always the same, the others in alphabetical order."""
    order = ["fixed", "varying", *sorted(set(regimes) - {"fixed", "varying"})]
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(order)}


def headline(
    scores: pd.DataFrame, summary: pd.DataFrame, original: dict[str, list[float]], label: str
) -> Figure:
    """The score of every network by regime, with mean and interval, and the original's values beside.

    scores: architecture, regime, seed, value, failed. summary: architecture, regime, networks, failed, mean, low, high.
    """
    architectures = list(summary["architecture"].unique())
    columns = min(4, max(2, len(architectures)))
    lines = -(-len(architectures) // columns)
    figure, axes = _panels(lines, columns, 2.5, sharey=True)
    for ax in axes.flat[len(architectures) :]:
        ax.set_visible(False)
    for ax, architecture in zip(axes.flat, architectures):
        rows = _where(summary, {"architecture": architecture})
        palette = colours(rows["regime"])
        for x, row in enumerate(rows.itertuples()):
            own = _where(scores, {"architecture": architecture, "regime": row.regime})
            own = own.sort_values("seed")
            own["x"] = [x + 0.16 * ((i % 5) - 2) / 2 for i in range(len(own))]
            for failed, marker in ((False, "o"), (True, "x")):
                some = own[own["failed"] == failed]
                looks = {"s": 14, "marker": marker, "alpha": 0.55, "linewidths": 1}
                ax.scatter(some["x"], some["value"], color=palette[row.regime], **looks)
            _mean(ax, x + 0.26, row, palette[row.regime])
            if row.regime in original:
                mean, spread = original[row.regime]
                ax.errorbar(x - 0.26, mean, spread, fmt="D", color=GREY, capsize=3, ms=4, mfc="w")
        ticks = [f"{r.regime}\nn = {r.networks}\nfailed: {r.failed}" for r in rows.itertuples()]
        ax.set_xticks(range(len(rows)), ticks)
        ax.set_xlim(-0.6, len(rows) - 0.4)
        ax.set_title(architecture)
    for ax in axes[:, 0]:
        ax.set_ylabel("activation change (original score)")
    # a wide interval of few networks may leave the picture
    axes[0][0].set_ylim(0, max(0.8, 1.15 * scores["value"].max()))
    key = [
        _sign("one network", ls="", marker="o", alpha=0.55),
        _sign("failed network", ls="", marker="x", alpha=0.55),
        _sign("mean, 95 % t interval", marker="s"),
        _sign("original, mean ± its spread", GREY, marker="D", mfc="w"),
    ]
    return _finished(figure, label, key)


def layers(scores: pd.DataFrame, summary: pd.DataFrame, label: str) -> Figure:
    """The score by layer and side: a row an architecture, a column a side; points are networks, bars mean and interval.

    scores: architecture, regime, seed, layer, side, value. summary: architecture, regime, layer, side, mean, low, high.
    """
    architectures, sides = list(summary["architecture"].unique()), ["left", "right"]
    figure, axes = _panels(len(architectures), 2, 2.0, sharey="row")
    palette = _own_colours(summary["regime"])
    for line, architecture in zip(axes, architectures):
        own = _where(scores, {"architecture": architecture})
        names = list(own["layer"].unique())
        for ax, side in zip(line, sides):
            where = {"architecture": architecture, "side": side}
            _groups(ax, scores, summary, where, names, palette, 0.36)
            ax.set_title(f"{architecture}: {side} digit exchanged")
            ax.set_ylim(0, 1.1 * own["value"].max())
        line[0].set_ylabel("activation change")
    return _finished(figure, label, _networks_and_means(palette))


def curves(history: pd.DataFrame, switches: list[int], label: str, floor: float = -1.0) -> Figure:
    """Held-out R² by epoch, a line a network: on the goal of the epoch, and on x + y. Goal switches are dotted lines.

    history: architecture, regime, seed, epoch, test_r2, sum_r2, failed. Values below `floor` leave the picture.
    """
    architectures = list(history["architecture"].unique())
    figure, axes = _panels(len(architectures), 2, 1.9, sharex=True, sharey=True)
    palette = _own_colours(history["regime"])
    titles = {"test_r2": "goal of the epoch", "sum_r2": "x + y"}
    for line, architecture in zip(axes, architectures):
        runs = _where(history, {"architecture": architecture}).groupby(["regime", "seed"])
        for ax, (column, title) in zip(line, titles.items()):
            _switches(ax, switches)
            for (regime, _), run in runs:
                dashes = "--" if run["failed"].iloc[0] else "-"
                looks = {"color": palette[regime], "lw": 0.7, "alpha": 0.6, "ls": dashes}
                ax.plot(run["epoch"], run[column], **looks)
            ax.axhline(0, color=GREY, lw=0.6)
            ax.set_ylim(floor, 1.03)
            ax.set_title(f"{architecture}: R² on {title}")
        line[0].set_ylabel("held-out R²")
    for ax in axes[-1]:
        ax.set_xlabel("epoch")
    key = [_sign(regime, colour) for regime, colour in palette.items()]
    key += [_sign("failed network", ls="--"), _sign("switch of the varying goal", GREY, ls=":")]
    return _finished(figure, label, key)


def approximation(table: pd.DataFrame, label: str) -> Figure:
    """The score against its approximation, a panel a layer.

    table: layer, regime, activation_change, activation_change_expected.
    """
    layers = list(table["layer"].unique())
    figure, axes = _panels(1, len(layers), 2.5)
    palette = _own_colours(table["regime"])
    for ax, layer in zip(axes[0], layers):
        own = _where(table, {"layer": layer})
        for regime, part in own.groupby("regime"):
            x, y = part["activation_change"], part["activation_change_expected"]
            ax.scatter(x, y, s=10, alpha=0.6, linewidths=0, color=palette[regime])
        ends = own[["activation_change", "activation_change_expected"]]
        low, high = ends.min().min() - 0.03, ends.max().max() + 0.03
        ax.plot([low, high], [low, high], color=GREY, lw=0.8)
        ax.set(xlim=(low, high), ylim=(low, high), aspect="equal", title=layer, xlabel="score")
    axes[0][0].set_ylabel("approximation")
    key = [
        _sign(f"{regime}, a network and side", c, ls="", marker="o")
        for regime, c in palette.items()
    ]
    return _finished(figure, label, [*key, _sign("equal", GREY)])


def by_layer(
    values: pd.DataFrame, summary: pd.DataFrame, names: dict[str, str], label: str
) -> Figure:
    """A panel a measure, layers along it, regimes side by side: points are networks, bars mean and interval.

    values: measure, layer, regime, value. summary: measure, layer, regime, mean, low, high. names: titles of the measures.
    """
    measures = [name for name in names if name in set(values["measure"])]
    figure, axes = _panels(1, len(measures), 2.2)
    palette = _own_colours(values["regime"])
    for ax, measure in zip(axes[0], measures):
        places = list(_where(values, {"measure": measure})["layer"].unique())
        _groups(ax, values, summary, {"measure": measure}, places, palette, 0.3)
        ax.set_title(names[measure])
        ax.set_ylim(0, 1.05 * ax.get_ylim()[1])
    return _finished(figure, label, _networks_and_means(palette))


def dose(
    curve: pd.DataFrame, across: pd.DataFrame, layer: str, names: dict[str, str], label: str
) -> Figure:
    """A panel a measure: its mean and interval along the dose c, and other networks drawn across, in one layer.

    curve: measure, layer, c, mean, low, high. across: measure, layer, network, mean, low, high. names: titles of the measures.
    """
    figure, axes = _panels(-(-len(names) // 3), 3, 1.9)
    networks = list(across["network"].unique())
    looks = dict(zip(networks, ((COLOURS[1], "-"), (GREY, "--"), (COLOURS[2], ":"))))
    for ax, (measure, title) in zip(axes.flat, names.items()):
        own = _where(curve, {"measure": measure, "layer": layer}).sort_values("c")
        at = range(len(own))
        ax.fill_between(at, own["low"], own["high"], color=COLOURS[0], alpha=0.2, linewidth=0)
        ax.plot(at, own["mean"], "o-", color=COLOURS[0], ms=3)
        for network, (colour, dashes) in looks.items():
            where = {"measure": measure, "layer": layer, "network": network}
            for row in _where(across, where).itertuples():
                ax.axhspan(row.low, row.high, color=colour, alpha=0.15, linewidth=0)
                ax.axhline(row.mean, color=colour, ls=dashes, lw=1.2)
        ax.set_xticks(at, [f"{c:g}" for c in own["c"]])
        ax.set(title=title, ylim=(min(0, ax.get_ylim()[0]), None))
    for ax in axes[-1]:
        ax.set_xlabel("c of the weights across the sides")
    key = [_sign("dose, x + y", COLOURS[0], marker="o")]
    key += [_sign(network, colour, ls=dashes) for network, (colour, dashes) in looks.items()]
    return _finished(figure, label, key)


def placed(table: pd.DataFrame, names: dict[str, str], label: str) -> Figure:
    """From towers with their units mixed (0) to towers (1), with intervals: a panel a layer, a line a measure.

    table: layer, measure, regime, share, share_low, share_high.
    """
    layers = list(table["layer"].unique())
    figure, axes = _panels(1, len(layers), 0.34 * len(names) + 0.5, sharey=True, sharex=True)
    palette = _own_colours(table["regime"])
    for ax, layer in zip(axes[0], layers):
        for y, measure in enumerate(names):
            for k, (regime, colour) in enumerate(palette.items()):
                at = y + 0.2 * (k - (len(palette) - 1) / 2)
                where = {"layer": layer, "measure": measure, "regime": regime}
                for row in _where(table, where).itertuples():
                    bar = [[abs(row.share - row.share_low)], [abs(row.share_high - row.share)]]
                    ax.errorbar(row.share, at, xerr=bar, fmt="o", ms=4, capsize=2.5, color=colour)
        for end in (0, 1):
            ax.axvline(end, color=GREY, lw=0.8, ls=":")
        ax.set_title(layer)
        ax.set_xlabel("0: towers with units mixed, 1: towers")
    axes[0][0].set_yticks(range(len(names)), list(names.values()))
    axes[0][0].invert_yaxis()
    return _finished(figure, label, [_sign(r, c, marker="o") for r, c in palette.items()])


def regimes(
    values: pd.DataFrame, summary: pd.DataFrame, order: list[str], names: dict[str, str], label: str
) -> Figure:
    """A panel a measure, a line a regime: points are networks, bars mean and interval; a vertical line at the mean of `fixed`.
    A measure with values 20 times its median and more has a logarithmic axis.

    values: measure, regime, value. summary: measure, regime, mean, low, high.
    """
    figure, axes = _panels(1, len(names), 0.26 * len(order) + 0.6, sharey=True)
    palette = {name: COLOURS[i] if i < 2 else GREY for i, name in enumerate(colours(order))}
    for ax, (measure, title) in zip(axes[0], names.items()):
        for y, regime in enumerate(order):
            where = {"measure": measure, "regime": regime}
            own = _where(values, where)["value"]
            ax.scatter(own, [y] * len(own), s=6, alpha=0.3, linewidths=0, color=palette[regime])
            for row in _where(summary, where).itertuples():
                _mean(ax, y + 0.24, row, palette[regime], along="x")
        for row in _where(summary, {"measure": measure, "regime": "fixed"}).itertuples():
            ax.axvline(row.mean, color=COLOURS[0], lw=0.8, ls=":")
        ax.set_title(fill(title, 16))
        own = _where(values, {"measure": measure})["value"].dropna()
        if len(own) and 0 < 20 * own.median() < own.max():
            ax.set_xscale("log", nonpositive="clip")  # a few far out would hide the rest
            ax.set_xlim(own[own > 0].min() / 2, None)
        else:
            ax.set_xlim(0, None)
    axes[0][0].set_yticks(range(len(order)), order)
    axes[0][0].invert_yaxis()
    key = [
        _sign("one network", ls="", marker="o", alpha=0.3),
        _sign("mean, 95 % t interval", marker="s"),
    ]
    return _finished(figure, label, [*key, _sign("mean of fixed", COLOURS[0], ls=":")])


def swept(table: pd.DataFrame, level: pd.DataFrame, names: dict[str, str], label: str) -> Figure:
    """A line a sweep, a column a measure: mean and interval along the epochs swept; a band at `level`.

    table: what, measure, epochs, mean, low, high. level: measure, mean, low, high.
    """
    sweeps = list(table["what"].unique())
    figure, axes = _panels(len(sweeps), len(names), 1.7, sharey="col")
    for line, what in zip(axes, sweeps):
        for ax, (measure, title) in zip(line, names.items()):
            own = _where(table, {"what": what, "measure": measure}).sort_values("epochs")
            bar = [own["mean"] - own["low"], own["high"] - own["mean"]]
            looks = {"fmt": "o-", "ms": 3, "capsize": 2.5, "color": COLOURS[1]}
            ax.errorbar(range(len(own)), own["mean"], yerr=bar, **looks)
            for row in _where(level, {"measure": measure}).itertuples():
                ax.axhspan(row.low, row.high, color=COLOURS[0], alpha=0.25, linewidth=0)
            ax.set_xticks(range(len(own)), [str(e) for e in own["epochs"]])
            ax.set_title(fill(title, 16) if what == sweeps[0] else "")
            ax.set_xlabel(f"{what}, epochs")
            ax.set_ylim(0, None)
    key = [_sign("varying", COLOURS[1], marker="o"), _sign("fixed", COLOURS[0], lw=6, alpha=0.25)]
    return _finished(figure, label, key)


def multiverse(curve: pd.DataFrame, choices: list[str], ylabel: str, label: str) -> Figure:
    """A specification curve: effects in order with their intervals, and beneath, which choices each was made with.

    curve: difference, low, high and the columns in `choices`, in order of `difference`.
    """
    rows = [(choice, taken) for choice in choices for taken in sorted(curve[choice].unique())]
    figure, axes = _panels(
        2, 1, 1.1 + 0.065 * len(rows), height_ratios=[2.2, 0.13 * len(rows)], sharex=True
    )
    above, below = axes[:, 0]
    at = range(len(curve))
    clear = (curve["high"] < 0) | (curve["low"] > 0)
    shade = [COLOURS[0] if sure else GREY for sure in clear]
    above.vlines(at, curve["low"], curve["high"], color=shade, lw=0.8, alpha=0.5)
    above.scatter(at, curve["difference"], s=5, color=shade, linewidths=0)
    above.axhline(0, color="k", lw=0.8)
    above.set_ylabel(ylabel)
    for y, (_, taken) in enumerate(rows):
        own = [i for i, value in zip(at, curve[rows[y][0]]) if value == taken]
        below.vlines(own, y - 0.38, y + 0.38, color="k", lw=0.7)
    edges = [y for y, (choice, _) in enumerate(rows) if y and rows[y - 1][0] != choice]
    for y in edges:
        below.axhline(y - 0.5, color=GREY, lw=0.5)
    below.set_yticks(range(len(rows)), [taken for _, taken in rows], fontsize=6.5)
    below.set(ylim=(len(rows) - 0.5, -0.5), xlabel=f"{len(curve)} specifications, sorted")
    for y in [0, *edges]:
        place = below.get_yaxis_transform()
        below.text(1.01, y, rows[y][0], transform=place, fontsize=7, va="center")
    key = [
        _sign("95 % BCa bootstrap interval without 0", COLOURS[0], marker="o"),
        _sign("interval with 0", GREY, marker="o"),
    ]
    return _finished(figure, label, key)


def film(units: pd.DataFrame, goals: dict[int, str], label: str) -> Figure:
    """Which digit each unit serves, by epoch: a row a layer, a column a regime, a line a unit, in the order of the last epoch.
    A unit fades with its share of the layer's variance. Goals of `varying` are written above it, where they begin.

    units: regime, layer, unit, epoch (so many are done), balance (-1 the right digit alone, 1 the left), share.
    """
    names, layers = list(units["regime"].unique()), list(units["layer"].unique())
    figure, axes = _panels(len(layers), len(names), 2.0, sharex=True)
    for line, layer in zip(axes, layers):
        for ax, regime in zip(line, names):
            own = _where(units, {"layer": layer, "regime": regime})
            wide = own.pivot(index="unit", columns="epoch", values=["balance", "share"]).fillna(0)
            wide = wide.loc[wide["balance"].iloc[:, -1].sort_values(ascending=False).index]
            last = wide["balance"].columns[-1]
            balance, share = (  # [units, epochs], each frame for the epochs before it
                wide[name].reindex(columns=range(1, last + 1), method="bfill").to_numpy()
                for name in ("balance", "share")
            )
            picture = SIDES((1 - balance) / 2)
            strength = np.sqrt(share / share.max(0).clip(min=1e-12))[..., None]
            picture[..., :3] = 1 - strength * (1 - picture[..., :3])
            extent = (0, last, len(wide), 0)
            ax.imshow(picture, aspect="auto", interpolation="nearest", extent=extent)
            for epoch in goals if regime == "varying" else ():
                ax.axvline(epoch, color="k", lw=0.6, ls=":")
            ax.set_yticks([])
        line[0].set_ylabel(f"units of {layer}")
    for ax, regime in zip(axes[0], names):
        ax.set_title(regime, pad=18)
        asked = goals if regime == "varying" else {0: "x + y"}
        for i, (epoch, text) in enumerate(asked.items()):
            place = {"transform": ax.get_xaxis_transform(), "fontsize": 5}
            ax.text(epoch, 1.02 + 0.04 * (i % 2), text, **place)
    for ax in axes[-1]:
        ax.set_xlabel("epochs done")
    shades = plt.cm.ScalarMappable(plt.Normalize(-1, 1), SIDES.reversed())
    bar = figure.colorbar(shades, ax=axes, shrink=0.7, ticks=[-0.97, 0, 0.97])
    bar.ax.set_yticklabels(["right", "both", "left"])
    bar.set_label("digit served, (V_L - V_R) / V")
    return _finished(figure, label)


def animation(units: pd.DataFrame, goals: dict[int, str], path: Path) -> None:
    """The same as an animated GIF: a dot a unit, from those that serve the left digit to those that serve the right one, as large
    as its share of the layer's variance."""
    names, layers = list(units["regime"].unique()), list(units["layer"].unique())
    epochs, dots = sorted(units["epoch"].unique()), {}
    figure, axes = plt.subplots(
        len(layers),
        len(names),
        figsize=(PAGE, 3.4),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    heights = np.random.default_rng(0).random(units["unit"].max() + 1)
    for line, layer in zip(axes, layers):
        for ax, regime in zip(line, names):
            own = _where(units, {"layer": layer, "regime": regime})
            wide = own.pivot(index="unit", columns="epoch", values=["balance", "share"]).fillna(0)
            points = ax.scatter([], [], c=[], cmap=SIDES, vmin=-1, vmax=1, linewidths=0, alpha=0.8)
            dots[points] = wide
            ax.set(xlim=(-1.1, 1.1), ylim=(-0.08, 1.08), yticks=[], title="")
            ax.set_xticks([-1, 0, 1], ["left digit", "both alike", "right digit"])
        line[0].set_ylabel(f"units of {layer}")
    frames = []
    for epoch in [*epochs, *[epochs[-1]] * 8]:
        for points, wide in dots.items():
            x = -wide["balance", epoch].to_numpy()
            points.set_offsets(np.column_stack([x, heights[wide.index]]))
            points.set_array(x)
            points.set_sizes(2500 / len(wide) * np.sqrt(wide["share", epoch] * len(wide)) / 2)
        asked = {"fixed": "x + y", "varying": goals[max(e for e in goals if e <= epoch)]}
        for ax, regime in zip(axes[0], names):
            ax.set_title(f"{regime}: asked for {asked.get(regime, '')}")
        figure.suptitle(f"after {epoch} epochs")
        figure.canvas.draw()
        picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
        frames.append(picture.quantize(64))
    drawn = BytesIO()
    frames[0].save(drawn, "gif", save_all=True, append_images=frames[1:], duration=200, loop=0)
    files.write(path, drawn.getvalue())
    plt.close(figure)


def _panels(lines: int, columns: int, height: float, **options) -> tuple[Figure, np.ndarray]:
    """A figure as wide as a page, with lines of `height` inches."""
    size = (PAGE, lines * height + 0.6)
    return plt.subplots(
        lines, columns, figsize=size, squeeze=False, layout="constrained", **options
    )


def _finished(figure: Figure, label: str, key=()) -> Figure:
    """With its title and, below, its key."""
    if key:
        figure.legend(handles=key, loc="outside lower center", ncols=len(key))
    figure.suptitle(label)
    return figure


def _sign(label: str, colour: str = "k", **looks):
    """One entry of a key."""
    return plt.Line2D([], [], color=colour, label=label, ms=4, **looks)


def _networks_and_means(palette: dict[str, str]) -> list:
    signs = [_sign(regime, colour, ls="", marker="s") for regime, colour in palette.items()]
    points = _sign("one network", ls="", marker="o", alpha=0.35)
    return [*signs, points, _sign("mean, 95 % t interval", marker="s")]


def _own_colours(regimes: pd.Series) -> dict[str, str]:
    """As `colours`, of those that are there."""
    return {name: colour for name, colour in colours(regimes).items() if name in set(regimes)}


def _groups(
    ax: Axes, values, summary, where: dict, places: list[str], palette, step: float
) -> None:
    """Layers along x and regimes side by side: networks as points, their mean and interval beside."""
    for k, (regime, colour) in enumerate(palette.items()):
        for x, layer in enumerate(places):
            at = x + step * (k - (len(palette) - 1) / 2)
            own = {**where, "layer": layer, "regime": regime}
            points = _where(values, own)["value"]
            ax.scatter([at] * len(points), points, s=7, alpha=0.35, linewidths=0, color=colour)
            for row in _where(summary, own).itertuples():
                _mean(ax, at + 0.1, row, colour)
    slant = {"rotation": 20, "ha": "right"} if len(places) > 3 else {}
    ax.set_xticks(range(len(places)), places, **slant)


def _mean(ax: Axes, at: float, row, colour: str, along: str = "y") -> None:
    """Mean and interval of a summary's row; no bar with one network."""
    bar = None if pd.isna(row.low) else [[row.mean - row.low], [row.high - row.mean]]
    place = {"x": at, "y": row.mean} if along == "y" else {"x": row.mean, "y": at}
    ax.errorbar(**place, **{f"{along}err": bar}, fmt="s", ms=3, capsize=2.5, color=colour)


def _switches(ax: Axes, switches: list[int]) -> None:
    for switch in switches:
        ax.axvline(switch - 0.5, color=GREY, lw=0.6, ls=":")


def _where(table: pd.DataFrame, values: dict) -> pd.DataFrame:
    return table[np.logical_and.reduce([table[name] == value for name, value in values.items()])]
