"""Contrasts: one arm minus another, networks of the same seed matched, and what may be said of it.

Tables of networks have a row for each moment of each network: columns `arm` (or another, `of`),
seed, value; where networks are compared at equal error, epoch and r2 (on x + y), too. Tables of
contrasts have a row for each comparison: contrast ("second - first"), read (one of COMPARED_AT),
level (the mean of the first arm over the same pairs) and what `paired_difference` gives. Rules are
data: a Condition names a row, and what must hold of it.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from modvar_lib.analysis.statistics import holm, interval, paired_difference, verdict
from modvar_lib.analysis.study import arms, first_trained, in_layer, primary, select
from modvar_lib.errors import InputError
from modvar_lib.settings import parse_seeds

COMPARED_AT = END, EQUAL = "at the end", "at equal error"
WORKING, ALL = "neither failed", "all"  # networks: without pairs of which one failed, or with them
NUMBERS = ["n", "difference", "low", "high", "t_low", "t_high", "p", "d", "note"]
BEFORE = {"before the bottleneck": "before_bottleneck"}
ERROR, INTERACTION = "interchange_error_over_chance", "interaction"


def at_equal_error(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Networks of two arms (columns seed, epoch, r2, value), matched by seed, where their errors
    are equal: a row per seed, columns r2, first, second. r2 is the lower of the two final R²: that
    network is read at its end, the other where its R² first reaches r2, linearly between the kept
    moments around that point; NaN where there is none.

    >>> slow = pd.DataFrame({"seed": 0, "epoch": [1, 2], "r2": [0.2, 0.6], "value": [0.0, 0.5]})
    >>> fast = pd.DataFrame({"seed": 0, "epoch": [1, 2], "r2": [0.4, 0.8], "value": [0.1, 0.9]})
    >>> at_equal_error(slow, fast).round(2).to_dict("records")
    [{'r2': 0.6, 'first': 0.5, 'second': 0.5}]
    """
    one, other = (table.sort_values("epoch").groupby("seed") for table in (first, second))
    rows = {}
    for seed in np.intersect1d(first["seed"], second["seed"]):
        curves = [of.get_group(seed)[["r2", "value"]].to_numpy(float) for of in (one, other)]
        r2 = np.min([curve[-1, 0] for curve in curves])
        rows[seed] = [r2, *(_reached(curve, r2) for curve in curves)]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["r2", "first", "second"])


def _reached(curve: np.ndarray, r2: float) -> float:
    """The value where a curve of (R², value) first reaches r2."""
    if curve[-1, 0] == r2:
        return curve[-1, 1]
    after = np.flatnonzero(curve[:, 0] >= r2)
    if not len(after) or after[0] == 0:
        return np.nan
    (r2_before, before), (r2_after, value) = curve[after[0] - 1 : after[0] + 1]
    return before + (value - before) * (r2 - r2_before) / (r2_after - r2_before)


def contrast(
    table: pd.DataFrame, first: str, second: str, compared_at: str = END, of: str = "arm"
) -> dict:
    """second - first: `level` and a `paired_difference`. Raise InputError where an arm has two rows
    of one seed at one moment: rows of two layers or two data sets cannot be matched.

    >>> rows = [("fixed", 0, 1, 0.4, 0.1), ("fixed", 0, 2, 0.8, 0.9), ("other", 0, 1, 0.5, 0.3)]
    >>> table = pd.DataFrame(rows, columns=["arm", "seed", "epoch", "r2", "value"])
    >>> at = {when: contrast(table, "fixed", "other", when) for when in COMPARED_AT}
    >>> {when: round(float(found["difference"]), 2) for when, found in at.items()}
    {'at the end': -0.6, 'at equal error': 0.0}
    """
    moment = ["seed", "epoch"] if "epoch" in table else ["seed"]
    parts = [select(table, **{of: name}).sort_values(moment) for name in (first, second)]
    for name, part in zip((first, second), parts):
        if part.duplicated(moment).any():
            raise InputError(
                f"{of}: {name} has two values of one network; allowed: one layer, side, data set"
            )
    if compared_at == EQUAL:
        pairs = at_equal_error(*parts)
    else:
        ends = [part.groupby("seed")["value"].last(skipna=False) for part in parts]
        pairs = pd.concat(ends, axis=1, keys=["first", "second"])
    level = pairs["first"][pairs["second"].notna()].mean()
    return {"level": level} | paired_difference(pairs["first"], pairs["second"])


def compare(
    table: pd.DataFrame,
    by: list[str],
    pairs: Collection[tuple[str, str]],
    compared_at: Collection[str] = (END,),
    of: str = "arm",
    lacking: bool = False,
) -> pd.DataFrame:
    """Every `contrast` of a table: columns of `by`, contrast, read, level, NUMBERS. pairs: (first,
    second) of arms; a group of `by` that lacks one of them has no row (lacking: one without
    numbers).

    >>> rows = [("a", "fixed", 0, 0.5), ("a", "fixed", 1, 0.6), ("a", "far", 0, 0.4)]
    >>> table = pd.DataFrame(rows, columns=["layer", "arm", "seed", "value"])
    >>> compare(table, ["layer"], [("fixed", "far")])[["layer", "contrast", "n", "difference"]]
      layer     contrast  n  difference
    0     a  far - fixed  1        -0.1
    """
    rows = []
    for _, part in table.groupby(by, sort=False) if by else [((), table)]:
        there = set((table if lacking else part)[of])
        for (first, second), when in product(pairs, compared_at):
            if {first, second} <= there:
                named = {"contrast": f"{second} - {first}", "read": when}
                rows.append(
                    part[by].iloc[0].to_dict() | named | contrast(part, first, second, when, of)
                )
    return pd.DataFrame(rows, columns=[*by, "contrast", "read", "level", *NUMBERS])


def with_and_without_failures(table: pd.DataFrame, *args, **options) -> pd.DataFrame:
    """`compare` twice, told apart by a column `networks`: over pairs in which neither network
    failed (the column `failed` of the table), and over all."""
    parts = {WORKING: table[~table["failed"].astype(bool)], ALL: table}
    parts = [compare(part, *args, **options).assign(networks=name) for name, part in parts.items()]
    return pd.concat(parts, ignore_index=True)


def judged(
    table: pd.DataFrame,
    margins: dict[str, float],
    family: list[str],
    one_word: bool = True,
    size: int = 0,
) -> pd.DataFrame:
    """Contrasts with p_holm, p by Holm's correction over the rows that agree in the columns of
    `family` (see `holm` for size), and `verdict` by it. margins: of each measure."""
    table = table.assign(p_holm=table.groupby(family)["p"].transform(holm, size=size))
    words = [
        verdict(row, margins[row["measure"]], row["p_holm"], one_word)
        for row in table.to_dict("records")
    ]
    return table.assign(verdict=pd.Series(words, table.index, dtype=object))


class Condition(NamedTuple):
    """One part of a rule: of a contrast, that it is more (its verdict), rises or falls (both of its
    intervals, and p, where one is named, below 0.05), does not rise (both do not lie above 0), or
    stays below `margin` (both do). intervals: those that count (see `interval`)."""

    words: str
    measure: str
    contrast: str
    holds: str
    read: str = END
    p: str = ""
    margin: float = 0.0
    intervals: tuple[str, ...] = ("", "t_")


def holds(row: dict | None, condition: Condition) -> str:
    """yes or no; not trained, where there is no such contrast; not measured, where it has no
    interval.

    >>> row = {"low": 0.01, "t_low": -0.01, "high": 0.2, "t_high": 0.2}
    >>> [holds(row, Condition("", "", "", kind)) for kind in ("rises", "does not rise", "falls")]
    ['no', 'yes', 'no']
    """
    if row is None:
        return "not trained"
    low, high = interval(row, condition.intervals)
    if np.isnan([low, high]).any():
        return "not measured"
    clear = not condition.p or row[condition.p] < 0.05
    is_so = {
        "more": "more" in str(row.get("verdict")).split(", "),
        "rises": low > 0 and clear,
        "falls": high < 0 and clear,
        "does not rise": low <= 0,
        "stays below": high < condition.margin,
    }
    return "yes" if is_so[condition.holds] else "no"


def decided(
    table: pd.DataFrame, rule: list[Condition], by: list[str], of: Iterable[tuple]
) -> pd.DataFrame:
    """A rule applied to contrasts (`compare`, `judged`): for each of `of`, values of the columns
    `by`, and each condition a row: `by`, condition, difference, low, high, holds."""
    index, numbers = [*by, "measure", "contrast", "read"], ["difference", "low", "high"]
    found = {tuple(row[name] for name in index): row for row in table.to_dict("records")}
    rows = []
    for key, one in product(of, rule):
        row = found.get((*key, one.measure, one.contrast, one.read))
        values = [row[name] if row else np.nan for name in numbers]
        rows.append([*key, one.words, *values, holds(row, one)])
    return pd.DataFrame(rows, columns=[*by, "condition", *numbers, "holds"])


def wide(decision: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """A decision with a column for each condition, and whether all hold; not trained, where the
    first is not."""
    table = decision.set_index([*by, "condition"])["holds"].unstack(sort=False)
    every = (table == "yes").all(axis=1).map({True: "yes", False: "no"})
    every = every.where(table.iloc[:, 0] != "not trained", "not trained")
    return table.assign(**{"all hold": every})


@dataclass(frozen=True)
class Declaration:
    """A comparison declared in config/primary.yaml. layers: of each architecture, names of layers
    or of places; contrasts: pairs (first, second) of arms; rules: {what may be said:
    conditions}."""

    measures: list[str]
    layers: dict[str, list[str]]
    contrasts: list[tuple[str, str]]
    margins: dict[str, float]
    rules: dict[str, list[Condition]]
    compared_at: tuple[str, ...] = COMPARED_AT
    decides: str = END
    one_word: bool = True  # equivalent before more and less
    seeds: tuple[int, ...] = ()  # all of which an arm needs before anything is said of it

    def rows(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of a table that are of the declared layers, in their order."""
        return pd.concat(
            in_layer(select(table, architecture=architecture), layer)
            for architecture, layers in self.layers.items()
            for layer in layers
        )


def declaration(name: str) -> Declaration:
    """The first (`modularity`), `second` or `third` declaration of config/primary.yaml."""
    return {"modularity": _first, "second": _second, "third": _third}[name](primary())


def _first(declared: dict) -> Declaration:
    one, (fixed, varying) = declared["modularity"], declared["original"]
    measure, pair = one["measure"], f"{varying} - {fixed}"
    against = {arm: f"{varying} - {arm}" for arm in declared["controls"]}
    errors = "interchange_error", "interchange_error - interchange_error_random"
    rule = [
        (f"selectivity above `{fixed}`", measure, pair, "rises"),
        (f"interaction not above `{fixed}`", INTERACTION, pair, "does not rise"),
        ("interchange error below random sets of units", *errors, "falls"),
        *((f"selectivity above `{arm}`", measure, p, "rises") for arm, p in against.items()),
    ]
    conditions = [Condition(*words, intervals=("",)) for words in rule]
    layers = {one["architecture"]: [BEFORE[one["layer"]]]}
    rules = {"more modular": conditions}
    return Declaration([measure], layers, [(fixed, varying)], {}, rules, (END,))


def _second(declared: dict) -> Declaration:
    one, (tables, _) = declared["second"], declared["third"]["contrasts"][1]
    measure, (fixed, varying) = one["measure"], one["contrast"]
    pair = f"{varying} - {fixed}"
    rule = [
        Condition("the declared measure is more", measure, pair, "more"),
        Condition("interaction does not rise", INTERACTION, pair, "does not rise"),
        Condition("interchange error falls", ERROR, pair, "falls"),
        Condition(f"above `{tables.split()[0]}`", measure, f"{varying} - {tables}", "rises"),
        Condition("above 0 at equal error", measure, pair, "rises", EQUAL),
    ]
    layers = {name: [BEFORE[one["layer"]]] for name in one["architectures"]}
    rules, margins = {"more modular": rule}, {measure: one["margin"]}
    return Declaration([measure], layers, [(fixed, varying)], margins, rules, one_word=False)


def _third(declared: dict) -> Declaration:
    one = declared["third"]
    at, units, apart = one["decides"], one["measures"][0], one["kept_apart"]
    contrasts, rule = [(first, second) for first, second in one["contrasts"]], []
    for first, second in contrasts:
        against, pair = f"against `{first.split()[0]}`", f"{second} - {first}"
        rule.append(Condition(f"{units} is more {against}", units, pair, "more", at))
        rule += [Condition(f"{m} falls {against}", m, pair, "falls", at, "p") for m in one["falls"]]
        rule += [
            Condition(f"{m} does not rise {against}", m, pair, "stays below", at, margin=margin)
            for m, margin in one["may_not_rise"].items()
        ]
    (first, second), *_ = contrasts
    pair = f"{second} - {first}"
    kept = Condition(f"{apart} rises against `{first}`", apart, pair, "rises", at, "p_holm")
    rules, moments = {"more modular": rule, "kept apart": [kept]}, tuple(one["compared_at"])
    of = one["measures"], one["layers"], contrasts, one["margins"]
    return Declaration(*of, rules, moments, at, seeds=parse_seeds(one["seeds"]))


def declared_contrasts(table: pd.DataFrame, declared: Declaration) -> pd.DataFrame:
    """Every contrast of which a declaration speaks, with and without failed networks; p_holm and
    verdict of the declared measures (Holm's correction over all declared measures and layers, those
    that are not there included), and p_holm of the others over layers. An arm of which declared
    seeds are missing is left out. table: rows of `study.along`."""
    measures = {one.measure for rule in declared.rules.values() for one in rule}
    rows = select(declared.rows(table), side="both", measure=measures.union(declared.measures))
    if declared.seeds:
        rows = select(rows, seed=declared.seeds)
        there = rows.groupby(["architecture", "arm"])["seed"].transform("nunique")
        rows = rows[there == len(declared.seeds)]
    by, family = ["architecture", "layer", "measure"], ["networks", "contrast", "read"]
    found = with_and_without_failures(rows, by, declared.contrasts, declared.compared_at)
    primary, layers = (
        found["measure"].isin(declared.measures),
        sum(map(len, declared.layers.values())),
    )
    size = layers * len(declared.measures)
    said = judged(found[primary], declared.margins, family, declared.one_word, size)
    beside = found[~primary].assign(verdict="")
    p = beside.groupby([*family, "measure"])["p"]
    return pd.concat([said, beside.assign(p_holm=p.transform(holm, size=layers))]).sort_index()


def standing_in(table: pd.DataFrame, networks: pd.DataFrame, measure: str) -> pd.DataFrame:
    """A table of measures with a column `arm`, in which an arm that lacks a measure, since it was
    measured before that one was there, gives way to its second training (`first_trained`), under
    its name; other second trainings are left out. networks: the table `runs`."""
    arm = first_trained(table, networks)
    name, first = (table["architecture"] + " " + each for each in (arms(table), arm))
    there = name[(table["measure"] == measure) & table["value"].notna()]
    later = first.isin(first[there.index]) & ~first.isin(there)
    return table[(name != first) == later].assign(arm=arm)
