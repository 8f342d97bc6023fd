"""What every measure declares of itself, on random and trained networks; and each against a
computation from outside."""

import copy
import functools
import itertools

import networkx
import numpy as np
import pytest
import torch
from conftest import TOY
from sklearn.linear_model import LinearRegression
from torch import nn

from modvar_lib import calibration, data, metrics, models, training
from modvar_lib.architectures.calibration import Dose
from modvar_lib.metrics import (
    clusterability,
    digit_selectivity,
    effect_selectivity,
    interchange,
    weights,
)
from modvar_lib.metrics.subject import Subject, anova
from modvar_lib.settings import Settings

PROPERTIES = {
    name: declared
    for metric in metrics.METRICS.values()
    for name, declared in metric.properties.items()
}
HIDDEN = ("hidden1", "hidden2")


@pytest.fixture(scope="module")
def draws(splits):
    return torch.from_numpy(data.evaluation_pairs(0, 400, len(splits[1])))


class Values(dict):
    """With notes."""


@pytest.fixture(scope="module")
def measured(splits, draws):
    """{(layer, side, measure): value} of a network, and as `notes` why some are NaN."""

    def measured(network, seed=0, pairs=400, names=metrics.METRICS):
        own = draws if pairs == 400 else torch.from_numpy(data.evaluation_pairs(0, pairs))
        subject = Subject(network, splits, own, seed)
        rows = metrics.measure_network(subject, {name: metrics.METRICS[name] for name in names})
        keys = [(row["layer"], row["side"], row["measure"]) for row in rows]
        values = Values(zip(keys, (row["value"] for row in rows)))
        values.notes = dict(zip(keys, (row["note"] for row in rows)))
        return values

    return measured


@pytest.fixture(scope="module")
def trained(splits):
    """An `mlp` that has learned a little, with sides that differ."""
    options = {**TOY, "pairs_per_epoch": 6000, "regime": "varying"}
    found = training.train(Settings(**options), splits)[0]
    network = models.initial("mlp", 0)
    network.load_state_dict(found.weights)
    network.requires_grad_(False)
    with torch.no_grad():  # sides that are neither alike nor balanced
        network.hidden1.map.weight[:80, 784:] *= 0.2
    return network


@pytest.fixture(scope="module")
def whole(measured, trained):
    return measured(trained)


def permuted(network):
    """Units of the hidden layers in another order."""
    found = copy.deepcopy(network)
    before = None
    for layer in (found.hidden1.map, found.hidden2.map, found.bottleneck):
        weight, bias = layer.weight.data, layer.bias.data
        if before is not None:
            weight = weight[:, before]
        generator = torch.Generator().manual_seed(len(weight))
        before = torch.randperm(len(weight), generator=generator)
        layer.weight.data, layer.bias.data = weight[before].contiguous(), bias[before]
    found.readout.weight.data = found.readout.weight.data[:, before]
    return found


def rescaled(network):
    """Each hidden ReLU unit times a positive number, undone in the next layer."""
    found = copy.deepcopy(network)
    layers = (found.hidden1.map, found.hidden2.map, found.bottleneck)
    for layer, following in itertools.pairwise(layers):
        generator = torch.Generator().manual_seed(len(layer.bias))
        scale = torch.exp(torch.randn(len(layer.bias), generator=generator))
        layer.weight.data *= scale[:, None]
        layer.bias.data *= scale
        following.weight.data /= scale
    return found


def swapped(network):
    """The network with its halves exchanged."""
    found = copy.deepcopy(network)
    found.hidden1.map.weight.data = found.hidden1.map.weight.data.roll(784, 1)
    return found


def differing(whole, other, change, exchange=None, layers=None):
    """Rows of measures that declare themselves invariant and are not."""
    rows = []
    for (layer, side, measure), value in whole.items():
        if change in PROPERTIES[measure].invariant and (layers is None or layer in layers):
            again = other[layer, (exchange or {}).get(side, side), measure]
            if not np.isclose(value, again, rtol=2e-3, atol=2e-3, equal_nan=True):
                rows.append((layer, side, measure, value, again))
    return rows


def test_invariant_to_the_order_of_units(whole, trained, measured):
    assert differing(whole, measured(permuted(trained)), "permutation") == []


def test_invariant_to_positive_rescaling_where_claimed(whole, trained, measured):
    other = measured(rescaled(trained))
    assert differing(whole, other, "rescaling") == []
    key = ("hidden2", "both", "side_selectivity")  # which does not claim it
    assert abs(whole[key] - other[key]) > 1e-3


@pytest.mark.parametrize("layer", HIDDEN)
def test_invariant_to_rotation_where_claimed(whole, trained, measured, layer):
    other = measured(calibration.rotated(trained, layer))
    assert differing(whole, other, "rotation", layers=[layer]) == []
    claimed = {"side_selectivity", "weight_modularity", "specialisation"}
    for measure in claimed - {"weight_modularity"}:  # not invariant, and said so
        key = (layer, "both", measure)
        assert abs(whole[key] - other[key]) > 0.01, measure
    assert not any("rotation" in PROPERTIES[measure].invariant for measure in claimed)


def test_swapping_the_sides_swaps_left_and_right(whole, trained, measured):
    exchange = {"left": "right", "right": "left"}
    other = measured(swapped(trained))
    assert differing(whole, other, "swap", exchange) == []
    key = ("hidden1", "both", "side_balance")
    assert whole[key] == pytest.approx(-other[key], abs=1e-6)
    assert abs(whole[key]) > 0.01


def network_of(name):
    return models.initial(name, 1)


def with_dead_units(layer):
    network = network_of("mlp")
    nn.init.constant_(getattr(network, layer).map.bias[:], -1e6)
    return network


def with_constant_units():
    network = network_of("mlp")
    nn.init.zeros_(network.hidden1.map.weight[::2])
    nn.init.ones_(network.hidden1.map.bias[::2])
    nn.init.zeros_(network.hidden2.map.weight[1::2])
    nn.init.constant_(network.hidden2.map.bias[1::2], -1.0)
    return network


def all_zero():
    network = network_of("mlp")
    for p in network.parameters():
        nn.init.zeros_(p)
    return network


NETWORKS = {
    **{
        name: (lambda name=name: network_of(name))
        for name in models.ARCHITECTURES
        if "dose" not in name
    },
    "a silent first layer": lambda: with_dead_units("hidden1"),
    "a silent second layer": lambda: with_dead_units("hidden2"),
    "constant and dead units": with_constant_units,
    "two outputs": lambda: models.initial("mlp", 1, 2),
    "zero everywhere": all_zero,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_values_are_in_bounds_or_nan_with_a_reason(name, measured):
    with torch.no_grad():
        network = NETWORKS[name]()
    values = measured(network)
    for what, value in values.items():
        declared = PROPERTIES[what[2]]
        assert isinstance(value, float) and np.isnan(value) == bool(values.notes[what]), (
            what,
            value,
        )
        assert np.isnan(value) or declared.low - 1e-6 <= value <= declared.high + 1e-6, (
            what,
            value,
        )


def test_silent_layers_have_no_value_not_a_zero(measured):
    with torch.no_grad():
        found = measured(with_dead_units("hidden2"))
    silent = "activation_change side_selectivity interaction digit_selectivity offset_share specialisation lesion_leak"
    for measure in (
        *silent.split(),
        "interchange_error",
        "effect_selectivity",
        "effect_selectivity_rotated",
    ):
        key = ("hidden2", "both", measure)
        assert np.isnan(found[key]) and found.notes[key], measure


def test_constant_units_do_not_count(measured, trained, whole):
    """Units that never vary change neither selectivity nor interaction, nor the split of the
    weights."""
    wider = copy.deepcopy(trained)
    layer, following = wider.hidden1, wider.hidden2
    more = nn.Linear(1568, 138)
    with torch.no_grad():
        more.weight.zero_()
        more.bias[:] = torch.linspace(-1, 1, 138)  # dead, or on throughout
        more.weight[:128], more.bias[:128] = layer.map.weight, layer.map.bias
        after = nn.Linear(138, 64)
        after.weight.zero_()
        after.weight[:, :128], after.bias[:] = following.map.weight, following.map.bias
    layer.map, following.map = more, after
    padded = measured(wider)
    for measure in (
        "side_selectivity",
        "interaction",
        "weight_modularity",
        "lesion_leak",
        "effect_selectivity",
    ):
        key = ("hidden1", "both", measure)
        assert whole[key] == pytest.approx(padded[key], abs=1e-4), measure


# calibration: the ends of the scale, and what lies between


def towers():
    return network_of("towers")


@pytest.fixture(scope="module")
def of_towers(measured):
    return measured(towers())


def test_towers_are_modular_exactly(of_towers):
    for layer in HIDDEN:
        value = {key[1:]: value for key, value in of_towers.items() if key[0] == layer}
        assert value["both", "side_selectivity"] == pytest.approx(1, abs=1e-9)
        assert value["both", "effect_selectivity"] == pytest.approx(1, abs=1e-9)
        assert value["both", "effect_selectivity_rotated"] < 0.5
        assert value["both", "interaction"] == pytest.approx(0, abs=1e-9)
        assert value["both", "weight_modularity"] == pytest.approx(0.5, abs=0.02)
        assert value["both", "weight_ncut"] == pytest.approx(0, abs=1e-6)
        assert value["both", "interchange_error"] == pytest.approx(0, abs=1e-6)
        assert value["both", "interchange_percentile"] == 0
        assert value["both", "lesion_leak"] == pytest.approx(0, abs=1e-6)


def test_summed_has_no_sides_exactly(measured):
    found = measured(network_of("summed"))
    for layer in HIDDEN:
        for measure in ("side_selectivity", "effect_selectivity", "effect_selectivity_rotated"):
            assert found[layer, "both", measure] == pytest.approx(0, abs=1e-6)
        assert found[layer, "both", "side_balance"] == pytest.approx(0, abs=1e-6)
        for measure in ("weight_modularity", "interchange_error", "lesion_leak"):
            assert np.isnan(found[layer, "both", measure]) and found.notes[layer, "both", measure]


def test_rotated_towers_have_the_same_score_and_no_modules(measured, of_towers):
    plain, turned = of_towers, measured(calibration.rotated(towers(), "hidden2"))
    for measure in ("activation_change", "interaction", "offset_share", "exchanged_share"):
        for side in ("left", "both"):
            key = ("hidden2", side, measure)
            if key in plain:
                assert plain[key] == pytest.approx(turned[key], abs=5e-3), key
    assert plain["hidden2", "both", "side_selectivity"] > 0.99
    floor = plain["hidden2", "both", "side_selectivity_rotated"]
    assert turned["hidden2", "both", "side_selectivity"] == pytest.approx(floor, abs=0.1)
    assert floor < 0.5
    floor = turned["hidden2", "both", "effect_selectivity_rotated"]
    assert turned["hidden2", "both", "effect_selectivity"] == pytest.approx(floor, abs=0.1)
    assert floor < 0.5


def test_an_offset_lowers_the_score_and_nothing_else(measured, of_towers):
    plain, moved = of_towers, measured(calibration.shifted(towers(), "hidden2", 0.5))
    key = ("hidden2", "both", "activation_change")
    assert moved[key] < 0.8 * plain[key]
    for measure in (
        "side_selectivity",
        "interaction",
        "interchange_error",
        "lesion_leak",
        "effect_selectivity",
    ):
        key = ("hidden2", "both", measure)
        assert plain[key] == pytest.approx(moved[key], abs=1e-4), measure


@pytest.mark.parametrize("change", ["rotated", "shifted"])
def test_copies_compute_the_same_function(change, trained, splits, draws):
    options = {"rotated": (), "shifted": (0.5,)}[change]
    pairs = data.halves(splits[1].images, draws[:, :2])
    for layer in (*HIDDEN, "bottleneck"):
        other = getattr(calibration, change)(trained, layer, *options)
        assert torch.allclose(other(pairs), trained(pairs), atol=1e-3)


def test_a_shuffled_copy_keeps_the_weights_of_each_layer_in_another_order(trained):
    other = calibration.shuffled(trained)
    for name, value in trained.state_dict().items():
        found = other.state_dict()[name]
        assert torch.equal(value.flatten().sort().values, found.flatten().sort().values)
        assert torch.equal(value, found) == (value.dim() == 1) or value.numel() < 10


DOSES = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)
DIRECTED = [
    (metric, measure)
    for metric, found in metrics.METRICS.items()
    for measure, declared in found.properties.items()
    if declared.modular
]


@pytest.fixture(scope="module")
def dosed(measured):
    """The same weights, those across the sides times c; rows of one metric for each of DOSES."""
    initial = models.initial("mlp", 2).state_dict()

    @functools.cache
    def dosed(metric):
        pairs, tables = (
            5000 if metric == "information" else 400,
            [],
        )  # probes need more pairs than units
        for c in DOSES:
            network = type("Some", (Dose,), {"c": c})()
            network.load_state_dict(initial)
            tables.append(measured(network, 0, pairs, [metric]))
        return tables

    return dosed


@pytest.mark.parametrize(("metric", "measure"), DIRECTED)
def test_measures_of_modularity_follow_the_dose(metric, measure, dosed):
    """Monotone in c, in the direction declared, up to noise."""
    direction, found = PROPERTIES[measure].modular, dosed(metric)
    for layer in HIDDEN:
        values = np.array([rows[layer, "both", measure] for rows in found])
        steps, spread = -direction * np.diff(values), np.ptp(values)
        noise = 0.35 if measure == "specialisation" else 0.1  # an absolute value, never quite 0
        assert spread > 0.01 and (steps > -noise * spread).all(), (layer, values.round(3))
        assert direction * (values[0] - values[-1]) > 0.6 * spread


# against computations from outside


def test_anova_against_a_full_grid():
    """Every left input with every right one: the exact variances, by plain sums; and the estimate
    from quadruples."""
    generator = torch.Generator().manual_seed(1)
    f, g = (torch.randn(10, 1, 6, generator=generator).double() for _ in range(2))
    i = torch.randn(10, 10, 6, generator=generator).double()
    h = 3 + f + g.transpose(0, 1) + 0.5 * i
    exact = digit_selectivity.grid_anova(h)
    mean = h.mean((0, 1))
    left = ((h.mean(1) - mean) ** 2).mean(0)
    right = ((h.mean(0) - mean) ** 2).mean(0)
    total = h.flatten(0, 1).var(0, correction=0)
    for found, wanted in (
        (exact.left, left),
        (exact.right, right),
        (exact.interaction, total - left - right),
    ):
        assert torch.allclose(found, wanted)
    x, y, x2, y2 = torch.randint(10, (4, 400_000), generator=generator)
    estimate = anova([{"l": torch.stack([h[x, y], h[x2, y], h[x, y2], h[x2, y2]])}])["l"]
    for name in ("left", "right", "interaction", "mean", "energy"):
        assert torch.allclose(getattr(estimate, name), getattr(exact, name), rtol=0.03, atol=0.01)


@pytest.mark.parametrize("c", [0.0, 0.1, 0.5, 1.0])
def test_two_equal_blocks_have_the_closed_form(c):
    half = torch.arange(6) < 3
    split = {"left": half, "right": ~half}
    same = half[:, None] == half
    strength = torch.where(same, 1.0, c)
    q, ncut = weights.separation(strength, split, split)
    assert q == pytest.approx((1 - c) / (2 * (1 + c))) and ncut == pytest.approx(2 * c / (1 + c))


def test_separation_against_networkx():
    generator = torch.Generator().manual_seed(3)
    strength = torch.rand(7, 9, generator=generator, dtype=torch.float64)
    units = {"left": torch.arange(7) < 3, "right": torch.arange(7) >= 3}
    inputs = {"left": torch.arange(9) < 5, "right": torch.arange(9) >= 5}
    graph = networkx.Graph()
    graph.add_weighted_edges_from(
        (f"u{i}", f"v{j}", float(strength[i, j])) for i in range(7) for j in range(9)
    )
    groups = [
        {f"u{i}" for i in torch.nonzero(units[s]).flatten().tolist()}
        | {f"v{j}" for j in torch.nonzero(inputs[s]).flatten().tolist()}
        for s in ("left", "right")
    ]
    q, ncut = weights.separation(strength, units, inputs)
    assert q == pytest.approx(networkx.community.modularity(graph, groups, weight="weight"))
    theirs = networkx.normalized_cut_size(graph, *groups, weight="weight")
    assert ncut == pytest.approx(theirs)


def test_the_map_into_a_layer_is_its_weight_matrix(trained):
    for before, layer, module in (
        (weights.PIXELS, "hidden1", trained.hidden1.map),
        ("hidden1", "hidden2", trained.hidden2.map),
        ("hidden2", "bottleneck", trained.bottleneck),
    ):
        weight, bias = weights.affine_map(trained, before, layer)
        assert torch.allclose(weight, module.weight, atol=1e-5)
        assert torch.allclose(bias, module.bias, atol=1e-5)


def test_the_map_into_a_convolution_gives_its_activations(splits, draws):
    network = network_of("cnn")
    pairs = data.halves(splits[1].images, draws[:20, :2])
    weight, bias = weights.affine_map(network, weights.PIXELS, "conv1")
    seen = models.activations(network, pairs)[1]
    assert torch.allclose(pairs.flatten(1) @ weight.T + bias, seen["conv1", "pre"], atol=1e-4)
    assert weights.affine_map(network_of("vit"), "patches", "block1") is None


def test_interchange_by_hand(trained, splits, draws):
    """Overwrite by hand, unit by unit, with a network cut in two."""
    subject = Subject(trained, splits, draws)
    rows = {(r["layer"], r["side"], r["measure"]): r["value"] for r in interchange.rows(subject)}
    four = torch.cat(list(subject.quadruples(interchange.DRAWS)), 1)
    h = [trained.hidden1(data.halves(splits[1].images, pairs).flatten(1)) for pairs in four]
    end = nn.Sequential(trained.hidden2, trained.bottleneck, trained.readout)
    with torch.no_grad():
        answers = [end(one).double() for one in h]
        mixed = h[0].clone()
        units = subject.sides("hidden1")["left"]
        mixed[:, units] = h[3][:, units]
        error = (end(mixed) - answers[1]).double().square().mean()
        variance = torch.cat(answers[1:3]).var(correction=0)
    found = rows["hidden1", "left", "interchange_error"]
    assert found == pytest.approx(float(error / variance), rel=1e-4)


def test_probes_against_least_squares(trained, splits):
    """R² of a probe, by scikit-learn's ordinary least squares on the same activations."""
    draws = torch.from_numpy(data.evaluation_pairs(5, 3000, len(splits[1])))
    rows = metrics.information.rows(Subject(trained, splits, draws))
    value = {(r["layer"], r["side"], r["measure"]): r["value"] for r in rows}
    fit, test = draws[:, :2] % 5000, 5000 + draws[:, 2:] % 5000
    subject = Subject(trained, splits, draws)
    x, z = (subject.activations(pairs)["hidden2"].detach().numpy() for pairs in (fit, test))
    known, wanted = (splits[1].labels[pairs].numpy() for pairs in (fit, test))
    for column, side in enumerate(("left", "right")):
        r2 = LinearRegression().fit(x, known[:, column]).score(z, wanted[:, column])
        assert value["hidden2", side, "probe_r2"] == pytest.approx(r2, abs=0.03)


def test_clusterability_finds_planted_clusters():
    """Four blocks through two layers: the cut of four clusters is 0, that of shuffled weights is
    not."""
    blocks = [np.kron(np.eye(4), np.ones((5, n))) for n in (6, 5, 5)]
    graph = clusterability.adjacency(blocks)
    assert graph.shape == (24 + 20 + 20 + 20,) * 2 and abs(graph - graph.T).max() == 0
    assert clusterability.ncut(blocks, 4, 0) == pytest.approx(0, abs=1e-9)
    random = np.random.default_rng(0)
    shuffled = [random.permuted(b.ravel()).reshape(b.shape) for b in blocks]
    assert clusterability.ncut(shuffled, 4, 0) > 0.5


def test_cut_against_networkx():
    random = np.random.default_rng(1)
    layers = [random.random((4, 5)), random.random((3, 4))]
    graph = clusterability.adjacency(layers)
    cluster = np.arange(12) % 2
    theirs = networkx.from_scipy_sparse_array(graph)
    groups = [set(np.flatnonzero(cluster == k).tolist()) for k in (0, 1)]
    wanted = networkx.normalized_cut_size(theirs, *groups, weight="weight")
    assert clusterability.cut(graph, cluster) == pytest.approx(wanted)


def test_clusterability_of_a_network(splits, draws):
    rows = clusterability.rows(Subject(towers(), splits, draws), shuffles=3)
    value = {row["measure"]: row["value"] for row in rows}
    assert value["cluster_percentile"] == 0 and value["cluster_z"] < 0
    assert 0 < value["cluster_ncut"] < value["cluster_ncut_shuffled"] < 12
    rows = clusterability.rows(Subject(network_of("vit"), splits, draws), shuffles=2)
    assert all(np.isnan(row["value"]) and row["note"] for row in rows)


def test_the_approximation_of_the_score(whole):
    """sqrt(2 (V_R + V_I) / V (1 - rho)), science's shortcut, is near the score itself on a trained
    network."""
    for layer in ("hidden1", "pooled"):
        for side in ("left", "right"):
            score = whole[layer, side, "activation_change"]
            near = whole[layer, side, "activation_change_expected"]
            assert near == pytest.approx(score, rel=0.15), (layer, side)


@pytest.fixture(scope="module")
def ablated(trained, splits, draws):
    """What the layer before the bottleneck is on all four pairs of every draw, [4, n, U]; each
    unit's mean squared effect on the answer when it is frozen at its mean, unit by unit."""
    subject = Subject(trained, splits, draws)
    four = torch.cat(list(subject.quadruples()), 1)
    flat = data.halves(splits[1].images, four.flatten(0, 1)).flatten(1)
    h = trained.hidden2(trained.hidden1(flat)).double()
    end = copy.deepcopy(nn.Sequential(trained.bottleneck, trained.readout)).double()
    effects = []
    for unit in range(h.shape[1]):
        frozen = h.clone()
        frozen[:, unit] = h[:, unit].mean()
        effects.append(float((end(h) - end(frozen)).square().mean()))
    return h.unflatten(0, (4, -1)).numpy(), np.array(effects)


def selectivity_by_hand(h, effects):
    """Σ w |V_L - V_R| / V, divided by Σ w: of each unit T_L and T_R, twice mean squares of
    differences between pairs that share a digit; what both have in common cancels."""
    a, b, c, d = h
    left, right = ((a - b) ** 2).mean(0) / 2, ((a - c) ** 2).mean(0) / 2
    interaction = ((a - b - c + d) ** 2).mean(0) / 4
    v_left, v_right = (left - interaction).clip(0), (right - interaction).clip(0)
    total = v_left + v_right + interaction
    live = total > 0
    return (effects * abs(v_left - v_right))[live] @ (1 / total[live]) / effects[live].sum()


def test_effect_selectivity_against_mean_ablation(ablated, whole):
    """Before a linear end, a unit's effect is what ablation does, exactly but for how its variance
    is estimated."""
    by_hand = selectivity_by_hand(*ablated)
    assert whole["hidden2", "both", "effect_selectivity"] == pytest.approx(by_hand, rel=0.03)
    assert abs(whole["hidden2", "both", "side_selectivity"] - by_hand) > 0.01  # another question


def test_effects_are_squared_derivatives(trained, splits, draws):
    """By finite differences, of a layer with a ReLU after it."""
    subject = Subject(trained, splits, draws[:50])
    found = subject.gradients["hidden1"].diagonal()
    four = torch.cat(list(subject.quadruples()), 1).flatten(0, 1)
    h = trained.hidden1(data.halves(splits[1].images, four).flatten(1)).double()
    end = copy.deepcopy(
        nn.Sequential(trained.hidden2, trained.bottleneck, trained.readout)
    ).double()
    for unit in (0, 40, 100):
        step = torch.zeros_like(h)
        step[:, unit] = 1e-6
        slope = (end(h + step) - end(h - step)) / 2e-6
        assert float(found[unit]) == pytest.approx(float(slope.square().mean()), rel=1e-3)


def test_the_chance_of_effect_selectivity_by_many_rotations(ablated, trained, whole):
    """Units scaled by the size of their effect, turned at random, measured as they then are."""
    h, _ = ablated
    slope = (trained.readout.weight @ trained.bottleneck.weight)[0].double().abs().numpy()
    live = (slope > 0) & (h.var((0, 1)) > 0)
    random, values = np.random.default_rng(0), []
    for _ in range(100):
        turn = np.linalg.qr(random.standard_normal((live.sum(),) * 2))[0]
        effect = (
            np.sign((trained.readout.weight @ trained.bottleneck.weight)[0].numpy()[live]) @ turn
        ) ** 2
        turned = h[..., live] * slope[live] @ turn
        values.append(selectivity_by_hand(turned, effect * turned.var((0, 1))))
    assert whole["hidden2", "both", "effect_selectivity_rotated"] == pytest.approx(
        np.mean(values), abs=0.03
    )


def test_where_the_output_does_not_depend_on_a_layer_there_is_no_effect(measured):
    network = network_of("mlp")
    nn.init.zeros_(network.bottleneck.weight)
    values, key = (
        measured(network, names=["effect_selectivity"]),
        ("hidden2", "both", "effect_selectivity"),
    )
    assert np.isnan(values[key]) and values.notes[key] == effect_selectivity.NO_EFFECT
