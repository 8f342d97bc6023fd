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


def test_a_case_by_hand():
    assert score(torch.tensor([3.0, 4.0]), torch.tensor([4.0, 3.0])).item() == pytest.approx(
        np.sqrt(2) / 5
    )
    assert score(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 8.0])).item() == pytest.approx(
        np.sqrt(68) / 4
    )
    assert score(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0])).item() == 0


def test_zero_norm_is_undefined_whichever_vector_it_is():
    zero, one = torch.zeros(3), torch.ones(3)
    assert all(score(*pair).isnan() for pair in ((zero, one), (one, zero), (zero, zero)))


def test_rotation_scale_and_permutation_change_nothing():
    generator = torch.Generator().manual_seed(0)
    v, w = torch.randn(2, 100, 16, generator=generator, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(torch.randn(16, 16, generator=generator, dtype=torch.float64))
    for changed in ((v @ rotation, w @ rotation), (7 * v, 7 * w), (v.flip(1), w.flip(1)), (w, v)):
        assert torch.allclose(score(v, w), score(*changed))


@pytest.fixture(scope="module")
def scored(splits):
    """{(layer, side, measure): value} of a network's score and its parts."""

    @torch.no_grad()
    def scored(network, count=100, seed=0, digits=splits[1]):
        draws = torch.from_numpy(data.evaluation_pairs(seed, count, len(digits)))
        rows = activation_change.rows(Subject(network, (digits, digits), draws, seed))
        return {(row["layer"], row["side"], row["measure"]): row["value"] for row in rows}

    return scored


def test_against_an_independent_computation(toy, splits, scored):
    """float64 NumPy, from the weights and the pixels, layer by layer, of a trained network that is
    not symmetric."""
    (trained,), images = (
        training.train(toy(regime="varying"), splits),
        splits[1].images.numpy() / 255.0,
    )
    w = {name: value.numpy().astype(np.float64) for name, value in trained.weights.items()}
    network = models.initial("mlp", 0)
    network.load_state_dict(trained.weights)
    draws, post, pre = data.evaluation_pairs(0, 300), "activation_change", "activation_change_pre"

    def layers(left, right):
        h, values = np.concatenate([images[left], images[right]], axis=1), {}
        for name, key in zip(
            ("hidden1", "hidden2", "bottleneck", "readout"),
            ("hidden1.map", "hidden2.map", "bottleneck", "readout"),
        ):
            values[name, pre] = h @ w[f"{key}.weight"].T + w[f"{key}.bias"]
            values[name, post] = h = (
                np.maximum(values[name, pre], 0) if "map" in key else values[name, pre]
            )
        for measure in (pre, post):
            hidden = [values[name, measure] for name in ("hidden1", "hidden2", "bottleneck")]
            values["pooled", measure] = np.concatenate(hidden, axis=1)
        return values

    before, expected = layers(draws[:, 0], draws[:, 1]), {}
    after = {"left": layers(draws[:, 2], draws[:, 1]), "right": layers(draws[:, 0], draws[:, 3])}
    for (layer, measure), v in before.items():
        for side, changed in after.items():
            u = changed[layer, measure]
            norms = np.sqrt(np.linalg.norm(v, axis=1) * np.linalg.norm(u, axis=1))
            expected[layer, side, measure] = np.mean(np.linalg.norm(v - u, axis=1) / norms)
        expected[layer, "both", measure] = np.mean(
            [expected[layer, side, measure] for side in after]
        )
    values = {key: value for key, value in scored(network, 300).items() if key[2] in (pre, post)}
    assert values == {key: pytest.approx(value, rel=1e-4) for key, value in expected.items()}


def test_the_side_is_the_half_that_is_exchanged(scored):
    """A network that sees the left half alone changes with it, and not with the right."""
    network = models.initial("mlp", 0)
    nn.init.zeros_(network.hidden1.map.weight.data[:, 784:])
    left, right, both = (
        scored(network)["pooled", side, "activation_change"] for side in ("left", "right", "both")
    )
    assert right == 0 < left and both == left / 2


def test_silent_layers_are_counted_not_averaged(scored):
    network = models.initial("mlp", 0)
    nn.init.constant_(network.hidden2.map.bias, -1e6)
    value = {
        (layer, measure): v
        for (layer, side, measure), v in scored(network).items()
        if side == "both"
    }
    assert np.isnan(value["hidden2", "activation_change"]) and value["hidden2", "zero_norm"] == 1
    assert value["hidden2", "zero_norm_pre"] == value["hidden1", "zero_norm"] == 0
    assert (
        value["bottleneck", "activation_change"] == 0
    )  # its biases are left: constant, with a norm
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
    "cnn": {"conv1": "hidden", "conv2": "hidden", "dense": "before_bottleneck"},
    "vit": {
        "patches": "hidden",
        "block1": "hidden",
        "block2": "hidden",
        "mean": "before_bottleneck",
    },
}


@pytest.mark.parametrize("architecture", PLACES)
def test_a_layers_place_is_told_by_a_column(architecture, toy, splits, monkeypatch):
    monkeypatch.setattr(
        metrics, "METRICS", {"activation_change": metrics.METRICS["activation_change"]}
    )
    network = models.initial(architecture, 1)
    run = runs.Run(
        Path("nowhere"), toy(architecture=architecture, seeds=1), None, network.state_dict(), {}
    )
    table = metrics.measure(run, splits, pairs=20)[["layer", "place"]].drop_duplicates()
    rest = {name: name for name in ("bottleneck", "readout", "pooled")}
    assert dict(table.to_numpy()) == PLACES[architecture] | rest


def test_tables_of_a_group(group, splits, scored):
    _, networks, tables = group
    measures = tables["measures"]
    assert list(tables) == ["measures", "training"]
    assert set(measures["copy"]) == {"trained", "untrained", "shifted", "seen"} and set(
        measures["seed"]
    ) == {3, 4}
    assert not measures.duplicated([*runs.KEYS, "copy", "layer", "side", "measure"]).any()
    for run in networks:
        with training.one_thread(
            True
        ):  # as in a group: a percentile of errors that tie hangs on rounding
            alone = metrics.measure(run, splits, pairs=100).reset_index(drop=True)
        together = study.select(measures, seed=run.settings.seed, copy="trained").reset_index(
            drop=True
        )
        pd.testing.assert_frame_equal(alone, together)
    expected = {
        "untrained": scored(models.initial("towers", 3), 100, 3),
        "seen": scored(networks[0].network(), 100, 3, splits[0]),  # on rows of the training split
    }
    for copy, values in expected.items():
        rows = study.select(measures, seed=3, copy=copy).set_index(["layer", "side", "measure"])[
            "value"
        ]
        assert all(
            rows[key] == pytest.approx(value, rel=1e-6, nan_ok=True)
            for key, value in values.items()
        )


def test_measures_through_training(group, splits):
    settings, (run, _), tables = group
    table = tables["training"]
    assert list(table) == [*runs.KEYS, *"epoch layer place side measure value".split()] and set(
        table["side"]
    ) == {"both"}
    assert (
        sorted(set(table["epoch"]))
        == [0, *run.frames, 3]
        == [0, *training.kept_epochs(settings), 3]
    )
    light = {
        "activation_change",
        "side_selectivity",
        "interaction",
        "effect_selectivity",
        "interchange_error",
    }
    assert light < set(table["measure"]) and "probe_r2" not in set(table["measure"])
    last = (
        study.select(table, seed=3, epoch=3)
        .drop(columns="epoch")
        .set_index(["layer", "measure"])["value"]
    )
    whole = study.select(tables["measures"], seed=3, copy="trained", side="both").set_index(
        ["layer", "measure"]
    )["value"]
    pd.testing.assert_series_equal(last, whole[last.index], rtol=1e-5, atol=1e-6)
    start = study.select(tables["measures"], seed=3, copy="untrained", side="both").set_index(
        ["layer", "measure"]
    )["value"]
    first = study.select(table, seed=3, epoch=0).set_index(["layer", "measure"])["value"]
    pd.testing.assert_series_equal(first, start[first.index], rtol=1e-5, atol=1e-6)
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


def test_transfer_starts_from_the_network_and_learns(splits, monkeypatch):
    """Step 0 against R² by numpy; the network stays as it was; of several outputs there is nothing
    to say."""
    monkeypatch.setattr(transfer, "STEPS", (0, 40))
    network = models.initial("mlp", 3)
    weights = [p.clone() for p in network.parameters()]
    found = transfer.rows(network, splits, seed=3, test_pairs=500)
    before, after, apart, learnt = (row["value"] for row in found)
    assert [row["measure"][12:] for row in found] == ["0", "40", "difference_0", "difference_40"]
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
    assert before == pytest.approx(np.mean(r2[:-1]), rel=1e-4) and after > before
    assert apart == pytest.approx(r2[-1], rel=1e-4) and learnt > apart
    assert all(torch.equal(p, q) for p, q in zip(weights, network.parameters()))
    assert all(
        np.isnan(row["value"]) and row["note"]
        for row in transfer.rows(models.initial("mlp", 3, 2), splits, 3)
    )


def test_transfer_of_a_readout_of_ones_own(splits, monkeypatch):
    """One that is not a linear map."""
    monkeypatch.setattr(transfer, "STEPS", (0, 1))
    network = models.initial("mlp", 3)
    network.readout = torch.nn.Sequential(network.readout)
    rows = transfer.rows(network, splits, 3, test_pairs=20)
    assert all(np.isfinite(row["value"]) for row in rows)


def test_a_group_is_measured_for_transfer_where_asked(group, splits, monkeypatch):
    monkeypatch.setattr(transfer, "STEPS", (0, 1))
    settings, networks, _ = group
    table = metrics.measure_group(settings.model_copy(update={"extras": "transfer"}), networks[:1])[
        "measures"
    ]
    found = table[table["measure"].str.startswith("transfer_")]
    assert list(found["copy"]) == ["trained"] * 4 + ["untrained"] * 4 and set(found["layer"]) == {
        "readout"
    }
