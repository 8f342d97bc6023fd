"""Contrasts and the declared rules, on tables whose answer one can work out on paper."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from modvar_lib.analysis import contrasts
from modvar_lib.analysis.contrasts import (
    ALL,
    COMPARED_AT,
    END,
    EQUAL,
    ERROR,
    WORKING,
    Condition,
    at_equal_error,
    compare,
    contrast,
    decided,
    declaration,
    declared_contrasts,
    holds,
    judged,
    wide,
    with_and_without_failures,
)
from modvar_lib.analysis.study import primary
from modvar_lib.errors import InputError


def networks(**arms) -> pd.DataFrame:
    """arm=[value of seed 0, of seed 1, ...], at the end."""
    rows = [(arm, seed, value) for arm, values in arms.items() for seed, value in enumerate(values)]
    return pd.DataFrame(rows, columns=["arm", "seed", "value"])


def curve(seed, *points):
    """Of (R², value), an epoch each."""
    return pd.DataFrame(points, columns=["r2", "value"]).assign(
        seed=seed, epoch=range(1, len(points) + 1)
    )


def test_a_contrast_is_the_second_minus_the_first_of_the_same_seed():
    """1 - 0.5, 6.5 - 5, 10 - 9, in whatever order the rows are."""
    table = networks(fixed=[0.5, 5, 9], other=[1, 6.5, 10]).sample(frac=1, random_state=1)
    found = contrast(table, "fixed", "other")
    assert found["n"] == 3 and found["difference"] == pytest.approx((0.5 + 1.5 + 1) / 3)
    assert found["level"] == pytest.approx(14.5 / 3) and found["p"] == pytest.approx(2 / 8)
    back = contrast(table, "other", "fixed")
    assert (back["difference"], back["t_low"]) == pytest.approx((-1, -found["t_high"]))


def test_a_contrast_is_of_one_measure_and_of_pairs_alone():
    one, other = networks(fixed=[1, 2, 3], far=[2, 4]), networks(fixed=[7, 7], far=[0, 0])
    table = pd.concat([one.assign(measure="a"), other.assign(measure="b")])
    found = compare(table, ["measure"], [("fixed", "far")])
    assert found[["n", "difference", "level"]].to_numpy().tolist() == [[2, 1.5, 1.5], [2, -7, 7]]


def test_rows_of_two_layers_cannot_be_matched():
    with pytest.raises(InputError, match=r"^arm: fixed has two values of one network; allowed"):
        contrast(pd.concat([networks(fixed=[1, 2], far=[1, 2])] * 2), "fixed", "far")


def test_at_equal_error_by_hand():
    """The better network, whichever it is, where it first reaches the R² at which the other ended;
    none that began above; none where R² is not a number."""
    nan = float("nan")
    slow = pd.concat(
        [
            *(curve(0, (0.1, 1), (0.5, 2)), curve(1, (0.3, 5), (0.9, 6))),
            *(curve(2, (0.2, 0), (0.3, 1)), curve(3, (0.2, 0), (nan, 1))),
            curve(4, (0.2, 2), (0.9, 3)),
        ]
    )
    fast = pd.concat(
        [
            curve(0, (0.4, 3), (0.6, 7), (0.2, 9), (0.8, 8)),
            *(curve(1, (0.2, 0), (0.7, 4)), curve(2, (0.6, 2), (0.9, 3))),
            *(curve(3, (0.2, 2), (0.9, 3)), curve(4, (0.2, 0), (nan, 1))),
        ]
    )
    found = at_equal_error(slow.sample(frac=1, random_state=0), fast)
    assert found["r2"].tolist() == pytest.approx([0.5, 0.7, 0.3, nan, nan], nan_ok=True)
    assert found["first"].tolist() == pytest.approx([2, 5 + 2 / 3, 1, nan, nan], nan_ok=True)
    assert found["second"].tolist() == pytest.approx([5, 4, nan, nan, nan], nan_ok=True)


def test_the_level_is_that_of_the_pairs_compared():
    """Seed 1 of the second is above from the start, so its pair has no moment of equal error."""
    first = pd.concat([curve(0, (0.2, 1), (0.6, 3)), curve(1, (0.2, 50), (0.5, 70))])
    second = pd.concat([curve(0, (0.2, 0), (0.6, 2)), curve(1, (0.7, 1), (0.9, 2))])
    table = pd.concat([first.assign(arm="a"), second.assign(arm="b")])
    found = contrast(table, "a", "b", compared_at=EQUAL)
    assert (found["n"], found["level"], found["difference"]) == (1, 3, -1)
    assert contrast(table, "a", "b", compared_at=END)["level"] == 36.5


def test_failed_networks_leave_with_their_pairs_and_are_told_beside():
    table = networks(fixed=[1, 1, 1], varying=[2, 2.5, 9]).assign(layer="h", failed=False)
    table.loc[(table["arm"] == "varying") & (table["seed"] == 2), "failed"] = True
    found = with_and_without_failures(table, ["layer"], [("fixed", "varying")])
    assert found.set_index("networks")["n"].to_dict() == {WORKING: 2, ALL: 3}
    assert found.set_index("networks")["difference"].to_dict() == {WORKING: 1.25, ALL: 3.5}


def test_groups_are_not_mixed_and_absent_arms_have_no_row():
    up, down = networks(a=[0, 1, 2], b=[1.1, 2.2, 3.3]), networks(a=[0, 1, 2], b=[-1, 0.2, 1])
    table = pd.concat([up.assign(layer="up"), down.assign(layer="down")])
    found = compare(table, ["layer"], [("a", "b"), ("a", "c")])
    assert found["layer"].tolist() == ["up", "down"] and found["contrast"].unique() == "b - a"
    assert found["difference"].tolist() == pytest.approx([1.2, -0.9333333])
    only = table[(table["layer"] == "up") | (table["arm"] == "a")]
    assert len(compare(only, ["layer"], [("a", "b")])) == 1
    lacking = compare(only, ["layer"], [("a", "b")], lacking=True).set_index("layer")
    assert lacking["n"].to_dict() == {"up": 3, "down": 0}
    assert lacking.loc["down", "note"] == "no seed has both values"
    assert len(compare(table[:0], ["layer"], [("a", "b")])) == 0


def row(low, high, t_low=None, t_high=None, p=0.001, **values) -> dict:
    t = {"t_low": low if t_low is None else t_low, "t_high": high if t_high is None else t_high}
    middle = (low + high) / 2
    return {"low": low, "high": high, **t, "p": p, "difference": middle, **values}


def test_holms_p_and_the_word_are_of_the_family():
    """Three numbers of a family: 0.01 · 3, 0.02 · 2, 0.04; in one of their own 0.04 stays 0.04."""
    rows = [row(0.1, 0.2, p=p, measure="m", read=END) for p in (0.02, 0.01, 0.04)]
    table = pd.DataFrame([*rows, row(0.1, 0.2, p=0.04, measure="m", read=EQUAL)])
    found = judged(table, {"m": 0.05}, ["read"])
    assert found["p_holm"].tolist() == pytest.approx([0.04, 0.03, 0.04, 0.04])
    assert found["verdict"].tolist() == ["more"] * 4
    more = pd.DataFrame([row(0.1, 0.2, p=0.03, measure="m", read=END) for _ in range(2)])
    assert judged(more, {"m": 0.05}, ["read"])["verdict"].tolist() == ["not shown"] * 2


def test_margins_are_of_the_measure_and_one_word_is_the_cautious_one():
    rows = [row(0.02, 0.08, measure=name, read=END) for name in ("narrow", "wide")]
    found = judged(pd.DataFrame(rows), {"narrow": 0.05, "wide": 0.1}, ["read"])
    assert found["verdict"].tolist() == ["more", "equivalent"]
    both = judged(pd.DataFrame(rows), {"narrow": 0.05, "wide": 0.1}, ["read"], one_word=False)
    assert both["verdict"].tolist() == ["more", "more, equivalent"]


CASES = [  # kind, row, and what holds
    ("rises", row(0.1, 0.2), "yes"),
    ("rises", row(0.1, 0.2, t_low=-0.1), "no"),
    ("rises", row(-0.1, 0.2, t_low=0.1), "no"),
    ("rises", row(0.1, 0.2, p=0.06), "no"),
    ("falls", row(-0.2, -0.1), "yes"),
    ("falls", row(-0.2, -0.1, t_high=0.1), "no"),
    ("falls", row(-0.2, 0.1, t_high=-0.1), "no"),
    ("falls", row(-0.2, -0.1, p=0.06), "no"),
    ("does not rise", row(0.1, 0.2), "no"),
    ("does not rise", row(0.1, 0.2, t_low=-0.1), "yes"),
    ("does not rise", row(-0.2, -0.1), "yes"),
    ("stays below", row(-0.1, 0.009), "yes"),
    ("stays below", row(-0.1, 0.011), "no"),
    ("stays below", row(-0.1, 0.009, t_high=0.011), "no"),
    ("more", row(0.1, 0.2, verdict="more, equivalent"), "yes"),
    ("more", row(0.1, 0.2, verdict="equivalent"), "no"),
    ("rises", None, "not trained"),
    ("does not rise", row(np.nan, np.nan), "not measured"),
    ("stays below", row(-0.1, np.nan, t_high=0), "not measured"),
    ("falls", row(-0.2, -0.1, t_high=np.nan), "not measured"),
]


@pytest.mark.parametrize(("kind", "found", "said"), CASES)
def test_each_kind_of_condition(kind, found, said):
    assert holds(found, Condition("", "m", "b - a", kind, p="p", margin=0.01)) == said


def test_a_rule_reads_the_rows_it_names():
    rule = [
        Condition("m rises", "m", "b - a", "rises"),
        Condition("n falls", "n", "b - a", "falls", EQUAL),
    ]
    rows = [
        row(0.1, 0.2, architecture="one", measure="m", contrast="b - a", read=END),
        row(-0.2, -0.1, architecture="one", measure="n", contrast="b - a", read=EQUAL),
        row(0.1, 0.2, architecture="one", measure="n", contrast="b - a", read=END),
        row(0.1, 0.2, architecture="one", measure="n", contrast="c - a", read=EQUAL),
        row(0.1, 0.2, architecture="two", measure="m", contrast="b - a", read=END),
    ]
    of = [("one",), ("two",), ("three",)]
    found = wide(decided(pd.DataFrame(rows), rule, ["architecture"], of), ["architecture"])
    assert found.loc["one"].tolist() == ["yes", "yes", "yes"]
    assert found.loc["two"].tolist() == ["yes", "not trained", "no"]
    assert found.loc["three"].tolist() == ["not trained"] * 3


def conditions(name):
    (rule,) = [rule for what, rule in declaration(name).rules.items() if what == "more modular"]
    return {one.words: one for one in rule}


def test_the_first_declaration_is_what_the_file_says():
    """Its bootstrap interval alone, over every control."""
    declared, found = declaration("modularity"), conditions("modularity")
    assert declared.measures == ["side_selectivity"]
    assert declared.layers == {"mlp": ["before_bottleneck"]} and len(found) == 3 + 6
    for control in primary()["controls"]:
        one = found[f"selectivity above `{control}`"]
        assert one[1:4] == ("side_selectivity", f"varying - {control}", "rises")
        assert holds(row(0.1, 0.2, t_low=-1, p=1), one) == "yes"
    assert found["interaction not above `fixed`"].holds == "does not rise"
    assert found["interchange error below random sets of units"].holds == "falls"


def test_the_second_declaration_is_what_the_file_says():
    declared, found = declaration("second"), conditions("second")
    assert declared.contrasts == [("fixed", "varying standardised")] and not declared.one_word
    assert declared.margins == {"effect_selectivity_above_chance": 0.05}
    assert [*declared.layers] == ["mlp", "cnn", "resnet", "vit", "mixer"]
    pair = "varying standardised - fixed"
    kinds = {words: one[1:5] for words, one in found.items()}
    assert kinds == {
        "the declared measure is more": (*declared.measures, pair, "more", END),
        "interaction does not rise": ("interaction", pair, "does not rise", END),
        "interchange error falls": ("interchange_error_over_chance", pair, "falls", END),
        "above `tables`": (*declared.measures, f"{pair[:20]} - tables standardised", "rises", END),
        "above 0 at equal error": (*declared.measures, pair, "rises", EQUAL),
    }


def test_the_third_declaration_is_what_the_file_says():
    declared, found = declaration("third"), conditions("third")
    assert declared.measures == ["purity", "subspace_interchange"] and declared.one_word
    assert sum(map(len, declared.layers.values())) == 6 and declared.compared_at == COMPARED_AT
    assert declared.margins == {"purity": 0.05, "subspace_interchange": 0.1}
    assert {one.contrast for one in found.values()} == {
        "varying standardised - fixed",
        "varying standardised - tables standardised",
    }
    assert {one.read for one in found.values()} == {EQUAL} and len(found) == 2 * 4
    kinds = {one.measure: (one.holds, one.p, one.margin) for one in found.values()}
    assert kinds == {
        "purity": ("more", "", 0),
        "interchange_error_over_chance": ("falls", "p", 0),
        "lesion_leak": ("falls", "p", 0),
        "interaction": ("stays below", "", 0.01),
    }
    (apart,) = declared.rules["kept apart"]
    assert apart[1:6] == ("separation", "varying standardised - fixed", "rises", EQUAL, "p_holm")


RULED = [ERROR, "lesion_leak", "interaction", "separation"]


def third(change: dict[str, float]) -> pd.DataFrame:
    """A table of `study.along` in which each measure of `varying` is so much above that of the others,
    in every layer; arms learn alike."""
    declared, random = declaration("third"), np.random.default_rng(0)
    rows = [
        {
            **{"architecture": architecture, "layer": layer, "place": "hidden", "side": "both"},
            **{"measure": measure, "arm": arm, "seed": seed, "epoch": epoch, "failed": False},
            "r2": 0.4 * epoch,
            "value": 0.4 + 0.001 * random.random() + change.get(measure, 0) * ("varying" in arm),
        }
        for architecture, layers in declared.layers.items()
        for layer in layers
        for measure in (*declared.measures, *RULED)
        for arm in ("fixed", "varying standardised", "tables standardised")
        for seed in range(16, 32)
        for epoch in (1, 2)
    ]
    return pd.DataFrame(rows)


MODULAR = {"purity": 0.2, ERROR: -0.1, "lesion_leak": -0.1, "separation": 0.1}


@pytest.fixture
def quick(monkeypatch):
    """Student's t for all that is told of a difference."""

    def by_t(first, second):
        change = (second - first).dropna()
        test = stats.ttest_1samp(change, 0)
        low, high = test.confidence_interval(0.95)
        numbers = {"n": len(change), "difference": change.mean(), "p": test.pvalue}
        return numbers | {"low": low, "high": high, "t_low": low, "t_high": high}

    monkeypatch.setattr(contrasts, "paired_difference", by_t)


def all_hold(table, what):
    declared = declaration("third")
    said = declared_contrasts(table, declared)
    said = said[said["networks"] == WORKING]
    at = ["architecture", "layer"]
    layers = list(said[at].drop_duplicates().itertuples(index=False, name=None))
    return wide(decided(said, declared.rules[what], at, layers), at)["all hold"]


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        ({}, "yes"),
        ({"purity": 0.0}, "no"),
        ({"purity": 0.03}, "no"),  # within the margin: equivalent
        ({"interchange_error_over_chance": 0.0}, "no"),
        ({"lesion_leak": 0.1}, "no"),
        ({"interaction": 0.02}, "no"),
        ({"interaction": 0.008}, "yes"),  # within the margin
        ({"separation": -0.1}, "yes"),  # another rule
    ],
)
def test_more_modular_needs_every_condition(quick, spoilt, said):
    found = all_hold(third(MODULAR | spoilt), "more modular")
    assert len(found) == 6 and set(found) == {said}


@pytest.mark.parametrize(("separation", "said"), [(0.1, "yes"), (0.0, "no"), (-0.1, "no")])
def test_kept_apart_needs_separation(quick, separation, said):
    assert set(all_hold(third(MODULAR | {"separation": separation}), "kept apart")) == {said}


def test_more_than_fixed_alone_is_not_enough(quick):
    table = third(MODULAR)
    tables = table["arm"] == "tables standardised"
    table.loc[tables & (table["measure"] == "purity"), "value"] += 0.2
    assert set(all_hold(table, "more modular")) == {"no"}


def test_holms_family_is_the_twelve_numbers_of_a_contrast_at_one_moment(quick):
    table = third(MODULAR)
    table.loc[table["seed"] == 16, "failed"] = True
    found = declared_contrasts(table, declaration("third"))
    two = found[found["measure"].isin(["purity", "subspace_interchange"])]
    family = two.groupby(["networks", "contrast", "read"])
    assert set(family.size()) == {12} and len(family) == 2 * 2 * 2
    for _, part in family:
        assert part["p_holm"].tolist() == pytest.approx(stats_holm(part["p"]), abs=0)
    one = found[found["measure"] == "separation"].groupby(["networks", "contrast", "read"])
    assert set(one.size()) == {6}
    for _, part in one:
        assert part["p_holm"].tolist() == pytest.approx(stats_holm(part["p"]), abs=0)
    assert set(two[two["networks"] == WORKING]["n"]) == {15}


def test_what_is_not_trained_yet_counts_in_holms_family(quick):
    """Of `vit` alone, four of the twelve: the least p is multiplied by 12, and not by 4."""
    table = third(MODULAR)
    found = declared_contrasts(table[table["architecture"] == "vit"], declaration("third"))
    (part,) = (
        one
        for key, one in found[found["measure"].isin(["purity", "subspace_interchange"])].groupby(
            ["networks", "contrast", "read"]
        )
        if key == (WORKING, "varying standardised - fixed", EQUAL)
    )
    assert len(part) == 4 and part["p_holm"].min() == pytest.approx(min(1, 12 * part["p"].min()))


@pytest.mark.parametrize("missing", [16, 31])
def test_nothing_is_said_of_an_arm_of_which_a_declared_seed_is_missing(quick, missing):
    table = third(MODULAR)
    other = table.assign(seed=table["seed"] - 16, value=9.0)  # seeds of no declaration
    lost = (table["seed"] == missing) & (table["arm"] == "fixed") & (table["architecture"] == "vit")
    found = declared_contrasts(pd.concat([table[~lost], other]), declaration("third"))
    against = found[found["contrast"] == "varying standardised - fixed"]
    assert "vit" not in set(against["architecture"]) and "mlp" in set(against["architecture"])
    assert "vit" in set(found["architecture"]) and set(found["n"]) == {16}


def stats_holm(p):
    """By its definition, rank by rank."""
    order, worst, found = np.argsort(p.to_numpy()), 0.0, [0.0] * len(p)
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - rank) * p.to_numpy()[i]))
        found[i] = worst
    return found


def test_one_layer_of_an_architecture_is_read_and_it_is_the_declared_one(quick):
    table = third(MODULAR)
    other = table.assign(layer="elsewhere", value=table["value"] * 7)
    found = declared_contrasts(pd.concat([table, other]), declaration("third"))
    assert "elsewhere" not in set(found["layer"])


def test_students_interval_of_a_contrast_is_scipys():
    first, second = (np.random.default_rng(seed).normal(size=9) for seed in (0, 1))
    found = contrast(networks(a=first, b=second), "a", "b")
    theirs = stats.ttest_rel(second, first).confidence_interval(0.95)
    assert (found["t_low"], found["t_high"]) == pytest.approx((theirs.low, theirs.high))


def test_a_second_training_stands_in_where_the_first_was_measured_too_early():
    keys = {"dataset": "MNIST", "architecture": "mlp", "seed": 0}
    about = pd.DataFrame(
        [
            {**keys, "regime": regime, "variant": variant, "epochs": 100}
            for regime in ("fixed", "varying")
            for variant in ("default", "again")
        ]
    )
    table = about.assign(measure="new", value=[1.0, 2.0, np.nan, 3.0])
    table = table.assign(arm=table["regime"])
    found = contrasts.standing_in(table, about, "new")
    assert found[["arm", "value"]].to_numpy().tolist() == [["fixed", 1.0], ["varying", 3.0]]
