"""One function a figure, one style. Figures draw tables; they compute no statistic."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

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
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", metadata={"Software": None})
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


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
                yerr=None if pd.isna(row.low) else [[row.mean - row.low], [row.high - row.mean]],
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
                        bar = (
                            None
                            if pd.isna(row.low)
                            else [[row.mean - row.low], [row.high - row.mean]]
                        )
                        ax.errorbar(
                            x + shift + 0.11,
                            row.mean,
                            yerr=bar,
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


def _where(table: pd.DataFrame, values: dict) -> pd.DataFrame:
    return table[(table[list(values)] == pd.Series(values)).all(axis=1)]
