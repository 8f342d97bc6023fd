from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TOY
from torch import nn

from modvar_lib import data, metrics, models, runs, training
from modvar_lib.metrics import activation_change
from modvar_lib.metrics.activation_change import score
from modvar_lib.metrics.subject import Subject, anova
from modvar_lib.settings import Settings


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
def network(splits):
    """A trained network that is not symmetric in its halves."""
    trained = training.train(Settings(**TOY, regime="varying"), splits)[0]
    network = models.initial("mlp", 0)
    network.load_state_dict(trained.weights)
    return network


def test_against_an_independent_computation(network, splits):
    """float64 NumPy, from the weights and the pixels, layer by layer."""
    images = splits[1].images
    draws = data.evaluation_pairs(0, 300)
    w = {
        name: value.detach().numpy().astype(np.float64)
        for name, value in network.state_dict().items()
    }

    def layers(left, right):
        h = np.concatenate([images[left].numpy(), images[right].numpy()], axis=1) / 255.0
        found = {}
        for name, key in (
            ("hidden1", "hidden1.map"),
            ("hidden2", "hidden2.map"),
            ("bottleneck", "bottleneck"),
            ("readout", "readout"),
        ):
            pre = h @ w[f"{key}.weight"].T + w[f"{key}.bias"]
            h = np.maximum(pre, 0) if "map" in key else pre
            found[name, "activation_change_pre"], found[name, "activation_change"] = pre, h
        for measure in ("activation_change_pre", "activation_change"):
            found["pooled", measure] = np.concatenate(
                [found[n, measure] for n in ("hidden1", "hidden2", "bottleneck")], axis=1
            )
        return found

    before = layers(draws[:, 0], draws[:, 1])
    after = {"left": layers(draws[:, 2], draws[:, 1]), "right": layers(draws[:, 0], draws[:, 3])}
    expected = {}
    for (layer, measure), v in before.items():
        for side, changed in after.items():
            u = changed[layer, measure]
            norms = np.sqrt(np.linalg.norm(v, axis=1) * np.linalg.norm(u, axis=1))
            expected[layer, side, measure] = np.mean(np.linalg.norm(v - u, axis=1) / norms)
        expected[layer, "both", measure] = (
            expected[layer, "left", measure] + expected[layer, "right", measure]
        ) / 2
    with torch.no_grad():
        rows = activation_change.rows(Subject(network, splits[1], torch.from_numpy(draws)))
    found = {
        (r["layer"], r["side"], r["measure"]): r["value"]
        for r in rows
        if r["measure"] in ("activation_change", "activation_change_pre")
    }
    assert found.keys() == expected.keys()
    assert all(found[key] == pytest.approx(expected[key], rel=1e-4) for key in expected)


def test_the_side_is_the_half_that_is_exchanged(splits):
    """A network that sees the left half alone changes with it, and not with the right."""
    network = models.initial("mlp", 0)
    nn.init.zeros_(network.hidden1.map.weight.data[:, 784:])
    draws = torch.from_numpy(data.evaluation_pairs(0, 100))
    with torch.no_grad():
        rows = activation_change.rows(Subject(network, splits[1], draws))
    value = {
        (r["layer"], r["side"]): r["value"] for r in rows if r["measure"] == "activation_change"
    }
    assert value["pooled", "right"] == 0 < value["pooled", "left"]
    assert value["pooled", "both"] == value["pooled", "left"] / 2


def test_silent_layers_are_counted_not_averaged(splits):
    network = models.initial("mlp", 0)
    nn.init.constant_(network.hidden2.map.bias, -1e6)
    draws = torch.from_numpy(data.evaluation_pairs(0, 100))
    with torch.no_grad():
        rows = activation_change.rows(Subject(network, splits[1], draws))
    value = {(r["layer"], r["side"], r["measure"]): r["value"] for r in rows}
    assert (
        np.isnan(value["hidden2", "both", "activation_change"])
        and value["hidden2", "both", "zero_norm"] == 1
    )
    assert (
        value["hidden2", "both", "zero_norm_pre"] == 0
        and value["hidden1", "both", "zero_norm"] == 0
    )
    assert (
        value["bottleneck", "both", "activation_change"] == 0
    )  # its biases are left: constant, with a norm
    assert 0 < value["pooled", "both", "activation_change"] < 2


def test_the_parts_of_a_constant_layer_stay_in_bounds():
    """Rounding may put |mean|² a little above E h²."""
    for seed in range(20):
        constants = torch.rand(3, generator=torch.Generator().manual_seed(seed)).double().sqrt()
        parts = anova([dict.fromkeys(("hidden", "readout"), constants.expand(4, 30, 3))])
        rows = activation_change._why(SimpleNamespace(anova=parts, layers=list(parts)))
        assert all(isinstance(row["value"], float) for row in rows)
        assert all(row["value"] <= 1 for row in rows if row["measure"] == "offset_share")


def test_rows_of_a_run(results, toy, splits):
    trained = training.train(toy(architecture="cnn"), splits)[0]
    table = metrics.measure(runs.load(runs.save("toy", trained)), splits[1], pairs=100)
    assert list(table) == metrics.COLUMNS
    layers = {"conv1", "conv2", "dense", "bottleneck", "readout"}
    assert set(table["layer"]) == layers | {"pooled"}
    assert set(table["side"]) == {"left", "right", "both"}
    assert not table.duplicated([*runs.KEYS, "layer", "side", "measure"]).any()
    declared = {name for metric in metrics.METRICS.values() for name in metric.properties}
    assert set(table["measure"]) == declared
    selective = table[table["measure"] == "side_selectivity"]
    assert set(selective["layer"]) == layers and set(selective["side"]) == {"both"}


def test_a_network_of_nan_has_every_row_and_the_reason(results, toy, splits):
    trained = training.train(toy(), splits)[0]
    whole = metrics.measure(runs.load(runs.save("toy", trained)), splits[1], pairs=100)
    trained.weights["hidden1.map.weight"][0, 0] = float("nan")
    lost = metrics.measure(runs.load(runs.save("toy", trained)), splits[1], pairs=100)
    keys = [*runs.KEYS, "layer", "side", "measure"]
    assert lost[keys].equals(whole[keys])
    assert lost["value"].isna().all()
    assert set(lost["note"]) == {"the network's weights are not finite"}


def test_units_are_measured_through_training(toy, splits, results):
    plain, framed = toy(), toy(architecture="towers", epochs=3, frames=2)
    runs.complete(plain)
    assert metrics.measure_frames("toy").empty
    (run,) = runs.complete(framed)
    table = metrics.measure_frames("toy", pairs=100)
    assert list(table) == [*runs.KEYS, *"epoch layer unit left right interaction".split()]
    assert set(table["architecture"]) == {"towers"} and set(table["epoch"]) == {0, 2, 3}
    assert set(table["layer"]) == {"hidden1", "hidden2"} and len(table) == 3 * (128 + 64)
    draws = torch.from_numpy(data.evaluation_pairs(0, 100, len(splits[1])))
    with torch.no_grad():
        found = Subject(run.network(), splits[1], draws).anova["hidden2"]
    last = table[(table["epoch"] == 3) & (table["layer"] == "hidden2")]
    assert last["left"].to_numpy() == pytest.approx(found.left.numpy(), rel=1e-3)
    assert (last["left"] * last["right"] == 0).all()  # a tower sees one digit
