"""One function per figure, one style. plt.Figures draw tables; they compute no statistic.

Sizes are those of a printed page: as wide as two columns (7.2 inches), letters of 7 to 9 points. A
point is a network, a square with a bar is a mean with its interval. Docstrings name the columns of
each table; `label` is the title.
"""

import os
from base64 import b64encode
from io import BytesIO
from itertools import product
from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import display

from modvar_lib import data, runs
from modvar_lib.analysis.study import select

COLOURS = [
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
]  # Okabe and Ito: safe for colour-blind readers
GREY = "#666666"
SIDES = "#9646B4", "#A8A8A8", "#CCA000"  # left digit, both, right digit
PAGE = 7.2  # inches
HUE = {"hue": "regime", "legend": False}  # of seaborn's functions
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
    tables = runs.study_folder(study)
    return (
        tables / "figures"
        if os.environ.get("MODVAR_RESULTS")
        else runs.inside(data.ROOT / "figures" / study)
    )


def show(figure: plt.Figure, alt: str, path: Path | None = None, source: str = "") -> None:
    """Display a figure in a notebook, and, with a `path`, save it there. alt: what it shows, in
    words, for those who do not see it; source: the notebook and the tables that it comes from."""
    if path:
        save(figure, path, alt, source)
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=figure.dpi, bbox_inches="tight")
    shown = {"image/png": b64encode(picture.getvalue()).decode(), "text/plain": alt}
    display(shown, raw=True, metadata={"image/png": {"alt": alt}})
    plt.close(figure)


def save(figure: plt.Figure, path: Path, alt: str, source: str = "") -> None:
    """Write path.png and path.svg, the same bytes for the same figure, with what it shows and where
    it comes from."""
    words = {"Title": " ".join(figure.get_suptitle().split()), "Description": alt, "Source": source}
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        picture = BytesIO()
        figure.savefig(picture, format=kind, metadata=words | metadata)
        runs.write(path.with_name(f"{path.name}.{kind}"), picture.getvalue())


def colours(regimes) -> dict[str, str]:
    """A colour for each of these regimes: fixed and varying always the same, the others in
    alphabetical order."""
    order = ["fixed", "varying", *sorted(set(regimes) - {"fixed", "varying"})]
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(order) if name in set(regimes)}


def arm_colours(arms) -> dict[str, str]:
    """A colour for each of these arms: the experiment's own and the standardised ones always the
    same, all others grey."""
    usual = [
        "fixed",
        "varying",
        "varying standardised",
        "tables standardised",
        "additive standardised",
        "factor standardised",
    ]
    return {
        name: COLOURS[usual.index(name)] if name in usual else GREY for name in dict.fromkeys(arms)
    }


def headline(
    scores: pd.DataFrame, summary: pd.DataFrame, original: dict[str, list[float]], label: str
) -> plt.Figure:
    """The score of every network by regime, with mean and interval, and the original's values
    beside. scores: architecture, regime, value, failed; summary: architecture, regime, networks,
    failed, mean, low, high."""
    architectures = list(summary["architecture"].unique())
    figure, axes = _panels(len(architectures), min(4, max(2, len(architectures))), 2.5, sharey=True)
    for ax, architecture in zip(axes.flat, architectures):
        rows = select(summary, architecture=architecture).reset_index()
        palette = colours(rows["regime"])
        looks = {**HUE, "palette": palette, "order": list(rows["regime"]), "linewidth": 0}
        for failed, look in (
            (False, {"size": 3.3, "alpha": 0.55}),
            (True, {"size": 4.5, "marker": "X"}),
        ):
            points = select(scores, architecture=architecture, failed=failed)
            sns.swarmplot(points, x="regime", y="value", **looks, **look, ax=ax)
        for x, row in rows.iterrows():
            _means(ax, [x + 0.36], rows[x : x + 1], palette[row["regime"]])
            mean, spread = original.get(row["regime"], (np.nan, np.nan))
            ax.errorbar(x - 0.36, mean, spread, fmt="D", color=GREY, capsize=3, ms=4, mfc="w")
        ticks = [
            f"{row.regime}\nn = {row.networks}\nfailed: {row.failed}" for row in rows.itertuples()
        ]
        ax.set_xticks(range(len(rows)), ticks)
        ax.set(xlim=(-0.6, len(rows) - 0.4), xlabel="", ylabel="original score", title=architecture)
    axes[0][0].set_ylim(
        0, max(0.8, 1.15 * scores["value"].max())
    )  # a wide interval may leave the picture
    key = (
        _sign("failed network", ls="", marker="X", mew=0),
        _sign("original, mean ± spread", GREY, marker="D", mfc="w"),
    )
    return _finished(figure, label, {}, _NETWORK, _MEAN, *key)


def by_layer(
    values: pd.DataFrame, summary: pd.DataFrame, names: dict[str, str], label: str
) -> plt.Figure:
    """A panel for each measure, layers along it, regimes side by side. values: measure, layer,
    regime, value; summary: measure, layer, regime, mean, low, high; names: titles by measure."""
    measures, palette = (
        [name for name in names if name in set(values["measure"])],
        colours(values["regime"]),
    )
    figure, axes = _panels(len(measures), len(measures), 2.2)
    looks = {
        **HUE,
        "palette": palette,
        "hue_order": list(palette),
        "dodge": True,
        "jitter": False,
        "size": 2.7,
        "alpha": 0.35,
    }
    for ax, measure in zip(axes[0], measures):
        points, step = select(values, measure=measure), 0.8 / len(palette)
        order = list(points["layer"].unique())
        sns.stripplot(points, x="layer", y="value", order=order, **looks, ax=ax)
        for k, (regime, colour) in enumerate(palette.items()):
            rows = select(summary, measure=measure, regime=regime).set_index("layer").reindex(order)
            _means(
                ax, np.arange(len(order)) + step * (k - (len(palette) - 1) / 2 + 0.27), rows, colour
            )
        ax.tick_params(axis="x", rotation=20 if len(order) > 3 else 0)
        ax.set(title=names[measure], xlabel="", ylabel="", ylim=(0, 1.05 * ax.get_ylim()[1]))
    return _finished(figure, label, palette, _NETWORK, _MEAN)


def curves(
    history: pd.DataFrame, switches: list[int], label: str, floor: float = -1.0
) -> plt.Figure:
    """Held-out R² by epoch, a line for each network: on the goal of the epoch, and on x + y;
    switches are dotted lines. history: architecture, regime, seed, epoch, test_r2, sum_r2, failed.
    Values below `floor` leave the picture."""
    scores, palette = (
        {"test_r2": "goal of the epoch", "sum_r2": "x + y"},
        colours(history["regime"]),
    )
    panels = list(product(history["architecture"].unique(), scores))
    figure, axes = _panels(len(panels), 2, 1.9, sharex=True, sharey=True)
    looks = {**HUE, "palette": palette, "x": "epoch", "units": "seed", "estimator": None}
    failing = {False: {"lw": 0.7, "alpha": 0.5}, True: {"lw": 1.5, "ls": (0, (3, 1)), "zorder": 3}}
    for ax, (architecture, column) in zip(axes.flat, panels):
        for switch in switches:
            ax.axvline(switch - 0.5, color=GREY, lw=0.6, ls=":")
        for failed, part in select(history, architecture=architecture).groupby("failed"):
            sns.lineplot(part, y=column, **looks, **failing[failed], ax=ax)
        ax.axhline(0, color=GREY, lw=0.6)
        ax.set(
            ylim=(floor, 1.03),
            title=f"{architecture}: R² on {scores[column]}",
            ylabel="held-out R²",
        )
    key = (
        _sign("failed network", **failing[True]),
        _sign("switch of the varying goal", GREY, ls=":"),
    )
    return _finished(figure, label, palette, *key)


def readings(table: pd.DataFrame, original: dict[str, list[float]], label: str) -> plt.Figure:
    """The plane of the two means, a point for each reading, and the box of the original's mean and
    spread. table: architecture, tap, fixed, varying, chance, which is the area of a point."""
    figure, axes = _panels(1, 1, 3.6)
    ax, palette = axes[0][0], dict(zip(table["architecture"].unique(), COLOURS[2:] + COLOURS))
    (x, dx), (y, dy) = original["fixed"], original["varying"]
    ax.add_patch(plt.Rectangle((x - dx, y - dy), 2 * dx, 2 * dy, color=GREY, alpha=0.3, lw=0))
    ax.axline((x, x), slope=1, color=GREY, lw=0.8, ls=":")
    markers, area = {"after": "o", "before": "^"}, lambda chance: 6 + 150 * chance
    for (architecture, tap), part in table.groupby(["architecture", "tap"]):
        looks = {"s": area(part["chance"]), "alpha": 0.6, "marker": markers[tap], "linewidths": 0}
        ax.scatter(part["fixed"], part["varying"], color=palette[architecture], **looks)
    ax.set(xlabel="mean score of fixed", ylabel="mean score of varying", aspect="equal")
    taps = [
        _sign(f"{tap} the nonlinearity", marker=marker, ls="") for tap, marker in markers.items()
    ]
    sizes = [
        _sign(f"chance {one}", GREY, marker="o", ls="", mew=0, ms=area(one) ** 0.5)
        for one in (0, 0.3, 0.6)
    ]
    key = (
        _sign("original, mean ± spread", GREY, lw=6, alpha=0.3),
        _sign("equal means", GREY, lw=0.8, ls=":"),
    )
    return _finished(figure, label, palette, *taps, *sizes, *key)


def along(table: pd.DataFrame, names: dict[str, str], label: str) -> plt.Figure:
    """A measure against R² on x + y along training: a panel for each measure, a line for each
    network since R² was last below 0.5, its end a point. table: measure, arm, seed, epoch, r2,
    value; names: titles by measure."""
    figure, axes = _panels(len(names), min(3, len(names)), 2.6)
    palette = arm_colours(table["arm"])
    for ax, (measure, title) in zip(axes.flat, names.items()):
        for (arm, _), part in (
            select(table, measure=measure).sort_values("epoch").groupby(["arm", "seed"], sort=False)
        ):
            late = part[(part["r2"] < 0.5)[::-1].cumsum()[::-1] == 0]
            ax.plot(late["r2"], late["value"], color=palette[arm], lw=0.6, alpha=0.45)
            ax.plot(late["r2"].tail(1), late["value"].tail(1), "o", color=palette[arm], ms=3)
        ax.set(xlim=(0.5, 1), xlabel="held-out R² on x + y", ylabel=title)
    return _finished(
        figure,
        label,
        palette,
        _sign("one network, training", lw=0.8),
        _sign("its end", ls="", marker="o"),
    )


def contrasts(table: pd.DataFrame, margin: float, xlabel: str, label: str) -> plt.Figure:
    """Differences with both of their intervals, a line each; the band of equivalence is grey.
    table: name, n, difference, low, high (bootstrap), t_low, t_high, verdict, in order from above;
    if it has a column `declared`, the others are hollow."""
    figure, axes = _panels(1, 1, 0.3 * len(table) + 0.5)
    ax, at = axes[0][0], np.arange(len(table))
    ax.axvspan(-margin, margin, color=GREY, alpha=0.2, lw=0)
    ax.axvline(0, color="k", lw=0.8)
    shade = [COLOURS[0] if word.startswith(("more", "less")) else GREY for word in table["verdict"]]
    ax.hlines(at, table["t_low"], table["t_high"], color=shade, lw=1)
    ax.hlines(at, table["low"], table["high"], color=shade, lw=3, alpha=0.5)
    filled = table.get("declared", pd.Series(True, table.index)).astype(bool)
    ax.scatter(
        table["difference"],
        at,
        facecolors=np.where(filled, shade, "w"),
        edgecolors=shade,
        s=16,
        zorder=3,
    )
    for y, row in enumerate(table.itertuples()):
        words = f"{row.verdict}, n = {row.n}".removeprefix(", ")
        ax.text(1.01, y, words, transform=ax.get_yaxis_transform(), fontsize=7, va="center")
    ax.set(yticks=at, yticklabels=table["name"], ylim=(len(table) - 0.5, -0.5), xlabel=xlabel)
    said = table["verdict"] != ""
    palette = (
        {"more or less": COLOURS[0], "neither" if said.all() else "neither, or no verdict": GREY}
        if said.any()
        else {}
    )
    palette = {word: colour for word, colour in palette.items() if colour in shade}
    kinds = {
        True: _sign("declared", ls="", marker="o"),
        False: _sign("exploratory", ls="", marker="o", mfc="w"),
    }
    kinds = [sign for kind, sign in kinds.items() if kind in set(table.get("declared", ()))]
    key = _sign("BCa bootstrap, 95 %", lw=3, alpha=0.5), _sign("Student's t, 95 %", lw=1)
    return _finished(
        figure,
        label,
        palette,
        *kinds,
        *key,
        _sign(f"equivalent: within ± {margin:g}", GREY, lw=6, alpha=0.3),
    )


def ruler(table: pd.DataFrame, order: list[str], xlabel: str, label: str) -> plt.Figure:
    """Networks on the scale of one measure: a panel for each architecture, a line for each kind of
    network. values: architecture, network, mean, low, high; order: kinds from above."""
    architectures = list(table["architecture"].unique())
    figure, axes = _panels(
        len(architectures),
        min(5, len(architectures)),
        0.2 * len(order) + 0.7,
        sharex=True,
        sharey=True,
    )
    palette = arm_colours(order)
    for ax, architecture in zip(axes.flat, architectures):
        rows = select(table, architecture=architecture).set_index("network").reindex(order)
        for y, network in enumerate(order):
            _means(ax, [y], rows.loc[[network]], palette[network], along="x", fmt="o", ms=4)
        ax.axvline(0, color=GREY, lw=0.8, ls=":")
        ax.set(title=architecture, xlabel=fill(xlabel, 20))
    axes[0][0].set(yticks=range(len(order)), yticklabels=order, ylim=(len(order) - 0.5, -0.5))
    return _finished(figure, label, {}, _sign("mean, 95 % t interval", marker="o"))


def units(table: pd.DataFrame, label: str) -> plt.Figure:
    """A panel for each network, a column for each unit of one layer, as wide as its effect: its
    variance by the digit that moves it; above, selectivity by effect and its value at chance.
    table: network, chance, effect, and as shares of its variance left, interaction, right."""
    networks = list(table["network"].unique())
    figure, axes = _panels(len(networks), min(4, len(networks)), 1.4, sharey=True)
    shares = dict(zip(("left", "interaction", "right"), SIDES))
    for ax, network in zip(axes.flat, networks):
        rows = select(table, network=network).sort_values("right")
        width = rows["effect"] / rows["effect"].sum()
        below = 0 * width
        for share, colour in shares.items():
            ax.bar(
                width.cumsum() - width,
                rows[share],
                width,
                below,
                align="edge",
                color=colour,
                lw=0.15,
                edgecolor="w",
            )
            below = below + rows[share]
        selectivity = (width * (rows["left"] - rows["right"]).abs()).sum()
        title = f"{network}\n{selectivity:.2f}, at chance {rows['chance'].iloc[0]:.2f}"
        ax.set(title=title, xlabel="units, by effect", xticks=[], xlim=(0, 1), ylim=(0, 1))
    axes[0][0].set_ylabel("share of a unit's variance")
    words = "moves with the left digit", "needs both at once", "moves with the right digit"
    return _finished(figure, label, dict(zip(words, SIDES)))


def regimes(
    values: pd.DataFrame, summary: pd.DataFrame, order: list, names: dict, label: str, one="network"
) -> plt.Figure:
    """A panel for each measure, a line for each regime; dotted: the mean of `fixed`. Logarithmic,
    but around 0, where a value is 20 times the median. values: measure, regime, value; summary:
    measure, regime, mean, low, high; one: what a point is."""
    figure, axes = _panels(len(names), len(names), 0.26 * len(order) + 0.6, sharey=True)
    palette = {name: {"fixed": COLOURS[0], "varying": COLOURS[1]}.get(name, GREY) for name in order}
    for ax, (measure, title) in zip(axes[0], names.items()):
        points = select(values, measure=measure, regime=order).dropna(subset="value")
        looks = {
            **HUE,
            "palette": palette,
            "order": order,
            "jitter": False,
            "size": 2.5,
            "alpha": 0.35,
        }
        sns.stripplot(points, x="value", y="regime", **looks, ax=ax)
        for y, regime in enumerate(order):
            _means(
                ax,
                [y + 0.24],
                select(summary, measure=measure, regime=regime),
                palette[regime],
                along="x",
            )
        for mean in select(summary, measure=measure, regime="fixed")["mean"]:
            ax.axvline(mean, color=COLOURS[0], lw=0.8, ls=":")
        ax.axvline(0, color=GREY, lw=0.6)
        ax.set(xlabel="", ylabel="", title=fill(title, 20))
        middle = points["value"].median()
        if len(points) and 0 < 20 * middle < points["value"].max():  # far ones would hide the rest
            near = 10.0 ** np.floor(np.log10(middle))
            ax.set_xscale("symlog", linthresh=near)
            ax.xaxis.set(
                major_locator=plt.FixedLocator([0, *near * 10.0 ** np.arange(9)]),
                major_formatter="{x:g}",
            )
            ax.set_xlabel(f"log scale from {near:g}")
            ax.minorticks_off()
            ax.autoscale(axis="x")  # with margins of this scale
    key = (
        _sign(f"one {one}", ls="", marker="o", alpha=0.35),
        _MEAN,
        _sign("mean of fixed", COLOURS[0], ls=":"),
    )
    return _finished(figure, label, {}, *key)


def swept(
    table: pd.DataFrame, level: pd.DataFrame, names: dict[str, str], label: str
) -> plt.Figure:
    """A row for each sweep, a column for each measure: mean and interval along the epochs, and a
    band at `level`. table: what, measure, epochs, mean, low, high; level: measure, mean, low,
    high."""
    lines = list(product(table["what"].unique(), names))
    figure, axes = _panels(len(lines), len(names), 1.7, sharey="col")
    palette = arm_colours(["varying standardised"])
    for ax, (what, measure) in zip(axes.flat, lines):
        rows = select(table, what=what, measure=measure).sort_values("epochs")
        _means(ax, range(len(rows)), rows, palette["varying standardised"], fmt="o-")
        for row in select(level, measure=measure).itertuples():
            ax.axhspan(row.low, row.high, color=COLOURS[0], alpha=0.25, linewidth=0)
        ax.set_xticks(range(len(rows)), list(rows["epochs"]))
        ax.axhline(0, color=GREY, lw=0.6)
        ax.margins(x=0.1)
        ax.set(title=fill(names[measure], 20) if ax in axes[0] else "", xlabel=f"{what}, epochs")
    return _finished(figure, label, palette, _sign("fixed", COLOURS[0], lw=6, alpha=0.25))


def fine_tuning(table: pd.DataFrame, label: str) -> plt.Figure:
    """Means and intervals of what is left unexplained of new goals, 1 - R², by steps of
    fine-tuning, a line for each arm. table: arm, steps, mean, low, high (of R²), in order of arm
    and steps."""
    figure, ((ax,),) = _panels(1, 1, 2.4)
    palette, table = (
        arm_colours(table["arm"]),
        table.assign(**{name: 1 - table[name] for name in ("mean", "low", "high")}),
    )
    for arm, rows in table.groupby("arm", sort=False):
        _means(ax, range(len(rows)), rows, palette[arm], fmt="o-")
    ax.set(
        xticks=range(table["steps"].nunique()),
        xticklabels=table["steps"].unique(),
        xlabel="steps of fine-tuning",
    )
    ax.set(ylabel="1 - R² on new goals, log scale", yscale="log")
    ax.set_yticks([0.1, 0.2, 0.5, 1, 2, 5], ["0.1", "0.2", "0.5", "1", "2", "5"])
    ax.minorticks_off()
    return _finished(figure, label, palette, _sign("mean, 95 % t interval", marker="o"))


def multiverse(curve: pd.DataFrame, choices: list[str], ylabel: str, label: str) -> plt.Figure:
    """A specification curve: effects in order with their intervals, and beneath, which choices each
    was made with. curve: difference, low, high and the columns in `choices`, in order of
    `difference`."""
    rows = [(choice, taken) for choice in choices for taken in sorted(curve[choice].unique())]
    heights, at = [2.2, 0.13 * len(rows)], np.arange(len(curve))
    figure, ((above,), (below,)) = _panels(
        2, 1, sum(heights) / 2, height_ratios=heights, sharex=True
    )
    shade = np.where((curve["high"] < 0) | (curve["low"] > 0), COLOURS[0], GREY)
    above.vlines(at, curve["low"], curve["high"], color=shade, lw=0.8, alpha=0.5)
    above.scatter(at, curve["difference"], s=5, color=shade, linewidths=0)
    above.axhline(0, color="k", lw=0.8)
    above.set_ylabel(ylabel)
    marks = [at[curve[choice] == taken] for choice, taken in rows]
    below.eventplot(
        marks, lineoffsets=range(len(rows)), linelengths=0.76, linewidths=0.7, colors="k"
    )
    below.set_yticks(range(len(rows)), [taken for _, taken in rows], fontsize=6.5)
    below.set(ylim=(len(rows) - 0.5, -0.5), xlabel=f"{len(curve)} specifications, sorted")
    below.xaxis.get_major_locator().set_params(integer=True)
    for choice in choices:
        first = [name for name, _ in rows].index(choice)
        below.axhline(first - 0.5, color=GREY, lw=0.5)
        below.text(
            1.01, first, choice, transform=below.get_yaxis_transform(), fontsize=7, va="center"
        )
    return _finished(
        figure,
        label,
        {"95 % BCa bootstrap interval without 0": COLOURS[0], "interval with 0": GREY},
    )


def _panels(count: int, columns: int, height: float, **options) -> tuple[plt.Figure, np.ndarray]:
    """A figure as wide as a page, with lines of `columns` panels, `height` inches each."""
    lines = -(-count // columns)
    options |= {"figsize": (PAGE, lines * height + 0.6), "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(lines, columns, **options)
    for ax in axes.flat[count:]:
        ax.set_visible(False)
    return figure, axes


def _finished(figure: plt.Figure, label: str, palette: dict[str, str], *signs) -> plt.Figure:
    """With its title and, below, its key: the colours, then other signs."""
    key = [*(_sign(name, colour, ls="", marker="s") for name, colour in palette.items()), *signs]
    if key:
        rows = 1 + sum(len(one.get_label()) + 6 for one in key) // 115  # letters that fit on a line
        figure.legend(handles=key, loc="outside lower center", ncols=-(-len(key) // rows))
    figure.suptitle(fill(label.replace(" = ", "\xa0=\xa0"), 110))
    return figure


def _sign(label: str, colour: str = "k", **looks):
    """One entry of a key."""
    return plt.Line2D([], [], color=colour, label=label, **{"ms": 4} | looks)


_NETWORK, _MEAN = (
    _sign("one network", ls="", marker="o", alpha=0.35),
    _sign("mean, 95 % t interval", marker="s"),
)


def _means(
    ax: plt.Axes,
    at,
    rows: pd.DataFrame,
    colour: str,
    along: str = "y",
    fmt: str = "s",
    ms: float = 3,
) -> None:
    """Means and intervals of a summary's rows, one at each place; no bar where there is no
    interval."""
    bars = {
        f"{along}err": [(rows["mean"] - rows["low"]).abs(), (rows["high"] - rows["mean"]).abs()]
    }
    x, y = (at, rows["mean"]) if along == "y" else (rows["mean"], at)
    ax.errorbar(x, y, **bars, fmt=fmt, ms=ms, capsize=2.5, color=colour)
