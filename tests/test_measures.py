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

from modvar_lib import data, metrics, models, training
from modvar_lib.architectures.calibration import Dose
from modvar_lib.metrics import clusterability, interchange, perturbations, weights
from modvar_lib.metrics.subject import NO_EFFECT, NOT_AFFINE, Subject, anova, quadruples
from modvar_lib.settings import Settings

PROPERTIES = {k: v for metric in metrics.METRICS.values() for k, v in metric.properties.items()}
HIDDEN = ("hidden1", "hidden2")
NAMES = [name for name in models.ARCHITECTURES if "dose" not in name]


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
    network = models.initial("mlp", 0)
    network.load_state_dict(training.train(Settings(**options), splits)[0].weights)
    network.requires_grad_(False)
    network.hidden1.map.weight[:80, 784:] *= 0.2  # sides that are neither alike nor balanced
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


def check(whole, other, change, exchange=None, layers=None):
    """Measures that declare themselves invariant are."""
    for (layer, side, measure), value in whole.items():
        if change in PROPERTIES[measure].invariant and (layers is None or layer in layers):
            again = other[layer, (exchange or {}).get(side, side), measure]
            close = pytest.approx(value, rel=2e-3, abs=2e-3, nan_ok=True)
            assert again == close, (layer, side, measure)


def test_invariant_to_the_order_of_units(whole, trained, measured):
    check(whole, measured(permuted(trained)), "permutation")


def test_invariant_to_positive_rescaling_where_claimed(whole, trained, measured):
    other = measured(rescaled(trained))
    check(whole, other, "rescaling")
    key = ("hidden2", "both", "side_selectivity")  # which does not claim it
    assert abs(whole[key] - other[key]) > 1e-3


@pytest.mark.parametrize("layer", HIDDEN)
def test_invariant_to_rotation_where_claimed(whole, trained, measured, layer):
    other = measured(perturbations.rotated(trained, layer))
    check(whole, other, "rotation", layers=[layer])
    for measure in ("side_selectivity", "specialisation"):  # which do not claim it
        assert "rotation" not in PROPERTIES[measure].invariant
        assert abs(whole[layer, "both", measure] - other[layer, "both", measure]) > 0.01


def test_swapping_the_sides_swaps_left_and_right(whole, trained, measured):
    other = measured(swapped(trained))
    check(whole, other, "swap", {"left": "right", "right": "left"})
    key = ("hidden1", "both", "side_balance")
    assert whole[key] == pytest.approx(-other[key], abs=1e-6) and abs(whole[key]) > 0.01


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
    **{name: functools.partial(network_of, name) for name in NAMES},
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
        low, high = declared.low - 1e-6, declared.high + 1e-6
        assert isinstance(value, float) and np.isnan(value) == bool(values.notes[what]), what
        assert np.isnan(value) or low <= value <= high, (what, value)


SILENT = (
    *("activation_change", "side_selectivity", "interaction", "offset_share", "specialisation"),
    *("lesion_leak", "interchange_error", "effect_selectivity", "effect_selectivity_rotated"),
)


def test_silent_layers_have_no_value_not_a_zero(measured):
    with torch.no_grad():
        found = measured(with_dead_units("hidden2"))
    for measure in SILENT:
        key = ("hidden2", "both", measure)
        assert np.isnan(found[key]) and found.notes[key], measure


def test_constant_units_do_not_count(measured, trained, whole):
    """Units that never vary change neither selectivity nor interaction, nor the split of the
    weights."""
    wider = copy.deepcopy(trained)
    before, following = wider.hidden1.map, wider.hidden2.map
    wider.hidden1.map, wider.hidden2.map = nn.Linear(1568, 138), nn.Linear(138, 64)
    wider.requires_grad_(False)
    wider.hidden1.map.weight[:128], wider.hidden1.map.weight[128:] = before.weight, 0
    wider.hidden1.map.bias[:128] = before.bias
    wider.hidden1.map.bias[128:] = torch.linspace(-1, 1, 10)  # dead, or on throughout
    wider.hidden2.map.weight[:, :128], wider.hidden2.map.weight[:, 128:] = following.weight, 0
    wider.hidden2.map.bias[:] = following.bias
    padded, others = measured(wider), ("weight_modularity", "lesion_leak", "effect_selectivity")
    for measure in ("side_selectivity", "interaction", *others):
        key = ("hidden1", "both", measure)
        assert whole[key] == pytest.approx(padded[key], abs=1e-4), measure


# calibration: the ends of the scale, and what lies between


TOWERS = {  # measure: value, tolerance
    "side_selectivity": (1, 1e-9),
    "effect_selectivity": (1, 1e-9),
    "interaction": (0, 1e-9),
    "weight_modularity": (0.5, 0.02),
    "weight_ncut": (0, 1e-6),
    "interchange_error": (0, 1e-6),
    "interchange_percentile": (0, 0),
    "lesion_leak": (0, 1e-6),
}
NONE = ("side_selectivity", "effect_selectivity", "effect_selectivity_rotated", "side_balance")


@pytest.fixture(scope="module")
def of_towers(measured):
    return measured(network_of("towers"))


@pytest.mark.parametrize("layer", HIDDEN)
def test_towers_are_modular_exactly(layer, of_towers):
    for measure, (value, apart) in TOWERS.items():
        assert of_towers[layer, "both", measure] == pytest.approx(value, abs=apart), measure
    assert of_towers[layer, "both", "effect_selectivity_rotated"] < 0.5


def test_summed_has_no_sides_exactly(measured):
    found = measured(network_of("summed"))
    for layer in HIDDEN:
        for measure in NONE:
            assert found[layer, "both", measure] == pytest.approx(0, abs=1e-6)
        for measure in ("weight_modularity", "interchange_error", "lesion_leak"):
            assert np.isnan(found[layer, "both", measure]) and found.notes[layer, "both", measure]


def test_rotated_towers_have_the_same_score_and_no_modules(measured, of_towers):
    turned = measured(perturbations.rotated(network_of("towers"), "hidden2"))
    for key in (("left", "activation_change"), ("both", "interaction"), ("both", "offset_share")):
        assert of_towers["hidden2", *key] == pytest.approx(turned["hidden2", *key], abs=5e-3), key
    for measure, chance in (("side_selectivity", of_towers), ("effect_selectivity", turned)):
        floor = chance["hidden2", "both", f"{measure}_rotated"]
        assert turned["hidden2", "both", measure] == pytest.approx(floor, abs=0.1) and floor < 0.5


def test_an_offset_lowers_the_score_and_nothing_else(measured, of_towers):
    moved = measured(perturbations.shifted(network_of("towers"), "hidden2", 0.5))
    key = ("hidden2", "both", "activation_change")
    assert moved[key] < 0.8 * of_towers[key]
    others = ("interchange_error", "lesion_leak", "effect_selectivity")
    for measure in ("side_selectivity", "interaction", *others):
        key = ("hidden2", "both", measure)
        assert of_towers[key] == pytest.approx(moved[key], abs=1e-4), measure


@pytest.mark.parametrize("change", ["rotated", "shifted"])
def test_copies_compute_the_same_function(change, trained, splits, draws):
    options = {"rotated": (), "shifted": (0.5,)}[change]
    pairs = data.halves(splits[1].images, draws[:, :2])
    for layer in (*HIDDEN, "bottleneck"):
        other = getattr(perturbations, change)(trained, layer, *options)
        assert torch.allclose(other(pairs), trained(pairs), atol=1e-3)


def test_a_shuffled_copy_keeps_the_weights_of_each_layer_in_another_order(trained):
    other = perturbations.shuffled(trained)
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
        tables, pairs = [], 5000 if metric == "information" else 400  # more pairs than units
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
    mean, energy = h.mean((0, 1)), (h**2).mean((0, 1))
    left, right = (((h.mean(axis) - mean) ** 2).mean(0) for axis in (1, 0))
    exact = {"left": left, "right": right, "mean": mean, "energy": energy}
    exact["interaction"] = energy - mean**2 - left - right
    x, y, x2, y2 = torch.randint(10, (4, 400_000), generator=generator)
    estimate = anova([{"l": torch.stack([h[x, y], h[x2, y], h[x, y2], h[x2, y2]])}])["l"]
    for name, value in exact.items():
        assert torch.allclose(getattr(estimate, name), value, rtol=0.03, atol=0.01), name


def test_separation_against_networkx():
    strength = torch.rand(7, 9, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    units, inputs = (
        {"left": torch.arange(n) < n // 2, "right": torch.arange(n) >= n // 2} for n in (7, 9)
    )
    edges = itertools.product(range(7), range(9))
    graph = networkx.Graph()
    graph.add_weighted_edges_from((f"u{i}", f"v{j}", float(strength[i, j])) for i, j in edges)
    groups = [
        {
            f"{kind}{i}"
            for kind, split in (("u", units), ("v", inputs))
            for i in split[side].nonzero().flatten().tolist()
        }
        for side in ("left", "right")
    ]
    q, ncut = weights.separation(strength, units, inputs)
    assert q == pytest.approx(networkx.community.modularity(graph, groups, weight="weight"))
    assert ncut == pytest.approx(networkx.normalized_cut_size(graph, *groups, weight="weight"))


def test_the_map_into_a_layer_is_its_weight_matrix(trained):
    modules = {"hidden1": trained.hidden1.map, "hidden2": trained.hidden2.map}
    modules["bottleneck"] = trained.bottleneck
    for before, (layer, module) in zip((weights.PIXELS, *modules), modules.items()):
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
    (four,) = quadruples(draws[: interchange.DRAWS])
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
    subject = Subject(trained, splits, draws)
    rows = metrics.METRICS["information"].rows(subject)
    value = {(r["layer"], r["side"], r["measure"]): r["value"] for r in rows}
    fit, test = draws[:, :2] % 5000, 5000 + draws[:, 2:] % 5000
    x, z = (subject.activations(pairs)["hidden2"].numpy() for pairs in (fit, test))
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


def gelu():
    network = network_of("mlp")
    network.hidden1.relu = nn.GELU()
    return network


UNCLUSTERED = {NOT_AFFINE: functools.partial(network_of, "vit"), clusterability.NOT_RELU: gelu}


def test_clusterability_of_a_network(splits, draws, monkeypatch):
    monkeypatch.setattr(clusterability, "SHUFFLES", 3)
    rows = clusterability.rows(Subject(network_of("towers"), splits, draws))
    value = {row["measure"]: row["value"] for row in rows}
    assert value["cluster_percentile"] == 0 and value["cluster_z"] < 0
    assert 0 < value["cluster_ncut"] < value["cluster_ncut_shuffled"] < 12
    for why, network in UNCLUSTERED.items():
        rows = clusterability.rows(Subject(network(), splits, draws))
        assert all(np.isnan(row["value"]) and row["note"] == why for row in rows)


@pytest.fixture(scope="module")
def ablated(trained, splits, draws):
    """What the layer before the bottleneck is on all four pairs of every draw, [4, n, U]; each
    unit's mean squared effect on the answer when it is frozen at its mean, unit by unit."""
    (four,) = quadruples(draws)
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


def test_the_chance_of_effect_selectivity_by_many_rotations(ablated, trained, whole):
    """Units scaled by the size of their effect, turned at random, measured as they then are."""
    h, _ = ablated
    slope = (trained.readout.weight @ trained.bottleneck.weight)[0].double().numpy()
    live = (slope != 0) & (h.var((0, 1)) > 0)
    random, values = np.random.default_rng(0), []
    for _ in range(100):
        turn = np.linalg.qr(random.standard_normal((live.sum(),) * 2))[0]
        effect = (np.sign(slope[live]) @ turn) ** 2
        turned = h[..., live] * abs(slope[live]) @ turn
        values.append(selectivity_by_hand(turned, effect * turned.var((0, 1))))
    found = whole["hidden2", "both", "effect_selectivity_rotated"]
    assert found == pytest.approx(np.mean(values), abs=0.03)


def test_where_the_output_does_not_depend_on_a_layer_there_is_no_effect(measured):
    network, key = network_of("mlp"), ("hidden2", "both", "effect_selectivity")
    nn.init.zeros_(network.bottleneck.weight)
    values = measured(network, names=["effect_selectivity"])
    assert np.isnan(values[key]) and values.notes[key] == NO_EFFECT
