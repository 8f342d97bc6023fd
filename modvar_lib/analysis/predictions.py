"""Predictions: statements that config/primary.yaml made before any network of them was trained, and
whether they came true.

A statement needs every network that was declared for it. With fewer it has no number, so that
nobody sees half of the networks first. Networks that failed are left out with their pairs, and
counted.
"""

from itertools import permutations, product
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from modvar_lib.analysis.contrasts import (
    END,
    EQUAL,
    WORKING,
    Condition,
    Declaration,
    at_equal_error,
    contrast,
    holds,
)
from modvar_lib.analysis.statistics import holm, paired_difference
from modvar_lib.analysis.study import final, in_layer, select
from modvar_lib.goals import REGIMES, Schedule, goal, outputs
from modvar_lib.settings import parse_seeds

ONE_HOT, FIRST_LAYER = "OneHot mlp", "first layer"
FEW = 8  # the first seeds: of the one-hot digits, and of what is called a control
SCORE = "activation_change_pre", "exchanged_share_pre", "offset_share_pre"
CAME = "came true"


class Statement(NamedTuple):
    """The second arm minus the first, by a measure in a layer (or place) of an architecture.
    predicted: a kind of `Condition`; read: one of COMPARED_AT; seeds: all that have to be there, or
    none: whatever is there; decided_by: the p that has to be below 0.05, its own or Holm's (p_holm)
    over the statements of one prediction."""

    prediction: str
    architecture: str
    layer: str
    measure: str
    first: str
    second: str
    predicted: str
    read: str = END
    seeds: tuple[int, ...] = ()
    decided_by: str = "p"


def statements(declared: dict) -> list[Statement]:
    """Every statement of the third declaration that is about one contrast. declared: what
    `study.primary` gives."""
    third = declared["third"]
    stated, (fixed, varying) = third["predictions"], third["contrasts"][0]
    seeds, measure = parse_seeds(third["seeds"]), third["measures"][1]
    few, pair = seeds[:FEW], (fixed, varying)
    every = [
        Statement("one_hot", ONE_HOT, *one, seeds=few, decided_by="p_holm")
        for one in stated["one_hot"]
    ]
    every += [
        Statement(
            "transfer", name, "readout", of, *pair, kind, END, few if name == ONE_HOT else seeds
        )
        for kind in ("rises", "falls")
        for name in stated["transfer"][kind]
        for of in stated["transfer"]["measures"]
    ]
    every += [
        Statement("silence", name, FIRST_LAYER, of, *pair, "rises", EQUAL, seeds)
        for name in stated["silence"]["architectures"]
        for of in stated["silence"]["measures"]
    ]
    every += [
        Statement("controls", name, "before_bottleneck", measure, fixed, arm, "rises", END, few)
        for name in stated["controls"]["architectures"]
        for arm in stated["controls"]["arms"]
    ]
    return every


def failures(history: pd.DataFrame) -> pd.DataFrame:
    """`study.final` of networks: failed on x + y or, of a goal with several outputs, on that."""
    last, own = final(history), final(history, "test_r2")["failed"]
    several = {
        name: name in REGIMES and outputs(goal(name, 0, 0, Schedule())) > 1
        for name in last["regime"].unique()
    }
    several = last["regime"].map(several)
    return last.assign(failed=own.where(several, last["failed"]))


def rows_of(table: pd.DataFrame, one: Statement) -> pd.DataFrame:
    """The rows of a table that a statement is about; none, unless every network is there."""
    part = select(table, architecture=one.architecture, arm=[one.first, one.second])
    layer = part["layer"].iloc[0] if one.layer == FIRST_LAYER and len(part) else one.layer
    part = select(in_layer(part, layer), measure=one.measure)
    part = select(part, seed=one.seeds) if one.seeds else part
    there = part.groupby("arm")["seed"].nunique().reindex([one.first, one.second]).fillna(0)
    return part if there.min() >= len(one.seeds) else part.iloc[:0]


def predicted(table: pd.DataFrame, stated: list[Statement]) -> pd.DataFrame:
    """Statements against a table of networks along training (`study.along`): a row for each, with
    the first arm's level, what `paired_difference` gives of the networks that did not fail, the
    difference of all (difference_all), p by Holm's correction over the statements of one
    prediction, failed (networks of both arms), and whether it came true (`holds`); or "not
    trained", or "all failed"."""
    found = []
    for one in stated:
        part = rows_of(table, one)
        working = part[~part["failed"].astype(bool)]
        number, every = (
            contrast(rows, one.first, one.second, compared_at=one.read) for rows in (working, part)
        )
        failed = part.drop_duplicates(["arm", "seed"])["failed"].astype(bool).sum()
        beside = {"difference_all": every["difference"], "failed": failed}
        named = one._asdict() | {"seeds": len(one.seeds)}
        found.append(named | number | beside)
    found = pd.DataFrame(found)
    found["p_holm"] = found.groupby("prediction")["p"].transform(lambda p: holm(p, len(p)))
    found[CAME] = [
        holds(row, Condition("", "", "", row["predicted"], p=row["decided_by"]))
        if row["n"]
        else "all failed"
        if row["failed"]
        else "not trained"
        for row in found.to_dict("records")
    ]
    return found


def parts_alone(table: pd.DataFrame, stated: list[Statement]) -> pd.DataFrame:
    """Which part of the pooled score, read before the nonlinearity, brings its fall. The score is
    about sqrt(2 · exchanged share · (1 - constant's share)). For each pair of networks: the fall
    itself, and that of the formula if one share of the second arm, and nothing else, takes the
    place of the first's.

    A row for each architecture, arms and reading of the statements: n, `fall`, `by constant` and
    `by exchanged share` with their intervals, and `share`, by constant / fall. That the constant
    brings it came true if that is a half or more; `above half` (by constant minus half of the fall:
    negative, if so) tells by its interval how surely."""
    found = []
    for one in dict.fromkeys(one._replace(measure="") for one in stated):
        at = []
        for measure in SCORE:
            rows = rows_of(table, one._replace(layer="pooled", measure=measure))
            rows = rows[~rows["failed"].astype(bool)]
            at.append(at_equal_error(*(select(rows, arm=arm) for arm in (one.first, one.second))))
        score, share, offset = at
        formula = {
            (s, c): (2 * share[s] * (1 - offset[c])) ** 0.5
            for s, c in product(("first", "second"), repeat=2)
        }
        start = formula["first", "first"]
        parts = {
            "fall": (score["first"], score["second"]),
            "by constant": (start, formula["first", "second"]),
            "by exchanged share": (start, formula["second", "first"]),
            "above half": (
                start + (score["second"] - score["first"]) / 2,
                formula["first", "second"],
            ),
        }
        row: dict = {"architecture": one.architecture, "contrast": f"{one.second} - {one.first}"}
        row |= {"read": one.read, "n": score["first"].add(score["second"]).count()}
        for name, both in parts.items():
            change = paired_difference(*both)
            row |= {name: change["difference"]}
            row |= {f"{name}, {end}": change[end] for end in ("low", "high")}
        row["share"] = row["by constant"] / row["fall"] if row["fall"] < 0 else np.nan
        came = "not trained" if not row["n"] else "yes" if row["share"] >= 0.5 else "no"
        found.append(row | {CAME: came})
    return pd.DataFrame(found)


def merging(table: pd.DataFrame, declared: Declaration, stated: dict) -> pd.DataFrame:
    """The points of the prediction that merging decides: a row for each layer with, of each half of
    the seeds, `level`, the mean of the measure under the first arm at the end, and `difference`,
    the second arm minus the first, read where the declaration decides (one-hot digits: at the end).
    Raise ValueError unless all networks of all points are there.

    stated: the prediction's entry of config/primary.yaml; table: see `predicted`."""
    pair = declared.contrasts[0]
    points = [
        (name, layer, declared.decides, declared.seeds)
        for name, layers in declared.layers.items()
        for layer in layers
    ]
    points += [(*name.rsplit(" ", 1), END, declared.seeds[:FEW]) for name in stated["extra"]]
    found = []
    for name, layer, read, seeds in points:
        one = Statement("merging", name, layer, stated["measure"], *pair, "", read, seeds)
        part = rows_of(table, one)
        if part.empty:
            raise ValueError(f"{name} {layer}")
        part = part[~part["failed"].astype(bool)]
        row = {"architecture": name, "layer": layer}
        for half, own in enumerate((seeds[: len(seeds) // 2], seeds[len(seeds) // 2 :]), 1):
            rows = select(part, seed=own)
            ends = select(rows, arm=pair[0]).sort_values("epoch").groupby("seed").tail(1)
            row[f"level_{half}"] = ends["value"].mean()
            row[f"difference_{half}"] = contrast(rows, *pair, compared_at=read)["difference"]
        found.append(row)
    return pd.DataFrame(found)


def ranked(points: pd.DataFrame) -> tuple[float, float]:
    """Spearman's correlation of `merging`'s levels of one half of the seeds with the differences of
    the other, both ways, averaged; and its p, exact and one-sided (negative), over all orders of
    the layers.

    >>> points = {"level_1": [0, 1, 2, 3], "level_2": [0, 1, 2, 3]}
    >>> points |= {"difference_1": [3, 2, 1, 0], "difference_2": [3, 2, 0, 1]}
    >>> rho, p = ranked(pd.DataFrame(points))
    >>> round(rho, 2), round(p, 3)
    (-0.9, 0.083)
    """
    levels = points[["level_1", "level_2"]].rank().to_numpy()
    differences = points[["difference_2", "difference_1"]].rank().to_numpy()

    def correlation(order) -> float:
        order = list(order)
        both = [spearmanr(levels[:, k], differences[order, k]).statistic for k in (0, 1)]
        return float(np.mean(both))

    rho = correlation(range(len(points)))
    every = [correlation(order) for order in permutations(range(len(points)))]
    return rho, float(np.mean(np.array(every) <= rho + 1e-9))


def merged(points: pd.DataFrame, said: pd.DataFrame, declared: Declaration, measure: str) -> dict:
    """Whether merging came true: Spearman's correlation is negative with p below 0.05, and the
    difference is `more` in a declared layer whose mean level is below 0.5. said: the verdicts of
    `declared_contrasts`."""
    rho, p = ranked(points)
    first, second = declared.contrasts[0]
    name = f"{second} - {first}"
    said = select(said, networks=WORKING, measure=measure, contrast=name, read=declared.decides)
    room = said[(said["level"] < 0.5) & (said["verdict"] == "more")]
    came = "yes" if rho < 0 and p < 0.05 and len(room) else "no"
    return {"rho": rho, "p": p, "more below 0.5": len(room), CAME: came}
