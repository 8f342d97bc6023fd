"""One style, and the figures that several notebooks draw. They draw tables, and compute no
statistic.

Sizes are those of a printed page: as wide as two columns (7.2 inches), letters of 7 to 9 points. A
point is a network, a square with a bar is a mean with its interval. Docstrings name the columns of
each table; `label` is the title.
"""

import os
from base64 import b64encode
from collections.abc import Iterable
from io import BytesIO
from itertools import chain, product
from pathlib import Path
from textwrap import fill
from typing import Any
from zlib import crc32

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import display
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from modvar_lib import data, runs
from modvar_lib.analysis.study import primary, select

# Okabe and Ito: safe for colour-blind readers
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
GREY = "#666666"
MARKERS = "o^Dv<P"
POINTS = {"ls": "", "alpha": 0.35, "mew": 0}
PAGE = 7.2  # inches
STYLE = {
    **dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize"), 8),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 7),
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.8),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 4),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    "figure.titlesize": 8.5,
    "figure.constrained_layout.h_pad": 0.06,
    "figure.dpi": 110,
    "savefig.dpi": 220,
    "svg.hashsalt": "modvar",
    "svg.fonttype": "none",
}


def style() -> None:
    """Use the project's style from here on."""
    sns.set_theme(context="paper", style="ticks", rc=STYLE)


def folder(study: str) -> Path:
    """Where a study's figures are: figures/<study> of the project; where $MODVAR_RESULTS is set,
    beside its tables."""
    tables, own = runs.study_folder(study), data.ROOT / "figures" / study
    return tables / "figures" if os.environ.get("MODVAR_RESULTS") else runs.inside(own)


def show(figure: Figure, alt: str, path: Path | None = None, source: str = "") -> None:
    """Display a figure in a notebook, and, with a `path`, save it there. alt: what it shows, for
    those who do not see it; source: the notebook and the tables that it comes from."""
    if path:
        save(figure, path, alt, source)
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=figure.dpi, bbox_inches="tight")
    shown = {"image/png": b64encode(picture.getvalue()).decode(), "text/plain": alt}
    display(shown, raw=True, metadata={"image/png": {"alt": alt}})
    plt.close(figure)


def save(figure: Figure, path: Path, alt: str, source: str = "") -> None:
    """Write path.png and path.svg, the same bytes for the same figure, with `alt` and `source`."""
    words = {"Title": " ".join(figure.get_suptitle().split()), "Description": alt, "Source": source}
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        picture = BytesIO()
        figure.savefig(picture, format=kind, metadata=words | metadata)
        runs.write(path.with_name(f"{path.name}.{kind}"), picture.getvalue())


def looks(arms: Iterable[str]) -> dict[str, dict]:
    """A colour and a marker for each of these arms, by its name: those of config/primary.yaml have
    the first of each, always the same; others have neither blue nor vermilion, and no two of up to
    28 in a figure look alike."""
    declared, wanted = primary(), dict.fromkeys(arms)
    first = [*declared["original"], *declared["second"]["contrast"]]
    first = dict.fromkeys([*first, *chain(*declared["third"]["contrasts"])])
    taken = dict(zip(first, zip(COLOURS, MARKERS)))
    free = [pair for pair in product([*COLOURS[2:], GREY], MARKERS) if pair not in taken.values()]
    for name in sorted(wanted.keys() - first.keys()):
        place = crc32(name.encode()) % len(free)
        turned = free[place:] + free[:place]
        taken[name] = next((pair for pair in turned if pair not in taken.values()), turned[0])
    return {name: dict(zip(("color", "marker"), taken[name])) for name in wanted}


def by_layer(
    values: pd.DataFrame, summary: pd.DataFrame, names: dict[str, str], label: str
) -> Figure:
    """A panel for each measure, layers along it, arms side by side. values: measure, layer, arm,
    value; summary: measure, layer, arm, mean, low, high; names: titles by measure."""
    measures = [name for name in names if name in set(values["measure"])]
    figure, axes = panels(len(measures), min(4, len(measures)), 2.2)
    look = looks(values["arm"])
    for ax, measure in zip(axes.flat, measures):
        points, step = select(values, measure=measure), 0.8 / len(look)
        order = list(points["layer"].unique())
        for k, arm in enumerate(look):
            at = np.arange(len(order)) + step * (k - (len(look) - 1) / 2)
            part = select(points, arm=arm)
            x = at[part["layer"].map(order.index)]
            ax.plot(x, part["value"], ms=2.7, **POINTS | look[arm])
            rows = select(summary, measure=measure, arm=arm).set_index("layer").reindex(order)
            means(ax, at + 0.27 * step, rows, look[arm])
        ax.set_xticks(range(len(order)), order, rotation=20 if len(order) > 3 else 0)
        ax.set(title=names[measure])
        if not points["value"].min() < 0:
            ax.set_ylim(bottom=0)
    return finished(figure, label, look, NETWORK, MEAN)


def along(table: pd.DataFrame, names: dict[str, str], label: str) -> Figure:
    """A measure against R² on x + y along training: a panel for each measure, a line for each
    network since R² was last below 0.5, its end a point. table: measure, arm, seed, epoch, r2,
    value; names: titles by measure."""
    figure, axes = panels(len(names), min(3, len(names)), 2.6)
    look = looks(table["arm"])
    for ax, (measure, title) in zip(axes.flat, names.items()):
        rows = select(table, measure=measure).sort_values("epoch")
        for _, part in rows.groupby(["arm", "seed"], sort=False):
            arm = part["arm"].iloc[0]
            late = part[(part["r2"] < 0.5)[::-1].cumsum()[::-1] == 0]
            ax.plot(late["r2"], late["value"], color=look[arm]["color"], lw=0.6, alpha=0.45)
            ax.plot(late["r2"].tail(1), late["value"].tail(1), ls="", ms=3, **look[arm])
        ax.set(xlim=(0.5, 1), xlabel="held-out R² on x + y", ylabel=title)
    return finished(figure, label, look, sign("one network, training", lw=0.8))


def contrasts(table: pd.DataFrame, margin: float, xlabel: str, label: str) -> Figure:
    """Differences with both of their intervals, a line each; the band of equivalence is grey.
    table: name, n, difference, low, high (bootstrap), t_low, t_high, verdict, in order from above;
    if it has a column `declared`, the others are hollow."""
    figure, ((ax,),) = panels(1, 1, 0.3 * len(table) + 0.5)
    at, kinds = np.arange(len(table)), []
    ax.axvspan(-margin, margin, color=GREY, alpha=0.2, lw=0)
    ax.axvline(0, color="k", lw=0.8)
    faces = shade = np.where(table["verdict"].str.startswith(("more", "less")), "k", GREY)
    ax.hlines(at, table["t_low"], table["t_high"], color=shade, lw=1)
    ax.hlines(at, table["low"], table["high"], color=shade, lw=3, alpha=0.5)
    if "declared" in table:
        faces = np.where(table["declared"], shade, "w")
        for kind, face, there in (("declared", "k", True), ("exploratory", "w", False)):
            if there in set(table["declared"]):
                kinds.append(sign(kind, ls="", marker="o", mfc=face))
    ax.scatter(table["difference"], at, facecolors=faces, edgecolors=shade, s=16, zorder=3)
    for y, (word, n) in enumerate(zip(table["verdict"], table["n"])):
        words = f"{word}, n = {n}".removeprefix(", ")
        ax.text(1.01, y, words, transform=ax.get_yaxis_transform(), fontsize=7, va="center")
    ax.set(yticks=at, yticklabels=table["name"], ylim=(len(table) - 0.5, -0.5), xlabel=xlabel)
    key = sign("BCa bootstrap, 95 %", lw=3, alpha=0.5), sign("Student's t, 95 %", lw=1)
    band = sign(f"within ± {margin:g}", GREY, lw=6, alpha=0.3)
    return finished(figure, label, {}, *kinds, *key, band)


def dots(
    values: pd.DataFrame,
    summary: pd.DataFrame,
    order: list[str],
    names: dict[str, str],
    label: str,
    columns: tuple[str, str] = ("measure", "arm"),
    one: str = "network",
    shared: bool = False,
) -> Figure:
    """A panel for each name in the first of `columns`, from above a line for each of `order` in the
    second: values as points (one: what a point is), means with intervals; dotted: the mean of the
    first line. Logarithmic, but around 0, where a value is 20 times the median; shared: one linear
    scale for all panels. values: columns, value; summary: columns, mean, low, high; names:
    titles."""
    panel, line = columns
    height, look = 0.26 * len(order) + 0.7, looks(order)
    figure, axes = panels(len(names), min(5, len(names)), height, sharey=True, sharex=shared)
    for ax, (name, title) in zip(axes.flat, names.items()):
        points = select(values, **{panel: name, line: order})
        points = points[np.isfinite(points["value"])]
        rows = select(summary, **{panel: name}).set_index(line).reindex(order)
        if not points["value"].min() < 0:  # no interval reaches where no value can be
            rows = rows.assign(low=rows["low"].clip(lower=0))
        for y, kind in enumerate(order):
            part = points.loc[points[line] == kind, "value"]
            ax.plot(part, [y] * len(part), ms=2.5, **POINTS | look[kind])
            means(ax, [y + 0.24], rows.loc[[kind]], look[kind], along="x")
        ax.axvline(rows["mean"].iloc[0], color=look[order[0]]["color"], lw=0.8, ls=":")
        ax.axvline(0, color=GREY, lw=0.6)
        ax.set(title=fill(title, 20))
        middle = points["value"].median()
        if not shared and 0 < 20 * middle < points["value"].max():  # far ones would hide the rest
            near = 10.0 ** np.floor(np.log10(middle))
            ticks = plt.FixedLocator([0, *near * 10.0 ** np.arange(9)])
            ax.set_xscale("symlog", linthresh=near)
            ax.xaxis.set(major_locator=ticks, major_formatter="{x:g}")
            ax.set_xlabel(f"log scale from {near:g}")
            ax.minorticks_off()
            ax.autoscale(axis="x")  # with margins of this scale
    axes[0][0].set(yticks=range(len(order)), yticklabels=order, ylim=(len(order) - 0.4, -0.6))
    first = sign(f"mean of {order[0]}", look[order[0]]["color"], ls=":")
    point = sign(f"one {one}", ls="", marker="o", alpha=0.35)
    return finished(figure, label, {}, point, MEAN, first)


def lines(
    table: pd.DataFrame, x: str, names: dict[str, str], label: str, xlabel: str, log: bool = False
) -> Figure:
    """A panel for each measure, a line for each arm: means with intervals along the values of
    column x; an arm without such a value is a band. table: measure, arm, x, mean, low, high."""
    figure, axes = panels(len(names), min(4, len(names)), 2.2)
    look, ticks = looks(table["arm"]), sorted(table[x].dropna().unique())
    for ax, (measure, title) in zip(axes.flat, names.items()):
        part = select(table, measure=measure)
        for arm in part["arm"].unique():
            rows = select(part, arm=arm)
            for low, high in rows.loc[rows[x].isna(), ["low", "high"]].to_numpy():
                ax.axhspan(low, high, color=look[arm]["color"], alpha=0.25, lw=0)
            rows = rows.dropna(subset=x).sort_values(x)
            means(ax, rows[x].map(ticks.index), rows, look[arm], ls="-")
        ax.set_xticks(range(len(ticks)), [f"{tick:g}" for tick in ticks])
        ax.set(title=fill(title, 24), xlabel=xlabel, yscale="log" if log else "linear")
        if not log:
            ax.axhline(0, color=GREY, lw=0.6)
    return finished(figure, label, look, sign("mean, 95 % t interval", marker="s"))


def panels(count: int, columns: int, height: float, **options) -> tuple[Figure, np.ndarray]:
    """A figure as wide as a page, with lines of `columns` panels, `height` inches each."""
    lines = -(-count // columns)
    options |= {"figsize": (PAGE, lines * height + 0.6), "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(lines, columns, **options)
    for ax in axes.flat[count:]:
        ax.set_visible(False)
    return figure, axes


def finished(figure: Figure, label: str, palette: dict, *signs: Artist) -> Figure:
    """With its title and, below, its key: colours (or the looks of arms), then other signs."""
    square = {"marker": "s"}
    looks = {k: v if isinstance(v, dict) else square | {"color": v} for k, v in palette.items()}
    key = [*(sign(name, ls="", **look) for name, look in looks.items()), *signs]
    if key:
        rows = 1 + sum(len(str(one.get_label())) + 6 for one in key) // 115  # letters of a line
        figure.legend(handles=key, loc="outside lower center", ncols=-(-len(key) // rows))
    figure.suptitle(fill(label.replace(" = ", "\xa0=\xa0"), 110))
    return figure


def sign(label: str, color: str = "k", **look) -> Artist:
    """One entry of a key."""
    entry = plt.Line2D([], [], color=color, label=label, ms=4)
    entry.set(**look)
    return entry


NETWORK = sign("one network", ls="", marker="o", alpha=0.35)
MEAN = sign("mean, 95 % t interval", marker="s")


def means(ax: Axes, at, rows: pd.DataFrame, look: dict, along: str = "y", ls: str = "") -> None:
    """Means and intervals of a summary's rows, one at each place; no bar where there is no
    interval."""
    bars: dict[str, Any] = {
        f"{along}err": [(rows["mean"] - rows[end]).abs() for end in ("low", "high")]
    }
    x, y = (at, rows["mean"]) if along == "y" else (rows["mean"], at)
    ax.errorbar(x, y, **bars, ls=ls, ms=3.5, capsize=2.5, **look)
