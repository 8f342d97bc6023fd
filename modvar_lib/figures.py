"""One function a figure, one style. Figures draw tables; they compute no statistic."""

from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from modvar_lib import files

COLOURS = [
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
]  # Okabe and Ito: safe for colour-blind readers
STYLE = {
    "figure.dpi": 110,
    "savefig.dpi": 160,
    "savefig.bbox": "tight",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "modvar",
    "svg.fonttype": "none",
}
GREY = "#666666"


def style() -> None:
    """Use the project's style from here on."""
    sns.set_theme(context="notebook", style="ticks", rc=STYLE)


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write name.png and name.svg, the same bytes for the same figure."""
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        drawn = BytesIO()
        figure.savefig(drawn, format=kind, metadata=metadata)
        files.write(folder / f"{name}.{kind}", drawn.getvalue())


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
    columns = min(3, len(architectures))
    lines = -(-len(architectures) // columns)
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(3.4 * columns + 1.2, 3.0 * lines + 0.9),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax in axes.flat[len(architectures) :]:
        ax.set_visible(False)
    for ax, architecture in zip(axes.flat, architectures):
        rows = summary[summary["architecture"] == architecture]
        palette = colours(rows["regime"])
        for x, row in enumerate(rows.itertuples()):
            own = scores[
                (scores["architecture"] == architecture) & (scores["regime"] == row.regime)
            ].sort_values("seed")
            spread = [x + 0.16 * ((i % 5) - 2) / 2 for i in range(len(own))]
            for failed, marker in ((False, "o"), (True, "x")):
                shown = own["failed"].to_numpy() == failed
                at = [s for s, keep in zip(spread, shown) if keep]
                ax.scatter(
                    at,
                    own["value"][shown],
                    s=24,
                    marker=marker,
                    color=palette[row.regime],
                    alpha=0.55,
                    linewidths=1.2,
                )
            ax.errorbar(
                x + 0.26,
                row.mean,
                yerr=_bar(row),
                fmt="s",
                color=palette[row.regime],
                capsize=4,
                ms=6,
            )
            if row.regime in original:
                mean, spread_of_original = original[row.regime]
                ax.errorbar(
                    x - 0.26,
                    mean,
                    yerr=spread_of_original,
                    fmt="D",
                    color=GREY,
                    capsize=4,
                    ms=5,
                    mfc="white",
                )
        ax.set_xticks(
            range(len(rows)),
            [f"{r.regime}\nn = {r.networks}, failed {r.failed}" for r in rows.itertuples()],
        )
        ax.set_xlim(-0.6, len(rows) - 0.4)
        ax.set_title(architecture)
    for ax in axes[:, 0]:
        ax.set_ylabel("activation change (original score)")
    axes[0][0].set_ylim(
        0, max(0.8, 1.15 * scores["value"].max())
    )  # a wide interval of few networks may leave the picture
    key = [
        plt.Line2D([], [], ls="", marker="o", color="k", alpha=0.55, label="one network"),
        plt.Line2D([], [], ls="", marker="x", color="k", alpha=0.55, label="failed network"),
        plt.Line2D([], [], ls="-", marker="s", color="k", label="mean, 95 % t interval"),
        plt.Line2D(
            [], [], ls="-", marker="D", color=GREY, mfc="white", label="original, mean ± its spread"
        ),
    ]
    figure.legend(handles=key, loc="outside lower center", ncols=2, fontsize=9)
    figure.suptitle(label, fontsize=11)
    return figure


def layers(scores: pd.DataFrame, summary: pd.DataFrame, label: str) -> Figure:
    """The score by layer and side: a row an architecture, a column a side; points are networks, bars mean and interval.

    scores: architecture, regime, seed, layer, side, value. summary: architecture, regime, layer, side, mean, low, high.
    """
    architectures, sides = list(summary["architecture"].unique()), ["left", "right"]
    figure, axes = plt.subplots(
        len(architectures),
        2,
        figsize=(9.6, 3.1 * len(architectures) + 0.6),
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    palette = colours(summary["regime"])
    regimes = [regime for regime in palette if regime in set(summary["regime"])]
    for i, architecture in enumerate(architectures):
        names = list(scores.loc[scores["architecture"] == architecture, "layer"].unique())
        for ax, side in zip(axes[i], sides):
            for k, regime in enumerate(regimes):
                shift = 0.36 * (k - (len(regimes) - 1) / 2)
                for x, layer in enumerate(names):
                    pick = {
                        "architecture": architecture,
                        "side": side,
                        "regime": regime,
                        "layer": layer,
                    }
                    own = _where(scores, pick)
                    ax.scatter(
                        [x + shift] * len(own),
                        own["value"],
                        s=12,
                        color=palette[regime],
                        alpha=0.35,
                        linewidths=0,
                    )
                    for row in _where(summary, pick).itertuples():
                        ax.errorbar(
                            x + shift + 0.11,
                            row.mean,
                            yerr=_bar(row),
                            fmt="s",
                            ms=4,
                            capsize=3,
                            color=palette[regime],
                        )
            ax.set_xticks(range(len(names)), names, rotation=20, ha="right")
            ax.set_title(f"{architecture}: {side} digit exchanged")
            ax.set_ylim(0, 1.1 * _where(scores, {"architecture": architecture})["value"].max())
        axes[i][0].set_ylabel("activation change")
    key = [
        plt.Line2D(
            [],
            [],
            ls="-",
            marker="s",
            color=palette[r],
            label=f"{r}: networks, mean, 95 % t interval",
        )
        for r in regimes
    ]
    figure.legend(handles=key, loc="outside lower center", ncols=len(key), fontsize=9)
    figure.suptitle(label, fontsize=11)
    return figure


def curves(history: pd.DataFrame, switches: list[int], label: str, floor: float = -1.0) -> Figure:
    """Held-out R² by epoch, a line a network: on the goal of the epoch, and on x + y. Goal switches are dotted lines.

    history: architecture, regime, seed, epoch, test_r2, sum_r2, failed. Values below `floor` leave the picture.
    """
    architectures = list(history["architecture"].unique())
    figure, axes = plt.subplots(
        len(architectures),
        2,
        figsize=(9.6, 2.9 * len(architectures) + 0.7),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    palette = colours(history["regime"])
    regimes = [regime for regime in palette if regime in set(history["regime"])]
    for i, architecture in enumerate(architectures):
        for ax, (column, title) in zip(
            axes[i], (("test_r2", "goal of the epoch"), ("sum_r2", "x + y"))
        ):
            for switch in switches:
                ax.axvline(switch - 0.5, color=GREY, lw=0.6, ls=":")
            for (regime, _), run in history[history["architecture"] == architecture].groupby(
                ["regime", "seed"]
            ):
                failed = bool(run["failed"].iloc[0])
                ax.plot(
                    run["epoch"],
                    run[column],
                    color=palette[regime],
                    lw=0.9,
                    alpha=0.6,
                    ls="--" if failed else "-",
                )
            ax.axhline(0, color=GREY, lw=0.6)
            ax.set_ylim(floor, 1.03)
            ax.set_title(f"{architecture}: R² on {title}")
        axes[i][0].set_ylabel("held-out R²")
    for ax in axes[-1]:
        ax.set_xlabel("epoch")
    key = [plt.Line2D([], [], color=palette[r], label=r) for r in regimes]
    key += [
        plt.Line2D([], [], color="k", ls="--", label="failed network"),
        plt.Line2D([], [], color=GREY, ls=":", label="switch of the varying goal"),
    ]
    figure.legend(handles=key, loc="outside lower center", ncols=len(key), fontsize=9)
    figure.suptitle(label, fontsize=11)
    return figure


def approximation(table: pd.DataFrame, label: str) -> Figure:
    """The score against its approximation, a panel a layer.

    table: layer, regime, activation_change, activation_change_expected.
    """
    layers = list(table["layer"].unique())
    figure, axes = plt.subplots(
        1, len(layers), figsize=(3.2 * len(layers) + 0.4, 3.9), squeeze=False, layout="constrained"
    )
    palette = colours(table["regime"])
    for ax, layer in zip(axes[0], layers):
        own = table[table["layer"] == layer]
        for regime, part in own.groupby("regime"):
            ax.scatter(
                part["activation_change"],
                part["activation_change_expected"],
                s=18,
                alpha=0.6,
                linewidths=0,
                color=palette[regime],
                label=regime,
            )
        ends = own[["activation_change", "activation_change_expected"]]
        low, high = ends.min().min() - 0.03, ends.max().max() + 0.03
        ax.plot([low, high], [low, high], color=GREY, lw=0.8)
        ax.set(xlim=(low, high), ylim=(low, high), aspect="equal", title=layer, xlabel="score")
    axes[0][0].set_ylabel("approximation")
    axes[0][0].legend(fontsize=9)
    figure.suptitle(label, fontsize=11)
    return figure


def by_layer(
    values: pd.DataFrame, summary: pd.DataFrame, names: dict[str, str], label: str
) -> Figure:
    """A panel a measure, layers along it, regimes side by side: points are networks, bars mean and interval.

    values: measure, layer, regime, value. summary: measure, layer, regime, mean, low, high. names: titles of the measures.
    """
    measures = [name for name in names if name in set(values["measure"])]
    figure, axes = plt.subplots(
        1, len(measures), figsize=(3.4 * len(measures), 3.4), squeeze=False, layout="constrained"
    )
    palette = colours(values["regime"])
    for ax, measure in zip(axes[0], measures):
        own = values[values["measure"] == measure]
        layers = list(own["layer"].unique())
        for k, regime in enumerate(palette):
            for x, layer in enumerate(layers):
                at = x + 0.3 * (k - (len(palette) - 1) / 2)
                _points(
                    ax,
                    at,
                    own,
                    summary,
                    measure,
                    {"layer": layer, "regime": regime},
                    palette[regime],
                )
        ax.set_xticks(range(len(layers)), layers)
        ax.set_title(names[measure])
        ax.set_ylim(0, 1.05 * ax.get_ylim()[1])
    key = [plt.Line2D([], [], ls="", marker="o", color=palette[r], label=r) for r in palette]
    figure.legend(handles=key, loc="outside lower center", ncols=len(key), fontsize=9)
    figure.suptitle(label, fontsize=11)
    return figure


def dose(
    curve: pd.DataFrame, across: pd.DataFrame, layer: str, names: dict[str, str], label: str
) -> Figure:
    """A panel a measure: its mean and interval along the dose c, and other networks drawn across, in one layer.

    curve: measure, layer, c, mean, low, high. across: measure, layer, network, mean, low, high. names: titles of the measures.
    """
    columns = 3
    lines = -(-len(names) // columns)
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(3.5 * columns, 2.7 * lines + 0.7),
        squeeze=False,
        layout="constrained",
    )
    networks = list(across["network"].unique())
    looks = dict(zip(networks, ((COLOURS[1], "-"), (GREY, "--"), (COLOURS[2], ":"))))
    for ax, (measure, title) in zip(axes.flat, names.items()):
        own = _where(curve, {"measure": measure, "layer": layer}).sort_values("c")
        at = range(len(own))
        ax.fill_between(at, own["low"], own["high"], color=COLOURS[0], alpha=0.2, linewidth=0)
        ax.plot(at, own["mean"], "o-", color=COLOURS[0], ms=4)
        for network, (colour, dashes) in looks.items():
            for row in _where(
                across, {"measure": measure, "layer": layer, "network": network}
            ).itertuples():
                ax.axhspan(row.low, row.high, color=colour, alpha=0.15, linewidth=0)
                ax.axhline(row.mean, color=colour, ls=dashes, lw=1.2)
        ax.set_xticks(at, [f"{c:g}" for c in own["c"]])
        ax.set(title=title, ylim=(min(0, ax.get_ylim()[0]), None))
    for ax in axes[-1]:
        ax.set_xlabel("c")
    key = [plt.Line2D([], [], color=COLOURS[0], marker="o", ms=4, label="dose, x + y")]
    key += [plt.Line2D([], [], color=c, ls=d, label=network) for network, (c, d) in looks.items()]
    figure.legend(handles=key, loc="outside lower center", ncols=len(key), fontsize=9)
    figure.suptitle(label, fontsize=11)
    return figure


def placed(table: pd.DataFrame, names: dict[str, str], label: str) -> Figure:
    """From towers with their units mixed (0) to towers (1), with intervals: a panel a layer, a line a measure.

    table: layer, measure, regime, share, share_low, share_high.
    """
    layers = list(table["layer"].unique())
    figure, axes = plt.subplots(
        1,
        len(layers),
        figsize=(4.6 * len(layers) + 0.6, 0.5 * len(names) + 1.6),
        sharey=True,
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    palette = colours(table["regime"])
    for ax, layer in zip(axes[0], layers):
        for y, measure in enumerate(names):
            for k, regime in enumerate(palette):
                for row in _where(
                    table, {"layer": layer, "measure": measure, "regime": regime}
                ).itertuples():
                    ax.errorbar(
                        row.share,
                        y + 0.2 * (k - (len(palette) - 1) / 2),
                        xerr=[[abs(row.share - row.share_low)], [abs(row.share_high - row.share)]],
                        fmt="o",
                        ms=5,
                        capsize=3,
                        color=palette[regime],
                    )
        for end in (0, 1):
            ax.axvline(end, color=GREY, lw=0.8, ls=":")
        ax.set_title(layer)
        ax.set_xlabel("0 towers with units mixed, 1 towers")
    axes[0][0].set_yticks(range(len(names)), list(names.values()))
    axes[0][0].invert_yaxis()
    key = [plt.Line2D([], [], ls="", marker="o", color=palette[r], label=r) for r in palette]
    figure.legend(handles=key, loc="outside lower center", ncols=len(key), fontsize=9)
    figure.suptitle(label, fontsize=11)
    return figure


def regimes(
    values: pd.DataFrame, summary: pd.DataFrame, order: list[str], names: dict[str, str], label: str
) -> Figure:
    """A panel a measure, a line a regime: points are networks, bars mean and interval; a vertical line at the mean of `fixed`.
    A measure with values 20 times its median and more has a logarithmic axis.

    values: measure, regime, value. summary: measure, regime, mean, low, high.
    """
    figure, axes = plt.subplots(
        1,
        len(names),
        figsize=(3.0 * len(names) + 0.8, 0.36 * len(order) + 1.4),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    palette = {name: COLOURS[i] if i < 2 else GREY for i, name in enumerate(colours(order))}
    for ax, (measure, title) in zip(axes[0], names.items()):
        for y, regime in enumerate(order):
            where = {"measure": measure, "regime": regime}
            own = _where(values, where)["value"]
            ax.scatter(own, [y] * len(own), s=10, alpha=0.3, linewidths=0, color=palette[regime])
            for row in _where(summary, where).itertuples():
                ax.errorbar(
                    row.mean,
                    y + 0.22,
                    xerr=_bar(row),
                    fmt="s",
                    ms=4,
                    capsize=3,
                    color=palette[regime],
                )
        for row in _where(summary, {"measure": measure, "regime": "fixed"}).itertuples():
            ax.axvline(row.mean, color=COLOURS[0], lw=0.8, ls=":")
        ax.set_title(title)
        own = _where(values, {"measure": measure})["value"].dropna()
        if len(own) and 0 < 20 * own.median() < own.max():
            ax.set_xscale("log", nonpositive="clip")  # a few far out would hide the rest
            ax.set_xlim(own[own > 0].min() / 2, None)
        else:
            ax.set_xlim(0, None)
    axes[0][0].set_yticks(range(len(order)), order)
    axes[0][0].invert_yaxis()
    figure.suptitle(label, fontsize=11)
    return figure


def swept(table: pd.DataFrame, level: pd.DataFrame, names: dict[str, str], label: str) -> Figure:
    """A line a sweep, a column a measure: mean and interval along the epochs swept; a band at `level`.

    table: what, measure, epochs, mean, low, high. level: measure, mean, low, high.
    """
    sweeps = list(table["what"].unique())
    figure, axes = plt.subplots(
        len(sweeps),
        len(names),
        figsize=(2.9 * len(names) + 0.4, 2.3 * len(sweeps) + 0.5),
        sharey="col",
        squeeze=False,
        layout="constrained",
    )
    for line, what in zip(axes, sweeps):
        for ax, (measure, title) in zip(line, names.items()):
            own = _where(table, {"what": what, "measure": measure}).sort_values("epochs")
            at = range(len(own))
            ax.errorbar(
                at,
                own["mean"],
                yerr=[own["mean"] - own["low"], own["high"] - own["mean"]],
                fmt="o-",
                ms=4,
                capsize=3,
                color=COLOURS[1],
            )
            for row in _where(level, {"measure": measure}).itertuples():
                ax.axhspan(row.low, row.high, color=COLOURS[0], alpha=0.25, linewidth=0)
            ax.set_xticks(at, [str(e) for e in own["epochs"]])
            ax.set_title(title if what == sweeps[0] else "")
            ax.set_xlabel(f"{what}, epochs")
            ax.set_ylim(0, None)
    figure.suptitle(label, fontsize=11)
    return figure


def multiverse(curve: pd.DataFrame, choices: list[str], ylabel: str, label: str) -> Figure:
    """A specification curve: effects in order with their intervals, and beneath, which choices each was made with.

    curve: difference, low, high and the columns in `choices`, in order of `difference`.
    """
    rows = [(choice, taken) for choice in choices for taken in sorted(curve[choice].unique())]
    figure, (above, below) = plt.subplots(
        2,
        1,
        figsize=(10, 2.8 + 0.17 * len(rows)),
        height_ratios=[2.4, 0.17 * len(rows)],
        sharex=True,
        layout="constrained",
    )
    at = range(len(curve))
    clear = (curve["high"] < 0) | (curve["low"] > 0)
    shade = [COLOURS[0] if sure else GREY for sure in clear]
    above.vlines(at, curve["low"], curve["high"], color=shade, lw=0.8, alpha=0.5)
    above.scatter(at, curve["difference"], s=6, color=shade, linewidths=0)
    above.axhline(0, color="k", lw=0.8)
    above.set_ylabel(ylabel)
    key = [
        plt.Line2D([], [], color=c, marker="o", ms=3, label=text)
        for c, text in ((COLOURS[0], "95 % interval excludes 0"), (GREY, "includes 0"))
    ]
    above.legend(handles=key, fontsize=9, loc="upper left")
    for y, (choice, taken) in enumerate(rows):
        own = [i for i, value in zip(at, curve[choice]) if value == taken]
        below.vlines(own, y - 0.38, y + 0.38, color="k", lw=0.8)
    edges = [y for y, (choice, _) in enumerate(rows) if y and rows[y - 1][0] != choice]
    for y in edges:
        below.axhline(y - 0.5, color=GREY, lw=0.5)
    below.set_yticks(range(len(rows)), [taken for _, taken in rows], fontsize=8)
    below.set(ylim=(len(rows) - 0.5, -0.5), xlabel=f"{len(curve)} specifications, sorted")
    for y in [0, *edges]:
        below.text(
            1.01, y, rows[y][0], transform=below.get_yaxis_transform(), fontsize=8, va="center"
        )
    figure.suptitle(label, fontsize=11)
    return figure


def _points(ax, x, values, summary, measure, where, colour) -> None:
    """Networks of one group as points, their mean and interval beside."""
    own = _where(values, {"measure": measure, **where})["value"].to_numpy()
    ax.scatter([x] * len(own), own, s=10, alpha=0.35, linewidths=0, color=colour)
    for row in _where(summary, {"measure": measure, **where}).itertuples():
        ax.errorbar(x + 0.09, row.mean, yerr=_bar(row), fmt="s", ms=4, capsize=3, color=colour)


def _bar(row) -> list | None:
    """The interval of a summary's row as matplotlib wants it; none with one network."""
    return None if pd.isna(row.low) else [[row.mean - row.low], [row.high - row.mean]]


def _where(table: pd.DataFrame, values: dict) -> pd.DataFrame:
    return table[(table[list(values)] == pd.Series(values)).all(axis=1)]
