from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from modvar_lib import data, goals, metrics, models, runs, training
from modvar_lib.analysis import study
from modvar_lib.metrics import activation_change, transfer
from modvar_lib.metrics.activation_change import score
from modvar_lib.metrics.subject import Subject, anova
from modvar_lib.settings import EXTRAS

CASES = [  # undefined where one of them is 0
    ([3, 4], [4, 3], 2**0.5 / 5),
    ([2, 0], [0, 8], 68**0.5 / 4),
    ([1, 2], [1, 2], 0),
    ([0, 0], [1, 1], np.nan),
    ([1, 1], [0, 0], np.nan),
    ([0, 0], [0, 0], np.nan),
]


@pytest.mark.parametrize(("v", "w", "value"), CASES)
def test_a_case_by_hand(v, w, value):
    found = score(torch.tensor(v).float(), torch.tensor(w).float()).item()
    assert found == pytest.approx(value, nan_ok=True)


@pytest.fixture(scope="module")
def scored(splits):
    """{(layer, side, measure): value} of a network's score and its parts."""

    def scored(network, count=100, seed=0, digits=splits[1]):
        draws = torch.from_numpy(data.evaluation_pairs(seed, count, len(digits)))
        rows = activation_change.rows(Subject(network, (digits, digits), draws, seed))
        return {(row["layer"], row["side"], row["measure"]): row["value"] for row in rows}

    return scored


def test_against_an_independent_computation(toy, splits, scored):
    """float64 NumPy, from the weights and the pixels, layer by layer, of a trained network that is
    not symmetric."""
    (trained,) = training.train(toy(regime="varying"), splits)
    w = {name: value.numpy().astype(np.float64) for name, value in trained.weights.items()}
    network, images = models.initial("mlp", 0), splits[1].images.numpy() / 255.0
    network.load_state_dict(trained.weights)
    draws, post, pre = data.evaluation_pairs(0, 300), "activation_change", "activation_change_pre"
    keys = {"hidden1": "hidden1.map", "hidden2": "hidden2.map"}
    keys |= {"bottleneck": "bottleneck", "readout": "readout"}

    def layers(left, right):
        h, values = np.concatenate([images[left], images[right]], axis=1), {}
        for name, key in keys.items():
            values[name, pre] = h @ w[f"{key}.weight"].T + w[f"{key}.bias"]
            h = values[name, pre].clip(0) if "map" in key else values[name, pre]
            values[name, post] = h
        for measure in (pre, post):
            hidden = [values[name, measure] for name in ("hidden1", "hidden2", "bottleneck")]
            values["pooled", measure] = np.concatenate(hidden, axis=1)
        return values

    before, expected = layers(draws[:, 0], draws[:, 1]), {}
    after = {"left": layers(draws[:, 2], draws[:, 1]), "right": layers(draws[:, 0], draws[:, 3])}
    for (layer, measure), v in before.items():
        sides = {}
        for side, changed in after.items():
            u = changed[layer, measure]
            norms = np.sqrt(np.linalg.norm(v, axis=1) * np.linalg.norm(u, axis=1))
            sides[side] = np.mean(np.linalg.norm(v - u, axis=1) / norms)
        sides["both"] = np.mean([*sides.values()])
        expected |= {(layer, side, measure): value for side, value in sides.items()}
    values = {key: value for key, value in scored(network, 300).items() if key[2] in (pre, post)}
    assert values == {key: pytest.approx(value, rel=1e-4) for key, value in expected.items()}


def test_the_side_is_the_half_that_is_exchanged(scored):
    """A network that sees the left half alone changes with it, and not with the right."""
    network = models.initial("mlp", 0)
    nn.init.zeros_(network.hidden1.map.weight.data[:, 784:])
    found = scored(network)
    left, right, both = (
        found["pooled", side, "activation_change"] for side in ("left", "right", "both")
    )
    assert right == 0 < left and both == left / 2


def test_silent_layers_are_counted_not_averaged(scored):
    network = models.initial("mlp", 0)
    nn.init.constant_(network.hidden2.map.bias, -1e6)
    value = {
        (layer, name): v for (layer, side, name), v in scored(network).items() if side == "both"
    }
    assert np.isnan(value["hidden2", "activation_change"]) and value["hidden2", "zero_norm"] == 1
    assert value["hidden2", "zero_norm_pre"] == value["hidden1", "zero_norm"] == 0
    assert value["bottleneck", "activation_change"] == 0  # its biases: constant, with a norm
    assert 0 < value["pooled", "activation_change"] < 2


def test_the_parts_of_a_constant_layer_stay_in_bounds():
    """Rounding may put |mean|² a little above E h²."""
    for seed in range(20):
        constants = torch.rand(3, generator=torch.Generator().manual_seed(seed)).double().sqrt()
        parts = anova([dict.fromkeys(("hidden", "readout"), constants.expand(4, 30, 3))])
        rows = activation_change.score_parts(parts)
        assert all(isinstance(row["value"], float) for row in rows)
        assert all(row["value"] <= 1 for row in rows if row["measure"] == "offset_share")


@pytest.fixture(scope="module")
def group(toy, splits, tmp_path_factory):
    """(settings, networks, their tables) of a group of two towers, frames kept, on few pairs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODVAR_RESULTS", str(tmp_path_factory.mktemp("group")))
        patch.setattr(metrics, "measure", partial(metrics.measure, pairs=100))
        patch.setattr(metrics, "measure_training", partial(metrics.measure_training, pairs=100))
        settings = toy(
            architecture="towers", seeds="3-4", frames=2, extras="untrained, shifted,seen"
        )
        networks = runs.complete(settings)
        yield settings, networks, metrics.measure_group(settings, networks)


def test_rows_of_a_network(group):
    _, (run, _), _ = group
    layers = {"hidden1", "hidden2", "bottleneck", "readout"}
    table = metrics.measure(run, data.digits(), pairs=100)
    assert list(table) == metrics.COLUMNS and set(table["layer"]) == layers | {"pooled"}
    assert set(table["side"]) == {"left", "right", "both"} and set(table["copy"]) == {"trained"}
    assert not table.duplicated([*runs.KEYS, "layer", "side", "measure"]).any()
    assert set(table["measure"]) == {
        name for metric in metrics.METRICS.values() for name in metric.properties
    }
    selective = study.select(table, measure="side_selectivity")
    assert set(selective["layer"]) == layers and set(selective["side"]) == {"both"}
    assert (selective["value"][selective["layer"].isin(["hidden1", "hidden2"])] == 1).all()
    assert table["note"].isin([""]).eq(table["value"].notna()).all()


PLACES = {
    "mlp": {"hidden1": "hidden", "hidden2": "before_bottleneck"},
    "vit": dict.fromkeys(("patches", "block1", "block2"), "hidden") | {"mean": "before_bottleneck"},
}


@pytest.mark.parametrize("architecture", PLACES)
def test_a_layers_place_is_told_by_a_column(architecture, toy, splits):
    weights = models.initial(architecture, 1).state_dict()
    settings = toy(architecture=architecture, seeds=1)
    run = runs.Run(Path("nowhere"), settings, None, weights, {})
    table = metrics.measure(run, (splits[1], splits[1]), pairs=20, copy="seen")
    rest = {name: name for name in ("bottleneck", "readout", "pooled")}
    assert dict(table[["layer", "place"]].to_numpy()) == PLACES[architecture] | rest


def test_what_may_be_asked_for_is_what_can_be_measured():
    assert set(EXTRAS) == {*metrics.PERTURBATIONS, *metrics.EXTRAS, "untrained", "seen"}


KEY = ["layer", "side", "measure"]


def values(table, key=KEY, **where):
    return study.select(table, **where).set_index(key)["value"]


def test_tables_of_a_group(group, splits, scored):
    _, networks, tables = group
    measures = tables["measures"]
    assert list(tables) == ["measures", "training"] and set(measures["seed"]) == {3, 4}
    assert set(measures["copy"]) == {"trained", "untrained", "shifted", "seen"}
    assert not measures.duplicated([*runs.KEYS, "copy", *KEY]).any()
    for run in networks:
        with training.one_thread(True):  # as in a group: percentiles of tied errors need it
            alone = metrics.measure(run, splits, pairs=100)
        together = study.select(measures, seed=run.settings.seed, copy="trained")
        pd.testing.assert_frame_equal(alone, together.reset_index(drop=True))
    expected = {
        "untrained": scored(models.initial("towers", 3), 100, 3),
        "seen": scored(networks[0].network(), 100, 3, splits[0]),  # on rows of the training split
    }
    for copy, wanted in expected.items():
        found = values(measures, seed=3, copy=copy)
        for key, value in wanted.items():
            assert found[key] == pytest.approx(value, rel=1e-6, nan_ok=True)


def test_measures_through_training(group):
    settings, _, tables = group
    table = tables["training"]
    assert list(table) == [*runs.KEYS, *"epoch layer place side measure value".split()]
    epochs = [0, *training.kept_epochs(settings), 3]
    assert set(table["side"]) == {"both"} and sorted(set(table["epoch"])) == epochs
    measures = set(table["measure"])
    assert {"activation_change", "side_selectivity", "interchange_error"} < measures
    assert measures.isdisjoint(["probe_r2", "weight_modularity", *metrics.DERIVED])
    key = ["layer", "measure"]
    for epoch, copy in ((0, "untrained"), (3, "trained")):
        followed = values(table, key, seed=3, epoch=epoch)
        whole = values(tables["measures"], key, seed=3, copy=copy, side="both")[followed.index]
        pd.testing.assert_series_equal(followed, whole, rtol=1e-5, atol=1e-6)
    first, last = (values(table, key, seed=3, epoch=epoch) for epoch in (0, 3))
    assert not np.allclose(first, last, equal_nan=True)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), 1e30])
def test_a_network_that_diverged_has_every_row_and_the_reason(group, splits, weight):
    _, (run, _), _ = group
    whole = metrics.measure(run, splits, pairs=50)
    weights = {name: value.clone() for name, value in run.weights.items()}
    weights["hidden2.map.left.map.weight"][0, 0] = weight
    lost = metrics.measure(replace(run, weights=weights), splits, pairs=50)
    keys = [*runs.KEYS, "copy", "layer", "place", "side", "measure"]
    assert lost[keys].equals(whole[keys]) and lost["value"].isna().all()
    assert lost["note"].str.startswith("the network diverged").all()


@pytest.fixture
def transferred(splits, monkeypatch):
    """{measure: (value, note)} of a network."""

    def transferred(network, *steps):
        monkeypatch.setattr(transfer, "STEPS", steps)
        monkeypatch.setattr(transfer, "TEST_PAIRS", 500)
        draws = torch.from_numpy(data.evaluation_pairs(3, 20))
        rows = transfer.rows(Subject(network, splits, draws, 3))
        return {row["measure"]: (row["value"], row["note"]) for row in rows}

    return transferred


def test_transfer_starts_from_the_network_and_learns(splits, transferred):
    """Step 0 against R² by numpy; the network stays as it was; of several outputs there is nothing
    to say."""
    network = models.initial("mlp", 3)
    weights = [p.clone() for p in network.parameters()]
    found = {name: value for name, (value, _) in transferred(network, 0, 40).items()}
    rows = data.evaluation_pairs(3, 500)[:, :2]
    x, y = splits[1].labels.numpy()[rows].T
    with torch.no_grad():
        answer = network(data.halves(splits[1].images, torch.from_numpy(rows))).numpy()[:, 0]
    r2 = []
    fresh = [goals.drawn(0, 2**31 + i, goals.Schedule()) for i in range(transfer.GOALS)]
    for a, b in [*fresh, (1, -1)]:
        spread = np.sqrt(8.25 * (a * a + b * b))
        wanted = 9 + (a * x + b * y - 4.5 * (a + b)) * np.sqrt(16.5) / spread
        r2.append(1 - np.mean((answer - wanted) ** 2) / wanted.var())
    for name, value in (("transfer_r2", np.mean(r2[:-1])), ("transfer_r2_difference", r2[-1])):
        assert found[f"{name}_0"] == pytest.approx(value, rel=1e-4)
        assert found[f"{name}_40"] > found[f"{name}_0"]
    assert all(torch.equal(p, q) for p, q in zip(weights, network.parameters()))
    several = transferred(models.initial("mlp", 3, 2), 0, 40)
    assert len(several) == 4 and all(np.isnan(value) and note for value, note in several.values())


def test_transfer_of_a_readout_of_ones_own(transferred):
    """One that is not a linear map."""
    network = models.initial("mlp", 3)
    network.readout = nn.Sequential(network.readout)
    assert all(np.isfinite(value) for value, _ in transferred(network, 0, 1).values())


def test_a_group_is_measured_for_transfer_where_asked(group, splits, monkeypatch):
    monkeypatch.setattr(transfer, "STEPS", (0, 8))
    settings, networks, _ = group
    asked = settings.model_copy(update={"extras": "transfer"})
    table = metrics.measure_group(asked, networks[:1])["measures"]
    found = table[table["measure"].str.startswith("transfer_")]
    assert list(found["copy"]) == ["trained"] * 4 + ["untrained"] * 4
    assert set(found["layer"]) == set(found["place"]) == {"readout"}
