"""Predictions against tables whose answer one can work out on paper."""

import numpy as np
import pandas as pd
import pytest

from modvar_lib.analysis import predictions
from modvar_lib.analysis.contrasts import declaration
from modvar_lib.analysis.predictions import FIRST_LAYER, Statement, parts_alone, predicted
from modvar_lib.analysis.study import primary

FIXED, VARYING = primary()["third"]["contrasts"][0]


def network(arm, seed, value, measure="purity", layer="hidden2", failed=False, **more):
    """A row of a table of networks at their end."""
    place = {"readout": "readout", "pooled": "pooled"}.get(layer, "hidden")
    row = {"architecture": "mlp", "arm": arm, "layer": layer, "place": place, "measure": measure}
    return row | {"seed": seed, "value": value, "failed": failed, "epoch": 100, "r2": 0.9} | more


def about(first, second, kind, **other):
    return Statement(
        "test", "mlp", other.pop("layer", "hidden2"), "purity", first, second, kind, **other
    )


def test_statements_made_in_advance_come_true_or_not():
    """Eight pairs. `up` is 1 above `fixed` in every one, `down` 1 below, `same` now above, now below;
    a failed network takes its pair with it; a statement without an arm is not trained."""
    shift = {"fixed": 0.0, "up": 1.0, "down": -1.0, "same": 0.0}
    rows = [
        network(
            arm,
            seed,
            by + seed / 10 + (arm == "same") * (-1) ** seed + seed / 99 * (arm != "fixed"),
        )
        for arm, by in shift.items()
        for seed in range(8)
    ]
    rows += [network("fixed", 8, 0.0), network("up", 8, -99.0, failed=True)]
    stated = [
        about("fixed", "up", "rises", decided_by="p_holm"),
        about("fixed", "down", "does not rise"),
        about("fixed", "same", "rises"),
        about("up", "fixed", "rises"),
        about("fixed", "nowhere", "rises"),
    ]
    found = predicted(pd.DataFrame(rows), stated)
    assert found["came true"].tolist() == ["yes", "yes", "no", "no", "not trained"]
    assert found["n"].tolist() == [8, 8, 8, 8, 0] and found["failed"].tolist() == [1, 0, 0, 1, 0]
    assert found["p_holm"].iloc[0] == pytest.approx(5 * 2 / 2**8)  # of all five


def test_eight_pairs_can_decide_a_statement_where_no_correction_is_declared():
    """The least p of eight pairs is 2 / 2**8: over eight statements, Holm's correction of it is above
    0.05, whatever the networks do."""
    rows = [
        network(arm, seed, seed / 10 + (arm == "up") * (1 + seed))
        for arm in ("fixed", "up")
        for seed in range(8)
    ]
    for decided_by, came in (("p", "yes"), ("p_holm", "no")):
        stated = [about("fixed", "up", "rises", decided_by=decided_by)] * 8
        assert set(predicted(pd.DataFrame(rows), stated)["came true"]) == {came}


def test_nothing_is_said_of_half_of_the_networks():
    rows = [
        network(arm, seed, seed + (arm == "up")) for arm in ("fixed", "up") for seed in range(15)
    ]
    stated = [about("fixed", "up", "rises", seeds=tuple(range(n))) for n in (15, 16)]
    found = predicted(pd.DataFrame(rows), stated)
    assert found["came true"].tolist()[1] == "not trained" and np.isnan(found["difference"].iloc[1])
    assert found["difference"].iloc[0] == 1


def test_a_statement_of_the_first_layer_reads_no_other():
    rows = [
        network(arm, seed, seed * (1 + (arm == "up")) + 10 * (layer == "hidden2"), layer=layer)
        for layer in ("hidden1", "hidden2")
        for arm in ("fixed", "up")
        for seed in range(8)
    ]
    found = predicted(pd.DataFrame(rows), [about("fixed", "up", "rises", layer=FIRST_LAYER)])
    assert found["level"].iloc[0] == 3.5 and found["difference"].iloc[0] == 3.5


@pytest.mark.parametrize("alone, came", [(0.5, "yes"), (0.1, "no")])
def test_the_constant_brings_its_part_of_the_fall(alone, came):
    """Half of the variance goes with the exchanged digit: the expected score is sqrt(1 - constant).
    The score falls from 0.6 by 0.2; a constant of `alone` lowers the expected score from 1."""
    values = {
        "activation_change_pre": (0.6, 0.4),
        "exchanged_share_pre": (0.5, 0.1),
        "offset_share_pre": (0.0, alone),
    }
    rows = [
        network(arm, seed, value, measure, layer="pooled")
        for measure, both in values.items()
        for arm, value in zip(("fixed", "up"), both)
        for seed in range(4)
    ]
    stated = [
        about("fixed", "up", "rises", seeds=(0, 1, 2, 3), read="at equal error", layer=FIRST_LAYER)
    ]
    found = parts_alone(pd.DataFrame(rows), stated).iloc[0]
    assert found["fall"] == pytest.approx(-0.2)
    assert found["by constant"] == pytest.approx((1 - alone) ** 0.5 - 1)
    assert found["share"] == pytest.approx((1 - (1 - alone) ** 0.5) / 0.2)
    assert found["came true"] == came


def points_of(levels, differences, verdicts=None):
    """Six layers and the one-hot digits, all halves alike."""
    table = pd.DataFrame({"level_1": levels, "level_2": levels})
    return table.assign(difference_1=differences, difference_2=differences)


def said_of(level, verdict):
    first, second = declaration("third").contrasts[0]
    row = {"networks": "neither failed", "measure": "subspace_interchange", "level": level}
    return pd.DataFrame(
        [row | {"contrast": f"{second} - {first}", "read": "at equal error", "verdict": verdict}]
    )


@pytest.mark.parametrize(
    "levels, said, came",
    [
        (range(7), said_of(0.1, "more"), "yes"),
        (range(7), said_of(0.6, "more"), "no"),  # no room: a ceiling alone gives that sign
        (range(7), said_of(0.1, "not shown"), "no"),
        (range(7, 0, -1), said_of(0.1, "more"), "no"),  # the other sign
    ],
)
def test_merging_needs_its_sign_and_one_layer_with_room(levels, said, came):
    points = points_of(list(levels), [6, 5, 4, 3, 2, 1, 0])
    found = predictions.merged(points, said, declaration("third"), "subspace_interchange")
    assert found["came true"] == came
    if came == "yes":
        assert found["rho"] == pytest.approx(-1) and found["p"] == pytest.approx(1 / 5040)


def test_levels_come_from_the_other_half_of_the_seeds():
    """The first half of the seeds has level 0 and difference 1; the second, level 5 and difference 2.
    Seeds that were not declared do not count."""
    declared = declaration("third")
    stated = primary()["third"]["predictions"]["merging"]
    rows = []
    places = [(name, layer, 16) for name, layers in declared.layers.items() for layer in layers]
    for name, layer, count in [*places, ("OneHot mlp", "hidden2", 8)]:
        for seed in range(14, 16 + count):
            late, other = seed >= 16 + count // 2, 100 * (seed < 16)
            for arm, value in ((FIXED, 5.0 * late), (VARYING, 5.0 * late + 1 + late + other)):
                rows.append(network(arm, seed, value, stated["measure"], layer, architecture=name))
    table = pd.DataFrame(rows)
    found = predictions.merging(table, declared, stated)
    assert len(found) == 7
    assert found[["level_1", "difference_1"]].drop_duplicates().to_numpy().tolist() == [[0, 1]]
    assert found[["level_2", "difference_2"]].drop_duplicates().to_numpy().tolist() == [[5, 2]]
    with pytest.raises(ValueError, match="OneHot mlp hidden2"):
        predictions.merging(table[table["architecture"] != "OneHot mlp"], declared, stated)


def test_networks_of_several_outputs_fail_on_their_own_goal():
    keys = {"dataset": "MNIST", "architecture": "mlp", "variant": "default", "seed": 0, "epoch": 0}
    history = pd.DataFrame(
        [keys | {"regime": name, "sum_r2": 0.1, "test_r2": 0.9} for name in ("fixed", "both")]
    )
    assert predictions.failures(history)["failed"].tolist() == [True, False]


def test_every_declared_statement_names_a_measure_and_arms_of_the_study():
    stated = predictions.statements(primary())
    assert {one.prediction for one in stated} == {"one_hot", "transfer", "silence", "controls"}
    assert len(stated) == len(set(stated)) == 5 + 8 + 6 + 6
